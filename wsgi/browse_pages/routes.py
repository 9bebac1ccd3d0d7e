"""The address of each page."""

from __future__ import annotations

from typing import Any

from wsgi.browse_api.context import BrowseContext
from wsgi.browse_pages.accounts import AccountsPage
from wsgi.browse_pages.base import NotFoundPage, add_page
from wsgi.browse_pages.downloads import ReportDownload, ReportsDownload
from wsgi.browse_pages.files import HomeRedirect, PageFiles
from wsgi.browse_pages.history import HistoryPage
from wsgi.browse_pages.login import LoginPage, LogoutPage
from wsgi.browse_pages.matrix import MatrixPage
from wsgi.browse_pages.password import PasswordPage
from wsgi.browse_pages.people import AccessLogMoved, AccessLogPage, PatientsPage
from wsgi.browse_pages.reports import FilterPage, PrintPage, ReportPage, ReportsPage
from wsgi.browse_pages.to_review import ToReviewPage
from wsgi.browse_pages.trends import TrendsPage
from wsgi.browse_pages.welcome import WelcomePage
from wsgi.common.application import Application
from wsgi.common.views import add_view

PAGES: dict[str, Any] = {
    "/my/login": LoginPage,
    "/my/logout": LogoutPage,
    "/my/welcome": WelcomePage,
    "/my/password": PasswordPage,
    "/my/": ReportsPage,
    "/my/filter": FilterPage,
    "/my/print": PrintPage,
    "/my/download/<kind:re:csv|fhir>": ReportsDownload,
    "/my/trends": TrendsPage,
    "/my/matrix": MatrixPage,
    "/my/access-log": AccessLogPage,
    "/my/reports/<report_id:int>": ReportPage,
    "/my/reports/<report_id:int>/download/<kind:re:csv|fhir>": ReportDownload,
    "/my/reports/<report_id:int>/history": HistoryPage,
    "/my/to-review": ToReviewPage,
    "/my/accounts": AccountsPage,
    "/my/patients": PatientsPage,
    "/my/patients/<username>": ReportsPage,
    "/my/patients/<username>/filter": FilterPage,
    "/my/patients/<username>/print": PrintPage,
    "/my/patients/<username>/download/<kind:re:csv|fhir>": ReportsDownload,
    "/my/patients/<username>/trends": TrendsPage,
    "/my/patients/<username>/matrix": MatrixPage,
    "/my/patients/<username>/access-log": AccessLogPage,
    "/my/<path:path>": NotFoundPage,
}
# Earlier addresses, which redirect for good.
MOVED: dict[str, Any] = {"/my/looks": AccessLogMoved, "/my/patients/<username>/looks": AccessLogMoved}


def add_pages(application: Application, context: BrowseContext) -> None:
    """Route the pages, their files, and the bare address."""
    add_view(application, "/", HomeRedirect, context)
    add_view(application, "/static/<name>", PageFiles, context)
    for path, page in {**MOVED, **PAGES}.items():
        add_page(application, path, page, context)

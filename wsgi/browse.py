"""The browse API and its pages: people read their own reports. It reads MongoDB only; the upload API checks logins.

`gunicorn wsgi.browse:app` serves it with the settings of the environment.
"""

from typing import Any

from myhealth.common.settings import Settings
from wsgi.browse_api.context import BrowseContext
from wsgi.browse_api.fhir import FHIR_VIEWS
from wsgi.browse_api.schemas import BROWSE_SCHEMAS
from wsgi.browse_api.sync_endpoints import SYNC_SCHEMAS, CallView, ReportDocumentsView
from wsgi.browse_api.views import (
    AccessLogView,
    BrowsedUsersView,
    BrowsedUserView,
    BrowseLogin,
    ForwardedLogoutView,
    ReportsView,
    SingleReportView,
    TrendsView,
    UserReportsView,
)
from wsgi.browse_pages.base import NotFoundPage, add_page, redirect
from wsgi.browse_pages.downloads import ReportDownload, ReportsDownload
from wsgi.browse_pages.login import LoginPage, LogoutPage, PasswordPage, WelcomePage
from wsgi.browse_pages.matrix import MatrixPage
from wsgi.browse_pages.people import AccessLogMoved, AccessLogPage, AccountsPage, PatientsPage, ToReviewPage
from wsgi.browse_pages.reports import FilterPage, HistoryPage, PrintPage, ReportPage, ReportsPage
from wsgi.browse_pages.trends import TrendsPage
from wsgi.common.application import Application, LazyApplication
from wsgi.common.requests import Site
from wsgi.common.shared_views import HEALTH_VIEWS, description_views
from wsgi.common.views import StaticView, View, add_view, merge_views

# What /openapi.json describes.
VIEWS: dict[str, Any] = {
    "/login/": BrowseLogin,
    "/logout/": ForwardedLogoutView,
    "/reports/": merge_views(ReportsView, ReportDocumentsView),
    "/reports/<report_id:int>/": SingleReportView,
    "/users/": BrowsedUsersView,
    "/users/<username>/": BrowsedUserView,
    "/users/<username>/reports/": UserReportsView,
    "/users/<username>/trends/": TrendsView,
    "/users/<username>/access-log/": AccessLogView,
    **FHIR_VIEWS,
    **HEALTH_VIEWS,
    "/sync/call/<method>/": CallView,
}
# The pages for people.
MY_PAGES: dict[str, Any] = {
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
DESCRIPTION = (
    "People read their own reports. Doctors and admins read those of others, who can see who read theirs. Lists come in"
    " pages, which the `Link` header connects. Every path answers with and without its closing slash."
    " Every answer has an `X-Request-ID`, the one that was sent or a new one."
)
PAGES = description_views("MyHealth browse API", DESCRIPTION, VIEWS, BROWSE_SCHEMAS | SYNC_SCHEMAS)


class PageFiles(StaticView):
    """The style sheet, the script and the icon."""

    files = frozenset({"pages.css", "pages.js", "icon.svg"})


class HomeRedirect(View):
    """Redirects the server's bare address to the reader's reports; a reader without a session gets the login there."""

    def get(self) -> Any:
        return redirect("/my/")


def make_app(settings: Settings) -> Application:
    """Return the application. MongoDB is connected at the first request. Raises SettingsError."""
    context = BrowseContext(settings)
    application = Application("browse", context, Site(settings.browse.public_url, settings.trusted_proxies))
    for path, view in {**VIEWS, **PAGES, "/": HomeRedirect, "/static/<name>": PageFiles}.items():
        add_view(application, path, view, context)
    for path, page in {**MOVED, **MY_PAGES}.items():
        add_page(application, path, page, context)
    return application


app = LazyApplication("browse", make_app)

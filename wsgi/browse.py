"""The browse API and its pages: people read their own reports. It reads MongoDB only; the upload API checks logins.

`gunicorn wsgi.browse:app` serves it with the settings of the environment.
"""

from typing import Any

from myhealth.common.settings import Settings
from wsgi.browse_api import sync_endpoints, views
from wsgi.browse_api.context import BrowseContext
from wsgi.browse_api.fhir import FHIR_VIEWS
from wsgi.browse_api.parameters import BROWSE_SCHEMAS
from wsgi.browse_pages import downloads, login, matrix, people, reports, trends
from wsgi.browse_pages.base import NotFoundPage, add_page, redirect
from wsgi.common.application import Application, LazyApplication
from wsgi.common.requests import Site
from wsgi.common.shared_views import HEALTH_VIEWS, description_views
from wsgi.common.views import StaticView, View, add_view, merge_views

# What /openapi.json describes.
VIEWS: dict[str, Any] = {
    "/login/": views.BrowseLogin,
    "/logout/": views.ForwardedLogoutView,
    "/reports/": merge_views(views.ReportsView, sync_endpoints.ReportDocumentsView),
    "/reports/<report_id:int>/": views.SingleReportView,
    "/users/": views.BrowsedUsersView,
    "/users/<username>/": views.BrowsedUserView,
    "/users/<username>/reports/": views.UserReportsView,
    "/users/<username>/trends/": views.TrendsView,
    "/users/<username>/access-log/": views.AccessLogView,
    **FHIR_VIEWS,
    **HEALTH_VIEWS,
    "/sync/call/<method>/": sync_endpoints.CallView,
}
# The pages for people.
MY_PAGES: dict[str, Any] = {
    "/my/login": login.LoginPage,
    "/my/logout": login.LogoutPage,
    "/my/welcome": login.WelcomePage,
    "/my/password": login.PasswordPage,
    "/my/": reports.ReportsPage,
    "/my/filter": reports.FilterPage,
    "/my/print": reports.PrintPage,
    "/my/download/<kind:re:csv|fhir>": downloads.ReportsDownload,
    "/my/trends": trends.TrendsPage,
    "/my/matrix": matrix.MatrixPage,
    "/my/access-log": people.AccessLogPage,
    "/my/reports/<report_id:int>": reports.ReportPage,
    "/my/reports/<report_id:int>/download/<kind:re:csv|fhir>": downloads.ReportDownload,
    "/my/reports/<report_id:int>/history": reports.HistoryPage,
    "/my/to-review": people.ToReviewPage,
    "/my/accounts": people.AccountsPage,
    "/my/patients": people.PatientsPage,
    "/my/patients/<username>": reports.ReportsPage,
    "/my/patients/<username>/filter": reports.FilterPage,
    "/my/patients/<username>/print": reports.PrintPage,
    "/my/patients/<username>/download/<kind:re:csv|fhir>": downloads.ReportsDownload,
    "/my/patients/<username>/trends": trends.TrendsPage,
    "/my/patients/<username>/matrix": matrix.MatrixPage,
    "/my/patients/<username>/access-log": people.AccessLogPage,
    "/my/<path:path>": NotFoundPage,
}
# Earlier addresses, which redirect for good.
MOVED: dict[str, Any] = {"/my/looks": people.AccessLogMoved, "/my/patients/<username>/looks": people.AccessLogMoved}
DESCRIPTION = (
    "People read their own reports. Doctors and admins read those of others, who can see who read theirs. Lists come in"
    " pages, which the `Link` header connects. Every path answers with and without its closing slash."
    " Every answer has an `X-Request-ID`, the one that was sent or a new one."
)
PAGES = description_views("MyHealth browse API", DESCRIPTION, VIEWS, BROWSE_SCHEMAS | sync_endpoints.SYNC_SCHEMAS)


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

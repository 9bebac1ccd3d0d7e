"""The browse API and its pages: people read their own reports. It reads MongoDB only; the upload API checks logins.

`gunicorn wsgi.browse:app` serves it with the settings of the environment.
"""

from typing import Any

from myhealth.common.settings import Settings
from wsgi.browse_api.context import BrowseContext
from wsgi.browse_api.fhir import FHIR_VIEWS
from wsgi.browse_api.reports import ReportsView, SingleReportView, UserReportsView
from wsgi.browse_api.schemas import BROWSE_SCHEMAS
from wsgi.browse_api.sync_endpoints import SYNC_SCHEMAS, CallView, ReportDocumentsView
from wsgi.browse_api.users import (
    AccessLogView,
    BrowsedUsersView,
    BrowsedUserView,
    BrowseLogin,
    ForwardedLogoutView,
    TrendsView,
)
from wsgi.browse_pages.routes import add_pages
from wsgi.common.application import Application, LazyApplication
from wsgi.common.shared_views import HEALTH_VIEWS, description_views
from wsgi.common.site_address import Site
from wsgi.common.views import add_view, merge_views

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
DESCRIPTION = (
    "People read their own reports; doctors and admins read others', who can see who read theirs. Lists are pages,"
    " linked by the Link header. Every path answers with and without its closing slash."
    " Every answer has an `X-Request-ID`, the one that was sent or a new one."
)
# The description itself.
PAGES: dict[str, Any] = {**description_views("MyHealth browse API", DESCRIPTION, VIEWS, BROWSE_SCHEMAS | SYNC_SCHEMAS)}


def make_app(settings: Settings) -> Application:
    """Return the application. MongoDB is connected at the first request. Raises SettingsError."""
    context = BrowseContext(settings)
    application = Application("browse", context, Site(settings.browse.public_url, settings.trusted_proxies))
    for path, view in (VIEWS | PAGES).items():
        add_view(application, path, view, context)
    add_pages(application, context)
    return application


app = LazyApplication("browse", make_app)

"""The upload API: receives records and checks logins. It uses PostgreSQL only.

`gunicorn wsgi.upload:app` serves it with the settings from the environment.
"""

from typing import Any

from myhealth.common.settings import Settings
from myhealth.profiles.tokens import load_secret
from wsgi.common.application import Application, LazyApplication
from wsgi.common.requests import Site
from wsgi.common.shared_views import HEALTH_VIEWS, description_views
from wsgi.common.views import add_view
from wsgi.upload_api.accounts import (
    InvitationsView,
    JwksView,
    LinkView,
    LogoutView,
    RegistrationView,
    UploadLogin,
    UsersView,
    UserView,
    WelcomeView,
)
from wsgi.upload_api.checkups import (
    CheckupsView,
    DumpsView,
    HistoryView,
    MachinesView,
    ReviewView,
    UserCheckupsView,
    UserCheckupView,
)
from wsgi.upload_api.context import UploadContext
from wsgi.upload_api.fhir import FHIR_WRITE_VIEWS
from wsgi.upload_api.form_page import TypeInPage, UploadFiles, UploadPage
from wsgi.upload_api.refused_page import RefusedPage
from wsgi.upload_api.rejections import REJECTION_VIEWS
from wsgi.upload_api.schemas import SCHEMAS
from wsgi.upload_api.table_page import TablePage

# The routes that /openapi.json describes.
VIEWS: dict[str, Any] = {
    "/login/": UploadLogin,
    "/logout/": LogoutView,
    "/registration/": RegistrationView,
    "/invitations/": InvitationsView,
    "/welcome/": WelcomeView,
    "/.well-known/jwks.json": JwksView,
    "/users/": UsersView,
    "/users/<username>/": UserView,
    "/users/<username>/link/": LinkView,
    "/users/<username>/checkups/": UserCheckupsView,
    "/users/<username>/checkups/<checkup_id:int>/": UserCheckupView,
    "/users/<username>/checkups/<checkup_id:int>/history/": HistoryView,
    "/users/<username>/checkups/<checkup_id:int>/review/": ReviewView,
    "/checkups/": CheckupsView,
    "/reports/": CheckupsView,
    "/machines/": MachinesView,
    "/machines/<serial>/dumps/": DumpsView,
    **REJECTION_VIEWS,
    **FHIR_WRITE_VIEWS,
    **HEALTH_VIEWS,
}
DESCRIPTION = (
    "Receives check-up records and checks logins. Every path answers with and without its closing slash."
    " Every answer has an `X-Request-ID`, the one that was sent or a new one."
)
# The description itself, and the page for manual uploads.
PAGES: dict[str, Any] = {
    **description_views("MyHealth upload API", DESCRIPTION, VIEWS, SCHEMAS),
    "/": UploadPage,
    "/csv": TablePage,
    "/refused": RefusedPage,
    "/type-in": TypeInPage,
    "/static/<name>": UploadFiles,
}


def make_app(settings: Settings) -> Application:
    """Return the application with these settings. PostgreSQL is opened at the first request. Raises SettingsError."""
    context = UploadContext(settings)
    application = Application("upload", context, Site(settings.upload.public_url, settings.trusted_proxies))
    for path, view in (VIEWS | PAGES).items():
        add_view(application, path, view, context)
    application.add_hook("after_request", context.release_connection)
    return application


app = LazyApplication("upload", make_app, load_secret)

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
from wsgi.upload_api import accounts, checkups, form_page, refused_page, table_page, uploads
from wsgi.upload_api.context import UploadContext
from wsgi.upload_api.fhir import FHIR_WRITE_VIEWS
from wsgi.upload_api.rejections import REJECTION_VIEWS
from wsgi.upload_api.schemas import SCHEMAS

# The routes that /openapi.json describes.
VIEWS: dict[str, Any] = {
    "/login/": accounts.UploadLogin,
    "/logout/": accounts.LogoutView,
    "/registration/": accounts.RegistrationView,
    "/invitations/": accounts.InvitationsView,
    "/welcome/": accounts.WelcomeView,
    "/.well-known/jwks.json": accounts.JwksView,
    "/users/": accounts.UsersView,
    "/users/<username>/": accounts.UserView,
    "/users/<username>/link/": accounts.LinkView,
    "/users/<username>/checkups/": uploads.UserCheckupsView,
    "/users/<username>/checkups/<checkup_id:int>/": checkups.UserCheckupView,
    "/users/<username>/checkups/<checkup_id:int>/history/": checkups.HistoryView,
    "/users/<username>/checkups/<checkup_id:int>/review/": checkups.ReviewView,
    "/checkups/": uploads.CheckupsView,
    "/reports/": uploads.CheckupsView,
    "/machines/": checkups.MachinesView,
    "/machines/<serial>/dumps/": uploads.DumpsView,
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
    "/": form_page.UploadPage,
    "/csv": table_page.TablePage,
    "/refused": refused_page.RefusedPage,
    "/type-in": form_page.TypeInPage,
    "/static/<name>": form_page.UploadFiles,
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

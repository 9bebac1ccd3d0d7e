"""The browse API and its pages: people read their own reports. Its store: MongoDB alone; the upload API checks logins.

`gunicorn wsgi.browse:app` serves it with the settings of the environment.
"""

from __future__ import annotations

import bottle

from myhealth.common.settings import Settings, load
from wsgi.browse_api.accounts import LoginView
from wsgi.browse_api.context import BrowseContext
from wsgi.browse_api.health import HealthView
from wsgi.browse_api.reports import ReportsView, ReportView, UserReportsView
from wsgi.browse_pages.routes import add_pages
from wsgi.common.application import Application, LazyApplication
from wsgi.common.views import add_view

VIEWS = {
    "/login/": LoginView,
    "/reports/": ReportsView,
    "/reports/<report_id:int>/": ReportView,
    "/users/<username>/reports/": UserReportsView,
    "/healthz": HealthView,
}


def make_app(settings: Settings) -> bottle.Bottle:
    """The application on these settings; MongoDB is asked at the first request. Raises WrongSettings."""
    context = BrowseContext(settings)
    application = Application(context.close)
    for path, view in VIEWS.items():
        add_view(application, path, view, context)
    add_pages(application, context)
    return application


app = LazyApplication(lambda: make_app(load()))

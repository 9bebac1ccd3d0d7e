"""The page on which a doctor or a technician uploads a file."""

from typing import Any

from myhealth import __version__
from wsgi.common.pages import StaticView, html_response
from wsgi.common.views import View
from wsgi.upload_api.context import UploadContext


class UploadPage(View):
    """The page; its script calls the API."""

    context: UploadContext

    def get(self) -> Any:
        max_body_bytes = self.context.settings.upload.max_body_bytes
        return html_response("upload.html", version=__version__, max_body_bytes=max_body_bytes)


class UploadFiles(StaticView):
    """The pages' script, style sheet and icon."""

    files = frozenset({"upload.js", "upload.css", "icon.svg"})

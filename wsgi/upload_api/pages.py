"""The page where a doctor or a technician uploads a file by hand."""

from __future__ import annotations

from typing import Any

from myhealth import __version__
from wsgi.common.pages import StaticView, html_response
from wsgi.common.views import View
from wsgi.upload_api.context import UploadContext


class UploadPage(View):
    context: UploadContext

    def get(self) -> Any:
        most = self.context.settings.upload.max_body_bytes
        return html_response("upload.html", version=__version__, max_body_bytes=most)


class UploadFiles(StaticView):
    files = frozenset({"upload.js", "upload.css"})

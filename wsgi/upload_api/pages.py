"""The page where a doctor or a technician uploads a file by hand, and the API's own description."""

from __future__ import annotations

from typing import Any

from myhealth import __version__
from wsgi.common.openapi import build
from wsgi.common.pages import StaticView, page_response
from wsgi.common.views import View, json_response
from wsgi.upload_api.context import UploadContext
from wsgi.upload_api.schemas import SCHEMAS


class UploadPage(View):
    context: UploadContext

    def get(self) -> Any:
        most = self.context.settings.upload.max_body_bytes
        return page_response("upload.html", version=__version__, max_body_bytes=most)


class UploadFiles(StaticView):
    files = frozenset({"upload.js", "upload.css"})


def description_view(views: dict[str, Any]) -> type[View]:
    """A view that describes these views."""
    document = build(
        "MyHealth upload API",
        "Takes check-up records in, and checks logins. Every path answers with and without its closing slash.",
        views,
        SCHEMAS,
    )

    class DescriptionView(View):
        def get(self) -> Any:
            return json_response(document, headers={"Cache-Control": "no-cache"})

    return DescriptionView

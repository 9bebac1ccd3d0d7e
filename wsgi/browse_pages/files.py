"""The files that the pages load, and the redirect of the server's bare address."""

from __future__ import annotations

from typing import Any

from wsgi.browse_pages.base import redirect
from wsgi.common.pages import StaticView
from wsgi.common.views import View


class PageFiles(StaticView):
    """The style sheet, the script and the icon."""

    files = frozenset({"pages.css", "pages.js", "icon.svg"})


class HomeRedirect(View):
    """Redirects the server's bare address to the reader's reports; a reader without a session gets the login there."""

    def get(self) -> Any:
        return redirect("/my/")

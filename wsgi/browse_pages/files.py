"""What the pages load, and where the server's own address leads to."""

from __future__ import annotations

from typing import Any

from wsgi.browse_pages.base import redirect
from wsgi.common.pages import StaticView
from wsgi.common.views import View


class PageFiles(StaticView):
    files = frozenset({"pages.css", "pages.js", "icon.svg"})


class HomeRedirect(View):
    """The server's bare address leads people to their reports, and whoever is not logged in on to the login."""

    def get(self) -> Any:
        return redirect("/my/")

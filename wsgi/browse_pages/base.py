"""What all pages have in common: their frame, their errors, who is reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import bottle

from myhealth import __version__
from myhealth.common.errors import BadInput, MyHealthError, NotFound, NotLoggedIn
from wsgi.browse_api.context import STAFF, AuthenticatedBrowseView, BrowseContext
from wsgi.browse_pages import result_view, session
from wsgi.browse_pages.dates import Dates, reader_zone
from wsgi.browse_pages.navigation import OWN_MENU, PATIENT_MENU, PATIENTS, THEIR, link, menu_links
from wsgi.common.application import Application, ErrorPlugin, error_response, log_exception
from wsgi.common.pages import html_response
from wsgi.common.views import View, add_view

# What a person is told where the error itself speaks to programs.
TITLES = {
    400: "That cannot be shown",
    403: "Please try again",
    404: "There is nothing here",
    413: "That is too long",
    429: "Please wait a while",
    500: "Something went wrong",
    502: "Not available right now",
    503: "Not available right now",
    504: "Not available right now",
}
ARRIVING = (
    "Your account is new here: it takes a few minutes until your reports can be shown. There is nothing that you need"
    " to do; please look in again then."
)
HELP = {
    400: "The address of this page is not right: it may be mistyped or cut short. Start again from your reports.",
    404: "The address may be mistyped, or what was here is not there any more.",
    500: "It is not your doing, and nothing of yours is lost. It has been noted; please try again later.",
    502: "Nothing of yours is lost. Please try again in a few minutes.",
    503: "Nothing of yours is lost. Please try again in a few minutes.",
    504: "Nothing of yours is lost. Please try again in a few minutes.",
}


class Page(View):
    """One page. `user`: who is logged in, None for nobody yet."""

    context: BrowseContext
    user: dict[str, Any] | None = None

    def render(self, template: str, http_status: int = 200, here: str = "", **values: Any) -> bottle.HTTPResponse:
        """A page out of wsgi/templates/pages/, in its frame."""
        frame = {
            "user": self.user,
            "form_key": session.form_key(session.session_token()) if self.user else "",
            "dates": self.dates,
            "words": result_view,
            "version": __version__,
            "link": link,
            "patient": None,
            "here": here,
            **self._menus(here, values.get("patient")),
        }
        return html_response(f"pages/{template}.html", http_status, **{**frame, **values})

    def _menus(self, here: str, patient: dict[str, Any] | None) -> dict[str, Any]:
        """Return the reader's own menu, and the menu of the patient whose record is open."""
        is_staff = self.user is not None and self.user["role"] in STAFF
        own = menu_links((PATIENTS, *OWN_MENU) if is_staff else OWN_MENU, here)
        base = ("patients", patient["username"]) if patient else ()
        theirs = menu_links(PATIENT_MENU, here.removeprefix(THEIR), *base) if patient else []
        return {"menu": own, "patient_menu": theirs}

    @property
    def dates(self) -> Dates:
        """How this reader's dates are written."""
        return Dates(reader_zone(session.told_zone(), self.context.settings.time_zone))

    def failed(self, error: MyHealthError) -> bottle.HTTPResponse:
        """The page that an error is; the title and the sentence are for a person."""
        told = error_response(error)
        status = told.status_code
        # A bare bad_input speaks to whoever wrote the address; those of forms have codes of their own.
        for_people = status in (400, 403, 413, 429) and error.code != BadInput.code
        title, sentence = TITLES[status], error.message if for_people else HELP[status]
        if error.code == "not_here_yet":
            title, sentence = "Your reports are on their way", ARRIVING
        answer = self.render(
            "error", status, title=title, sentence=sentence, problem=status, logout=self.holds_session()
        )
        if "Retry-After" in told.headers:
            answer.set_header("Retry-After", told.headers["Retry-After"])
        return answer

    def holds_session(self) -> str:
        """The key of a form to log out with, where the browser holds a token though it is not known whose."""
        return session.form_key(session.session_token()) if session.session_token() else ""


class LoggedInPage(Page, AuthenticatedBrowseView):
    """For pages of somebody: nobody sees them without a session. Who may see whose is the API's own rule."""

    user: dict[str, Any]

    def prepare(self) -> None:
        """The token is the cookie's; one in a header is not looked at."""
        token = session.session_token()
        if not token:
            raise NotLoggedIn("Log in first.", code="token_missing")
        self.user = self.context.user_of_token(token)


class NotFoundPage(Page):
    """Whatever under /my/ is no page."""

    def get(self, path: str) -> Any:
        raise NotFound("There is nothing at this address.")

    post = get


class PageErrors:
    """Turns errors into pages, as ErrorPlugin turns them into JSON; nobody logged in is led to the login."""

    name = "page errors"
    api = 2

    def __init__(self, context: BrowseContext) -> None:
        self._page = Page(context)

    def apply(self, callback: Callable[..., Any], route: Any) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return callback(*args, **kwargs)
            except NotLoggedIn:
                return redirect(login_path())
            except MyHealthError as error:
                return self._page.failed(error)
            except bottle.HTTPResponse:
                raise
            except Exception:  # noqa: BLE001 - the edge of the program
                log_exception(route.rule)
                return self._page.failed(MyHealthError("Something went wrong here."))

        return wrapped


def add_page(application: Application, path: str, page: type[Page], context: BrowseContext) -> None:
    """Routes a path to a page."""
    add_view(application, path, page, context, skip=[ErrorPlugin], apply=[PageErrors(context)])


def redirect(path: str, status: int = 303) -> bottle.HTTPResponse:
    """Return a redirect to another page, which the browser opens by GET. 301: the page has moved for good."""
    headers = {"Location": path, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return bottle.HTTPResponse(status=status, headers=headers)


def login_path() -> str:
    """The login page, which leads back to where somebody was; a form that was sent is not sent again."""
    asked = bottle.request.path + (f"?{bottle.request.query_string}" if bottle.request.query_string else "")
    target = session.safe_target(quote(asked, safe="/?=&%:+,.-_~")) if bottle.request.method == "GET" else session.HOME
    return "/my/login" if target == session.HOME else f"/my/login?next={quote(target, safe='')}"

"""The base of all pages: their frame, their errors, and the user who reads them."""

import contextlib
from collections.abc import Collection
from functools import cached_property
from typing import Any
from urllib.parse import quote

import bottle

from myhealth import __version__
from myhealth.common.errors import BadInput, MyHealthError, NotFound, NotLoggedIn, Unavailable
from wsgi.browse_api.context import STAFF, AuthenticatedBrowseView, BrowseContext
from wsgi.browse_pages import session
from wsgi.browse_pages.dates import Dates, reader_zone
from wsgi.browse_pages.navigation import (
    ACCOUNTS,
    OWN_MENU,
    OWN_RECORD,
    PATIENT_MENU,
    PATIENTS,
    TO_REVIEW,
    link,
    menu_links,
    person_view,
)
from wsgi.common.application import Application, ErrorPlugin, error_response
from wsgi.common.views import View, add_view, html_response

# Titles and sentences for people; an error's own message is often for programs.
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
NOTHING_HERE = "There is nothing at this address."
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
    """One page. `user`: the user who is logged in, None without a session; `token`: the session's token; `patient`:
    whose record staff reads, None on all other pages."""

    context: BrowseContext
    user: dict[str, Any] | None = None
    patient: dict[str, Any] | None = None
    token: str = ""

    def render(self, template: str, http_status: int = 200, here: str = "", **values: Any) -> bottle.HTTPResponse:
        """Return a page of wsgi/templates/pages/ in its frame. `here`: the page's name in the menus."""
        frame = {
            **self.menus(here),
            "user": person_view(self.user) if self.user else None,
            "form_key": session.form_key(self.token) if self.user else "",
            "zone_name": self.dates.zone_name,
            "version": __version__,
        }
        return html_response(f"pages/{template}.html", http_status, **{**frame, **values})

    def menus(self, here: str) -> dict[str, Any]:
        """Return the menus of the frame, on a patient's page also the patient's. `is_own_record`: the page shows the
        user's record, so that paper needs the user's name. A member of staff opens the own record, with a menu of its
        own, by the name in the frame. `home`: where the user starts."""
        is_staff, patient = self.is_staff, self.patient
        of_staff = (PATIENTS, TO_REVIEW) * is_staff + (ACCOUNTS,) * self.is_admin
        is_own_record = self.user is not None and patient is None and here in OWN_RECORD
        return {
            "home": link(PATIENTS.name) if is_staff else session.HOME,
            "menu": menu_links(of_staff or OWN_MENU, "" if patient else here),
            "own_menu": menu_links(OWN_MENU, here) if is_staff and is_own_record else [],
            "is_staff": is_staff,
            "is_own_record": is_own_record,
            "patient": person_view(patient) if patient else None,
            "patient_menu": menu_links(PATIENT_MENU, here, PATIENTS.name, patient["username"]) if patient else [],
        }

    @property
    def is_staff(self) -> bool:
        """Whether the user may see the records of others."""
        return self.user is not None and self.user["role"] in STAFF

    @property
    def is_admin(self) -> bool:
        """Whether the user may link accounts."""
        return self.user is not None and self.user["role"] == "admin"

    @cached_property
    def dates(self) -> Dates:
        """The dates in the reader's zone."""
        return Dates(reader_zone(session.cookie(session.ZONE), self.context.settings.time_zone))

    def failed(self, error: MyHealthError) -> bottle.HTTPResponse:
        """Return the page of an error, with a title and a sentence for people."""
        response = error_response(error)
        status = response.status_code
        # The message of a bare bad_input is for the author of an address. Errors in forms have codes of their own.
        for_people = status in (400, 403, 413, 429) and error.code != BadInput.code
        known = status if status in TITLES else 400
        title, sentence = TITLES[known], error.message if for_people else HELP[known]
        if error.code == "not_here_yet":
            title, sentence = "Your reports are on their way", ARRIVING
        self.token = session.cookie(session.SESSION)
        if self.token and not isinstance(error, Unavailable):
            with contextlib.suppress(MyHealthError):  # an error page has the menus as well
                self.user, _ = self.context.user_of_token(self.token)
        answer = self.render(
            "error",
            status,
            title=title,
            sentence=sentence,
            leads_home=status in (400, 403, 404),
            logout_key=session.form_key(self.token)
            if self.token and self.user is None and status not in (400, 404)
            else "",
        )
        if "Retry-After" in response.headers:
            answer.set_header("Retry-After", response.headers["Retry-After"])
        return answer

    def ended(self, note: str) -> bottle.HTTPResponse:
        """Return the page for a note that was sent after the session had ended, so that it can be copied."""
        answer = self.render("ended", 401, note=note, path=login_path(bottle.request.path))
        answer.set_header("WWW-Authenticate", 'Bearer realm="MyHealth"')
        return answer


class LoggedInPage(Page, AuthenticatedBrowseView):
    """A page that needs a session. The API's own rule decides whose records the user may see."""

    user: dict[str, Any]
    parameters: Collection[str] = ()  # the names that the address may have

    def prepare(self) -> None:
        """Read the user from the cookie's token. A token in a header has no effect here. Raises NotLoggedIn, and
        BadInput for an unknown parameter."""
        self.token = session.cookie(session.SESSION)
        if not self.token:
            raise NotLoggedIn("Log in first.", code="token_missing")
        self.read_user(self.token)
        if not bottle.request.query.keys() <= {*self.parameters}:
            raise BadInput("The address has an unknown parameter.")

    def only_for(self, allowed: bool) -> None:
        """Raise NotFound, as for an address without a page, and log the refusal, unless `allowed`."""
        if not allowed:
            self._log_refusal(None, "account", bottle.request.path)
            raise NotFound(NOTHING_HERE)


class NotFoundPage(Page):
    """Respond 404 to every address under /my/ that is not a page."""

    def get(self, path: str) -> Any:
        raise NotFound(NOTHING_HERE)

    post = get


class PageErrors(ErrorPlugin):
    """Turns errors into pages, as ErrorPlugin turns them into JSON. Without a session it redirects to the login."""

    name = "page errors"

    def __init__(self, context: BrowseContext) -> None:
        self._context = context

    def answer(self, error: MyHealthError) -> bottle.HTTPResponse:
        if not isinstance(error, NotLoggedIn):
            return Page(self._context).failed(error)
        note = session.typed_note()
        return Page(self._context).ended(note) if note else redirect(login_path())


def add_page(application: Application, path: str, page: type[Page], context: BrowseContext) -> None:
    """Route a path to a page."""
    add_view(application, path, page, context, skip=[ErrorPlugin], apply=[PageErrors(context)])


def redirect(path: str, status: int = 303) -> bottle.HTTPResponse:
    """Return a redirect to another page, which the browser opens by GET. 301: the page has moved for good."""
    headers = {"Location": path, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return bottle.HTTPResponse(status=status, headers=headers)


def login_path(asked: str = "") -> str:
    """Return the address of the login page, which leads back to the page that was asked for. A POST is not repeated:
    after it the login leads to the first page, or to the page `asked`."""
    request = bottle.request
    if asked:
        return f"/my/login?next={quote(session.safe_target(asked), safe='')}"
    asked = request.path + (f"?{request.query_string}" if request.query_string else "")
    target = session.safe_target(quote(asked, safe="/?=&%:+,.-_~")) if request.method == "GET" else session.HOME
    return "/my/login" if target == session.HOME else f"/my/login?next={quote(target, safe='')}"

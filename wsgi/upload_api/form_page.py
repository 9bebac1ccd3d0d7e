"""The upload API's pages: the one that uploads a file, and the base of those with forms, which work without JavaScript.

No cookie is set: the token travels in a hidden field from each page to the next request."""

import contextlib
import email.message
import json
import re
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import bottle
from peewee import Expression

from myhealth import __version__
from myhealth.audit.events import Actor, acting_as, record_event
from myhealth.common.errors import BadInput, MyHealthError, NotLoggedIn
from myhealth.common.text import fold_name
from myhealth.intake.parsed_record import DECODER
from myhealth.profiles.models import PatientIdentifier, User
from wsgi.common.pages import StaticView, html_response
from wsgi.common.requests import SMALL_BODY_BYTES, WrongMediaType, client_address, header, parameter_pairs, spool_body
from wsgi.common.views import View
from wsgi.upload_api.accounts import UploadLogin
from wsgi.upload_api.checkups import SENDERS, TakesRecords
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


CREDENTIALS = ("username", "password", "token")  # they come first in a form, so that only known users' forms are read
NAMED = re.compile(rb'[; ]name="?(\w+)"?')
FIELD_MAX = 10_000  # characters
FOUND_MAX = 10
FORM_MAX_BYTES = 3 * SMALL_BODY_BYTES  # a record, each of its bytes escaped
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")


class FormPage(TakesRecords):
    """GET is the page with the login; POST is a form, which logs in if it has no token yet.

    `template`: of the page; `fields`: those of the form; `roles`: who may send it; `max_bytes`: of a form.
    """

    template: str
    fields: tuple[str, ...]
    roles: tuple[str, ...] = SENDERS

    @property
    def max_bytes(self) -> int:
        return FORM_MAX_BYTES

    def perform(self, verb: str, **parts: Any) -> Any:
        self.context.open()
        self.address = client_address(self.context.settings.trusted_proxies)
        return getattr(self, verb)()

    def get(self) -> Any:
        return self.page({})

    def post(self) -> Any:
        form: dict[str, Any] = {}
        with contextlib.ExitStack() as held:
            try:
                if header("Content-Encoding"):  # no browser packs a form, and nobody has logged in yet
                    raise WrongMediaType("The form is taken as it is only.")
                body = held.enter_context(spool_body(self.max_bytes, partial(self.enter, form)))
                with acting_as(Actor(self.user.id, self.user.username, self.address)):
                    self.read_form(body, form, held)
                    return self.answer(form, held)
            except MyHealthError as error:
                if isinstance(error, NotLoggedIn):
                    form["token"] = ""
                hint = f" ({error.hint})" if error.hint else ""
                return self.page(form, error.status, message=error.message + hint)

    def enter(self, form: dict[str, Any], head: bytes) -> None:
        """Let the user in with whose token or password a form begins: nobody else's form is read further."""
        form |= _first_fields(head)
        form["token"] = form["token"] or self._log_in(form["username"], form["password"])
        self.user = self.context.user_of_token(form["token"])
        with acting_as(Actor(self.user.id, self.user.username, self.address)):
            self.require(*self.roles)

    def read_form(self, body: Any, form: dict[str, Any], held: contextlib.ExitStack) -> None:
        """Add the fields of the form to `form`, but for the credentials. Raises BadInput."""
        sent = dict.fromkeys(self.fields, "") | dict(parameter_pairs(body.read().decode("latin-1")))
        if any("\0" in value for value in sent.values()):
            raise BadInput("The form cannot be read.")
        form |= {name: value for name, value in sent.items() if name not in CREDENTIALS}

    def answer(self, form: dict[str, Any], held: contextlib.ExitStack) -> Any:
        """Do what the form asks for; return a page."""
        raise NotImplementedError

    def page(self, form: dict[str, Any], status: int = 200, **values: Any) -> bottle.HTTPResponse:
        """Return the page with what the form has."""
        form = {**dict.fromkeys(self.fields, ""), **form, "password": ""}
        return html_response(self.template, status, form=form, **{"message": "", "notice": "", **values})

    @property
    def finds_by_name(self) -> bool:
        """Whether the user may find patients by parts of their names."""
        return self.user.role != "technician"

    def find_patients(self, words: str) -> list[User] | None:
        """Return the patients of that username or identifier; for staff, also those whose names contain the words. None
        if nothing is asked for."""
        words = words.strip()
        if not words:
            return None
        record_event("read", what="people")
        numbered = PatientIdentifier.select(PatientIdentifier.patient).where(PatientIdentifier.value == words)
        wanted: Expression = (User.folded_name == fold_name(words)) | User.id.in_(numbered)
        if self.finds_by_name:
            wanted |= User.folded_name.startswith(fold_name(words)) | User.full_name.contains(words)
        query = User.select().where(wanted, User.role == "patient", User.active).order_by(User.folded_name)
        return list(query.limit(FOUND_MAX))

    def _log_in(self, username: str, password: str) -> str:
        login = UploadLogin(self.context)
        login.address = self.address
        with acting_as(Actor(None, None, self.address)):
            body = json.loads(login.log_in(username, password).body)
        if "token" not in body:
            raise NotLoggedIn(body["details"])
        return str(body["token"])


def _first_fields(head: bytes) -> dict[str, str]:
    """Return who sends a form, as its beginning says it. Raises BadInput."""
    described = email.message.Message()
    described["Content-Type"] = header("Content-Type").encode("ascii", "replace").decode()
    pairs: list[tuple[str, str]] = []
    if boundary := described.get_boundary():
        for part in (b"\r\n" + head).split(b"\r\n--" + boundary.encode()):
            start, _, value = part.partition(b"\r\n\r\n")
            if named := NAMED.search(start):
                pairs.append((named[1].decode(), value.decode(errors="replace")))
    else:
        pairs = parse_qsl(head.decode("latin-1"))
    found = {name: value for name, value in pairs if name in CREDENTIALS}
    if any(len(value) > FIELD_MAX for value in found.values()):
        raise BadInput("A field of the form is too long.")
    return dict.fromkeys(CREDENTIALS, "") | found


def typed_value(text: str) -> Any:
    """Return what was typed in: a number with all its digits if it looks like one, else text."""
    return DECODER.decode(text.strip()) if NUMBER.fullmatch(text.strip()) else text.strip()

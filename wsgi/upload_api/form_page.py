"""The upload API's pages: the one that uploads a file, the one on which a check-up is typed in, and the base of those
with forms, which work without JavaScript.

No cookie is set: the token travels in a hidden field from each page to the next request."""

import contextlib
import hashlib
import io
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

import bottle
import msgspec
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from peewee import Expression

from myhealth import __version__
from myhealth.audit.events import Actor, acting_as, record_event
from myhealth.clinical.catalog import ANALYTES, BY_CODE
from myhealth.clinical.guide import DIASTOLIC, SYSTOLIC
from myhealth.clinical.in_words import unit_text
from myhealth.common.errors import BadInput, MyHealthError, NotLoggedIn
from myhealth.common.request_context import client_address
from myhealth.common.text import fold_name
from myhealth.intake.formats.tables.cells import DAY_FIRST, DECIMAL, EITHER_POINT, read_moment
from myhealth.intake.formats.tables.layout import ABOUT_OTHER, GUESSED, Layout
from myhealth.intake.formats.tables.reader import FORM, ZONE
from myhealth.intake.formats.tables.rows import ENCODING
from myhealth.intake.idempotency import Answer, once
from myhealth.intake.parsed_record import DECODER, UnrepresentableNumber
from myhealth.intake.patients import RETRY
from myhealth.intake.results import RecordResult
from myhealth.profiles.models import PatientIdentifier, User
from wsgi.common.requests import SMALL_BODY_BYTES, WrongMediaType, header, parameter_pairs, spool_body
from wsgi.common.views import StaticView, View, html_response
from wsgi.upload_api.accounts import UploadLogin
from wsgi.upload_api.context import UploadContext, record_shown
from wsgi.upload_api.schemas import SENDERS
from wsgi.upload_api.uploads import TakesRecords

# What the pages say in place of the options of commands and the parameters of addresses, which their readers lack.
WHICH_DAY, WHICH_ZONE = f"say which: {DAY_FIRST}", f"name that of all rows: {ZONE}"
BY_ADMINISTRATOR = {
    "if it is: myhealth users": "if it is, an administrator runs: myhealth users",
    "if there is: myhealth users": "if there is, an administrator runs: myhealth users",
    "link it with `myhealth": "an administrator links it with `myhealth",
}
MAP = "say who is meant with a patient map"
# On the page of tables: its fields.
TABLE = BY_ADMINISTRATOR | {
    WHICH_DAY: "say which: choose it under Order of dates",
    FORM: "choose another Order of dates",
    WHICH_ZONE: "fill in Time zone",
    DECIMAL: "choose another Decimal separator",
    EITHER_POINT: "if decimals, choose the Decimal separator point; if thousands, a Layout that names both",
    ENCODING: "choose another Encoding",
    ABOUT_OTHER: "make a long table, or, if each column is a test of its own, choose the Layout wide",
    " (--patient), or a layout that says which column it is (columns.patient)": "",
    "name a layout that fits: --layout wide, long or a file; examples/table-layout.toml explains it": "choose a Layout",
    RETRY: "store the table, then find the patient under Rejected records",
    MAP: "store the table, then find the patient under Rejected records",
}
# On the page of files: where else to choose it.
FILES = BY_ADMINISTRATOR | {
    WHICH_DAY: "choose the Order of dates under Upload a table",
    FORM: "choose another Order of dates under Upload a table",
    WHICH_ZONE: "fill in the Time zone under Upload a table",
    DECIMAL: "choose another Decimal separator under Upload a table",
    EITHER_POINT: "if decimals, choose the Decimal separator point under Upload a table; if thousands, a Layout there",
    ENCODING: "choose another Encoding under Upload a table",
    ABOUT_OTHER: "make a long table, or, if each column is a test, choose the Layout wide under Upload a table",
    RETRY: "find the patient under Rejected records",
    MAP: "find the patient under Rejected records",
    "`myhealth rejections` shows them": "Rejected records has them",
}
# On the page of rejected records: what to type there.
REFUSED = BY_ADMINISTRATOR | {
    WHICH_DAY: "write it as YYYY-MM-DD",
    FORM: "write it as YYYY-MM-DD, or as the table's layout has it",
    f"or {WHICH_ZONE}": "as in 2026-02-01T09:14:03+05:30",
    DECIMAL: "write it without thousands, and with the table's decimal separator",
    EITHER_POINT: "write it with the decimals that it has, without thousands",
    ENCODING: "send the table again under Upload a table, with its Encoding",
    RETRY: "find the patient here",
    MAP: "find the patient here",
}


def in_page_words(message: str, words: Mapping[str, str]) -> str:
    """Return a message with the words of a page."""
    for option, said in words.items():
        message = message.replace(option, said)
    return message


def errors_in_page_words(errors: Sequence[dict[str, Any]], words: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{**error, "message": in_page_words(error["message"], words)} for error in errors]


class UploadPage(View):
    context: UploadContext

    def get(self) -> Any:
        max_body_bytes = self.context.settings.upload.max_body_bytes
        words = json.dumps([*FILES.items()])
        return html_response("upload.html", version=__version__, max_body_bytes=max_body_bytes, words=words)


class UploadFiles(StaticView):
    files = frozenset({"upload.js", "upload.css", "icon.svg"})


CREDENTIALS = ("username", "password", "token")  # they come first in a form, so that only known users' forms are read
FIELD_MAX = 10_000  # characters
FOUND_MAX = 10
FORM_MAX_BYTES = 3 * SMALL_BODY_BYTES  # a record, each of its bytes escaped
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")


class FormPage(TakesRecords):
    """GET shows the form with the login; POST reads the form, and logs the user in if it has no token yet.

    `template`: of the page; `fields`: those of the form; `further`: the names of its other fields that the page of the
    login keeps; `roles`: who may send it; `max_bytes`: of a form.
    """

    template: str
    fields: tuple[str, ...]
    further: re.Pattern[str]
    roles: tuple[str, ...] = SENDERS
    unknown_user = "There is no user named {}."

    @property
    def max_bytes(self) -> int:
        return FORM_MAX_BYTES

    def perform(self, verb: str, **parts: Any) -> Any:
        self.context.open()
        self.address = client_address()
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
        """Log the user in by the token or password at the beginning of a form; without a valid one, read no further.
        What else is there is on the page of the login too, for a session may end meanwhile."""
        found = _first_fields(head)
        form |= {name: text for name, text in found.items() if name in self.fields or self.further.fullmatch(name)}
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
        form = {**dict.fromkeys(self.fields, ""), **form, "password": ""}
        typed = [name for name, text in form.items() if text and name not in (*CREDENTIALS, "action")]
        return html_response(self.template, status, form=form, typed=typed, **{"message": "", "notice": "", **values})

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
        found = list(query.limit(FOUND_MAX))
        if self.finds_by_name:  # else no more than the name is shown
            record_shown(found)
        return found

    def _log_in(self, username: str, password: str) -> str:
        login = UploadLogin(self.context)
        login.address = self.address
        with acting_as(Actor(None, None, self.address)):
            body = json.loads(login.log_in(username, password).body)
        if "token" not in body:
            raise NotLoggedIn(body["details"])
        return str(body["token"])


def boundary() -> str:
    """Return the separator of the parts of the request's form (RFC 7578), "" if it has none."""
    kind, options = parse_options_header(header("Content-Type"))
    return options.get("boundary", "") if kind == "multipart/form-data" else ""


def _first_fields(head: bytes) -> dict[str, str]:
    """Return the whole fields at the beginning of a form; the first ones say who sends it. Raises BadInput."""
    if between := boundary():
        parts: dict[str, bytes] = {}
        name, value = "", b""
        with contextlib.suppress(MultipartError):  # the form is read again as a whole
            for event in PushMultipartParser(between).parse(head):
                if isinstance(event, MultipartSegment):
                    name, value = event.name, b""
                elif event:
                    value += event
                else:
                    parts[name] = value
        pairs = [(name, value.decode(errors="replace")) for name, value in parts.items()]
    else:
        is_whole = header("Content-Length") in ("", str(len(head)))
        pairs = parse_qsl((head if is_whole else head.rpartition(b"&")[0]).decode("latin-1"))
    found = dict.fromkeys(CREDENTIALS, "") | dict(pairs)
    if any(len(found[name]) > FIELD_MAX for name in CREDENTIALS):
        raise BadInput("A field of the form is too long.")
    return found


def typed_value(text: str) -> Any:
    """Return what was typed in: a number with all its digits if it looks like one, else text."""
    return DECODER.decode(text.strip()) if NUMBER.fullmatch(text.strip()) else text.strip()


def exact_json(record: Any) -> bytes:
    """Return a record as JSON, its numbers as they were written. Raises TypeError, ValueError."""
    return msgspec.json.Encoder(decimal_format="number", enc_hook=_exact).encode(record)


def _exact(value: Any) -> Any:
    if isinstance(value, UnrepresentableNumber):
        return msgspec.Raw(value.text.encode())
    raise TypeError(type(value).__name__)


FIELDS = (*CREDENTIALS, "action", "key", "search", "patient", "taken_at", "kind", "machine", "remark", "pressure")
YEAR_FIRST = Layout(date_format="ymd")
PRESSURE = re.compile(r"\s*([0-9]{2,3})\s*/\s*([0-9]{2,3})\s*")
# (LOINC code, name, (unit, as people write it) of each) of every test that has a field of its own.
TESTS = [
    (each.codes[0], each.name, [(unit, unit_text(unit)) for unit in each.ranges])
    for each in ANALYTES
    if each.codes[0] not in (SYSTOLIC, DIASTOLIC)
]


class TypeInPage(FormPage):
    """POST finds the patient or, with `action` store, stores the record once. A value that seems to be mistyped is
    stored only with `action` store_as_typed."""

    template, fields, further = "type_in.html", FIELDS, re.compile("(?:value|unit):[0-9-]{1,9}")
    doubts: Sequence[str] = ()  # of the moment

    def answer(self, form: dict[str, Any], held: contextlib.ExitStack) -> Any:
        if form["action"] not in ("store", "store_as_typed"):
            return self.page(form, people=self.find_patients(form["search"]))
        patient = self.person(form["patient"], *SENDERS).username if form["patient"] else ""
        people = None if patient else self.find_patients(form["search"])
        faults = [] if patient else ["Find the patient, and choose whose check-up it is."]
        record = self.record(form, patient, faults)
        (checked,) = self._take(record, patient or None, dry_run=True)
        faults += in_words([each for each in checked.errors if patient or each["field"] != "checkup_for"], record)
        if faults:  # nothing is kept: whoever typed it in corrects it here
            return self.page(form, 422, errors=faults + in_words(checked.warnings, record), people=people)
        doubts = [*self.doubts, *in_words(checked.warnings, record)]
        if doubts and form["action"] == "store":
            return self.page(form, 422, doubts=doubts)

        def work() -> Answer:
            (stored,) = self._take(record, patient, dry_run=False)
            told = in_words([*stored.errors, *stored.warnings], record)
            item = {"id": stored.id, "status": stored.status, "rejection_id": stored.rejection_id, "warnings": told}
            return Answer(201, json.dumps({"items": [item]}))  # as an upload's, for an erasure to find

        digest = hashlib.sha256(exact_json([patient, record])).digest()
        [item] = json.loads(once(self.user.id, form["key"], digest, work).body)["items"]
        number, told = item["id"], item.get("warnings", ())
        notice = f"Stored as check-up {number} of {patient}." if number else "It was rejected, and is kept."
        return self.page({name: form[name] for name in CREDENTIALS}, notice=notice, warnings=told)

    def page(self, form: dict[str, Any], status: int = 200, **values: Any) -> bottle.HTTPResponse:
        form = {**form, "key": form.get("key") or secrets.token_urlsafe(18)}
        zone = self.context.settings.time_zone
        is_staff = hasattr(self, "user") and self.finds_by_name
        found = {"people": None, "errors": (), "warnings": (), "doubts": (), **values}
        return super().page(form, status, tests=TESTS, zone=zone, is_staff=is_staff, **found)

    def record(self, form: dict[str, Any], patient: str, faults: list[str]) -> dict[str, Any]:
        """Return the API's record of what was typed in, without what is wrong; add to `faults` what that is."""
        so_far = len(faults)
        results = list(results_of(form, faults))
        if not results and not form["remark"].strip() and len(faults) == so_far:
            faults.append("Nothing was typed in: fill in a value or the remark.")
        record: dict[str, Any] = {"checkup_for": patient, "checkup_type": form["kind"].strip() or "GENERAL"}
        record |= {"checkup_report": form["remark"].strip(), "disease": "", "taken_by": self.user.username}
        record["results"] = results
        if form["machine"].strip():
            record["machine"] = form["machine"].strip()
        if moment := form["taken_at"].strip():
            try:
                found = read_moment(moment, YEAR_FIRST, ZoneInfo(self.context.settings.time_zone))
            except ValueError:
                faults.append("The time must be written like 2026-11-28T09:30.")
            else:
                record["taken_at"] = found.text
                record |= {"taken_precision": found.known} if found.known else {}
                self.doubts = [found.doubt] if found.doubt else []
        return record

    def _take(self, record: dict[str, Any], patient: str | None, *, dry_run: bool) -> list[RecordResult]:
        outcomes: list[RecordResult] = []
        dump = self.opened(io.BytesIO(exact_json(record)), "", patient, GUESSED, is_table=False)
        intake = self.intake(dump, "POST /type-in", patient, dry_run=dry_run)
        self.store_records(dump, intake, lambda _, results: outcomes.extend(results))
        return outcomes


def results_of(form: dict[str, Any], faults: list[str]) -> Any:
    """Yield the results that have a value; add to `faults` what is wrong with others."""
    if form["pressure"].strip():
        both = PRESSURE.fullmatch(form["pressure"])
        if both is None:
            faults.append("The blood pressure must be written like 128/82.")
        elif int(both[1]) <= int(both[2]):
            faults.append("The blood pressure must have the upper (systolic) value first, like 128/82.")
        else:
            for code, digits in zip((SYSTOLIC, DIASTOLIC), both.groups(), strict=True):
                yield {"code": code, "name": BY_CODE[code].name, "value": int(digits), "unit": "mm[Hg]"}
    for code, name, units in TESTS:
        text = form.get(f"value:{code}", "").strip()
        unit = form.get(f"unit:{code}", units[0][0])
        if text and unit not in dict(units):
            faults.append(f"{name} has no unit {unit[:60]!a}.")
        elif re.fullmatch(r"[<>=\s]*[0-9]+,[0-9]+", text):
            faults.append(f"{name}: decimals follow a full stop, like 5.6.")
        elif text:
            yield {"code": code, "name": name, "value": typed_value(text), "unit": unit}


def in_words(errors: Any, record: dict[str, Any]) -> list[str]:
    """Return errors and warnings with the names of the tests instead of the places in the record."""
    found = []
    for error in errors:
        field = error.get("field") or ""
        place = re.match(r"results\[([0-9]+)\]", field)
        name = record["results"][int(place[1])]["name"] if place else field
        found.append(f"{name}: {error['message']}" if name else str(error["message"]))
    return found

"""The page on which one check-up is typed in. It is stored as the API's record, by the same intake."""

import contextlib
import hashlib
import io
import json
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import bottle

from myhealth.clinical.catalog import ANALYTES, BY_CODE
from myhealth.clinical.guide import DIASTOLIC, SYSTOLIC
from myhealth.clinical.in_words import unit_text
from myhealth.common.errors import BadInput
from myhealth.intake.formats.tables.layout import GUESSED
from myhealth.intake.idempotency import Answer, once
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record import encode_json
from myhealth.intake.results import RecordResult
from wsgi.upload_api.checkups import SENDERS
from wsgi.upload_api.form_page import CREDENTIALS, FormPage, typed_value

FIELDS = (*CREDENTIALS, "action", "key", "search", "patient", "taken_at", "kind", "machine", "remark", "pressure")
PRESSURE = re.compile(r"\s*([0-9]{2,3})\s*/\s*([0-9]{2,3})\s*")
# (LOINC code, name, (unit, as people write it) of each) of every test that has a field of its own.
TESTS = [
    (each.codes[0], each.name, [(unit, unit_text(unit)) for unit in each.ranges])
    for each in ANALYTES
    if each.codes[0] not in (SYSTOLIC, DIASTOLIC)
]


class _Outcomes(list[RecordResult]):
    def add(self, parsed: Sequence[ParsedRecord], results: Sequence[RecordResult]) -> None:
        self.extend(results)


class TypeInPage(FormPage):
    """POST finds the patient or, with `action` store, stores what was typed in once. What seems to be mistyped is
    stored with `action` store_as_typed only."""

    template, fields = "type_in.html", FIELDS

    def answer(self, form: dict[str, Any], held: contextlib.ExitStack) -> Any:
        missing = form["action"] in ("store", "store_as_typed")
        if not missing or not form["patient"]:
            message = "Find the patient, and choose whose check-up it is." if missing else ""
            return self.page(form, 422 if missing else 200, message=message, people=self.find_patients(form["search"]))
        patient = self.person(form["patient"], *SENDERS).username
        record = self.record(form, patient)
        (checked,) = self._take(record, patient, dry_run=True)
        if checked.errors:  # nothing is kept: whoever typed it in corrects it here
            return self.page(form, 422, errors=in_words(checked.errors, record))
        if checked.warnings and form["action"] == "store":
            return self.page(form, 422, doubts=in_words(checked.warnings, record))

        def work() -> Answer:
            (stored,) = self._take(record, patient, dry_run=False)
            return Answer(201, json.dumps([stored.id, in_words([*stored.errors, *stored.warnings], record)]))

        digest = hashlib.sha256(encode_json([patient, record])).digest()
        number, told = json.loads(once(self.user.id, form["key"], digest, work).body)
        notice = f"Stored as check-up {number} of {patient}." if number else "It was rejected, and is kept."
        return self.page({name: form[name] for name in CREDENTIALS}, notice=notice, warnings=told)

    def page(self, form: dict[str, Any], status: int = 200, **values: Any) -> bottle.HTTPResponse:
        form = {**form, "key": form.get("key") or secrets.token_urlsafe(18)}
        zone = self.context.settings.time_zone
        is_staff = hasattr(self, "user") and self.finds_by_name
        found = {"people": None, "errors": (), "warnings": (), "doubts": (), **values}
        return super().page(form, status, tests=TESTS, zone=zone, is_staff=is_staff, **found)

    def record(self, form: dict[str, Any], patient: str) -> dict[str, Any]:
        """Return the API's record of what was typed in. Raises BadInput."""
        results = list(results_of(form))
        if not results and not form["remark"].strip():
            raise BadInput("Nothing was typed in: fill in a value or the remark.")
        record: dict[str, Any] = {"checkup_for": patient, "checkup_type": form["kind"].strip() or "GENERAL"}
        record |= {"checkup_report": form["remark"].strip(), "disease": "", "taken_by": self.user.username}
        record["results"] = results
        if form["machine"].strip():
            record["machine"] = form["machine"].strip()
        if form["taken_at"]:
            try:
                local = datetime.fromisoformat(form["taken_at"]).replace(
                    tzinfo=ZoneInfo(self.context.settings.time_zone)
                )
            except ValueError as error:
                raise BadInput("The time must be written like 2026-11-28T09:30.") from error
            record["taken_at"] = local.isoformat()
        return record

    def _take(self, record: dict[str, Any], patient: str, *, dry_run: bool) -> _Outcomes:
        outcomes = _Outcomes()
        dump = self.opened(io.BytesIO(encode_json(record)), "", patient, GUESSED, is_table=False)
        self._store(dump, "POST /type-in", patient, False, False, outcomes, dry_run=dry_run)
        return outcomes


def results_of(form: dict[str, Any]) -> Any:
    """Yield the results that have a value. Raises BadInput."""
    if form["pressure"].strip():
        both = PRESSURE.fullmatch(form["pressure"])
        if both is None:
            raise BadInput("The blood pressure must be written like 128/82.")
        if int(both[1]) <= int(both[2]):
            raise BadInput("The blood pressure must have the upper (systolic) value first, like 128/82.")
        for code, digits in zip((SYSTOLIC, DIASTOLIC), both.groups(), strict=True):
            yield {"code": code, "name": BY_CODE[code].name, "value": int(digits), "unit": "mm[Hg]"}
    for code, name, units in TESTS:
        text = form.get(f"value:{code}", "").strip()
        unit = form.get(f"unit:{code}", units[0][0])
        if text and unit not in dict(units):
            raise BadInput(f"{name} has no unit {unit[:60]!a}.")
        if re.fullmatch(r"[0-9]+,[0-9]+", text):
            raise BadInput(f"{name}: decimals follow a full stop, like 5.6.")
        if text:
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

"""The entries of a FHIR transaction or batch: what each asks for, and the response to it.

Source: HL7 FHIR R4 (4.0.1), "Bundle", "RESTful API" (batch/transaction, conditional create).
"""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from myhealth.common.decoding import prepare
from wsgi.common.fhir_outcome import operation_outcome

RESULTS = ("Observation", "DiagnosticReport")
WITHDRAWAL = re.compile(r"(?:https?://\S+/)?(?:Observation|DiagnosticReport)/[^/\s?#|]+")
CONDITIONS = ("ifMatch", "ifNoneMatch", "ifModifiedSince")
STATUSES = {200: "200 OK", 201: "201 Created", 204: "204 No Content", 422: "422 Unprocessable Entity"}
REFUSED = "It was not stored."


class Resource(msgspec.Struct, rename="camel"):
    resource_type: str


class RequestEntry(msgspec.Struct):
    resource: Resource | None = None
    request: dict[str, Any] = {}


prepare(RequestEntry)


class Entries:
    """The entries of a request. `texts`: as they were sent; `problems`: of those that are refused, by their places;
    `conditions`: the numbers that `ifNoneExist` names, as records have them (system, |, value)."""

    def __init__(self, texts: Sequence[msgspec.Raw]) -> None:
        self.texts = texts
        self.problems: dict[int, list[dict[str, Any]]] = {}
        self.conditions: dict[int, str] = {}
        self.responses: list[dict[str, Any]] = [{} for _ in texts]
        self._entries: list[RequestEntry] = []
        for number, text in enumerate(texts):
            try:
                self._entries.append(msgspec.json.decode(text, type=RequestEntry))
                self._check(number)
            except (msgspec.MsgspecError, RecursionError) as error:
                self._entries.append(RequestEntry())
                self.refuse(number, "", f"cannot be read: {error}", "bad_input")

    def refuse(self, number: int, place: str, message: str, code: str = "not_supported") -> None:
        """Refuse an entry. `place`: what is wrong in it, beginning with a point."""
        problem = {"index": number, "field": f"Bundle.entry[{number}]{place}", "message": message, "code": code}
        self.problems.setdefault(number, []).append(problem)

    def kind(self, number: int) -> str:
        """Return the type of the resource, "" without one."""
        resource = self._entries[number].resource
        return resource.resource_type if resource else ""

    def deletes(self, number: int) -> bool:
        return self._entries[number].request.get("method") == "DELETE"

    def _check(self, number: int) -> None:
        """Refuse an entry that asks for what is not done here."""
        request, kind = self._entries[number].request, self.kind(number)
        method, url = str(request.get("method", "")), str(request.get("url", ""))
        if not request:
            self.refuse(number, ".request", "is missing.", "required")
        elif method == "DELETE":
            if not WITHDRAWAL.fullmatch(url):
                self.refuse(number, ".request.url", "only Observation/ID and DiagnosticReport/ID can be withdrawn.")
        elif method != "POST":
            self.refuse(number, ".request.method", f"{method[:20]} is not supported; POST and DELETE are.")
        elif not kind:
            self.refuse(number, ".resource", "is missing.", "required")
        elif url.strip("/") != kind:
            self.refuse(number, ".request.url", "must be the type of the resource.", "bad_input")
        for name in CONDITIONS:
            if name in request:
                self.refuse(number, f".request.{name}", "is not supported.")
        if asked := str(request.get("ifNoneExist", "")):
            pairs = parse_qsl(asked.rpartition("?")[2], keep_blank_values=True)
            if [name for name, _ in pairs] == ["identifier"]:
                self.conditions[number] = pairs[0][1].strip("|")
            else:
                self.refuse(number, ".request.ifNoneExist", "only identifier=system|value is supported.")

    def bundle(self) -> bytes:
        """Return a Bundle of the entries that are still to be stored, each at its place."""
        left = (b"{}" if i in self.problems or self.responses[i] else bytes(text) for i, text in enumerate(self.texts))
        return b'{"resourceType":"Bundle","type":"batch","entry":[' + b",".join(left) + b"]}"

    def answer(
        self, number: int, status: int, location: str, warnings: Sequence[dict[str, Any]], done: str = "It was stored."
    ) -> None:
        response: dict[str, Any] = {"status": STATUSES[status]}
        if location:
            response["location"] = location
        if warnings:
            response["outcome"] = operation_outcome(200, done, "warning", warnings, "warning")
        self.responses[number] = response

    def finish(self) -> list[dict[str, Any]]:
        """Return the entries of the answer."""
        for number, problems in self.problems.items():
            outcome = operation_outcome(422, REFUSED, "refused", problems)
            self.responses[number] = {"status": STATUSES[422], "outcome": outcome}
        return [{"response": each} for each in self.responses]

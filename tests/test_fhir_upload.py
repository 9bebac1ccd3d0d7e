"""The FHIR API for writing: all or nothing, entry by entry, and what is not taken is refused by name."""

import json
from typing import Any

import pytest
from support.clients import Caller
from support.fhir import PATIENT, bundle, observation, quantity, report
from support.work import grows_with_the_square

from myhealth.profiles.identifiers import add_identifier
from myhealth.profiles.services import get_user

FHIR = "application/fhir+json"


def model_of(kind: str) -> Any:
    return getattr(pytest.importorskip(f"fhir.resources.R4B.{kind.lower()}"), kind)


@pytest.fixture
def send(upload: Caller, log_in) -> Any:
    """Return a function that posts a resource as somebody, and returns the answer's resource."""

    def post(path: str, resource: Any, status: int = 200, caller: str = "tara", **headers: str) -> Any:
        body = resource if isinstance(resource, bytes) else json.dumps(resource).encode()
        sent = {"Content-Type": FHIR, **{name.replace("_", "-"): value for name, value in headers.items()}}
        answer = upload("POST", f"/fhir/{path}", body, token=log_in(caller) if caller else "", headers=sent)
        assert (answer.status_code, answer.mimetype) == (status, FHIR), answer.data[:600]
        found = json.loads(answer.data)
        model_of(found["resourceType"]).model_validate_json(answer.data)
        return found | ({"Location": answer.headers["Location"]} if "Location" in answer.headers else {})

    add_identifier("bholanath", "http://example.org/card", "CARD-7")
    return post


def posted(*resources: Any, kind: str = "transaction", **requests: Any) -> Any:
    """Return a transaction that posts these resources, each under a URN. `requests`: entry0=… replaces a request."""
    made = bundle(
        *resources, kind=kind, urls=tuple(f"urn:uuid:{each.get('id', i)}" for i, each in enumerate(resources))
    )
    for number, entry in enumerate(made["entry"]):
        entry["request"] = {"method": "POST", "url": entry["resource"]["resourceType"]}
        entry["request"] |= requests.get(f"entry{number}", {})
    return made


def responses(answer: Any) -> list[tuple[str, str]]:
    return [(each["response"]["status"], each["response"].get("location", "")) for each in answer["entry"]]


def issues(outcome: Any) -> list[tuple[str, str]]:
    return [(each["code"], each.get("expression", [""])[0]) for each in outcome["issue"]]


def glucose(name: str, **changes: Any) -> Any:
    return observation(name, **{"subject": {"reference": "urn:uuid:p1"}, **changes})


def test_a_transaction_is_stored_and_answered_entry_by_entry(send, db) -> None:
    device = {"resourceType": "Device", "id": "d1", "identifier": [{"value": "HC-9"}]}
    sent = posted(
        PATIENT, device,
        report("urn:uuid:a", "urn:uuid:b", subject={"reference": "urn:uuid:p1"}),
        glucose("a", device={"reference": "urn:uuid:d1"}), glucose("b", code={"text": "b"}), glucose("c"),
    )  # fmt: skip
    own = f"Patient/{get_user('bholanath').subject}"
    answer = send("", sent)
    assert answer["type"] == "transaction-response"
    assert responses(answer) == [
        ("200 OK", own), ("200 OK", ""), ("201 Created", "DiagnosticReport/1"), ("201 Created", "Observation/1-1"),
        ("201 Created", "Observation/1-2"), ("201 Created", "Observation/2-1"),
    ]  # fmt: skip
    assert [status for status, _ in responses(send("", sent))] == ["200 OK"] * 6, "sent again"
    assert db("select count(*), max(revision) from checkups") == [(2, 1)]


def test_both_values_of_a_blood_pressure_are_one_observation(send) -> None:
    pair = [glucose(name, code={"coding": [{"system": "http://loinc.org", "code": code}]}, valueQuantity=quantity(value, "mmHg", "mm[Hg]"))
            for name, code, value in (("s", "8480-6", 120), ("d", "8462-4", 80))]  # fmt: skip
    at, subject = pair[0]["effectiveDateTime"], {"reference": "urn:uuid:p1"}
    sent = posted(PATIENT, report("urn:uuid:s", "urn:uuid:d", subject=subject, effectiveDateTime=at), *pair)
    assert [place for _, place in responses(send("", sent))[2:]] == ["Observation/1-p0"] * 2


REFUSED: dict[str, Any] = {
    ".request": {"request": ...}, ".request.method": {"method": "PUT"}, ".request.url": {"url": "Patient"}, ".request.ifMatch": {"ifMatch": 'W/"1"'},
    ".request.ifNoneExist": {"ifNoneExist": "code=1"},
}  # fmt: skip


def test_what_is_not_taken_is_refused_by_name(send, db) -> None:
    for place, change in REFUSED.items():
        sent = posted(PATIENT, glucose("a"), glucose("b"), entry1=change)
        if change == {"request": ...}:
            del sent["entry"][1]["request"]
        assert ("Bundle.entry[1]" + place) in [where for _, where in issues(send("", sent, 422))], place
        batch = send("", sent | {"type": "batch"})
        assert [status[:3] for status, _ in responses(batch)] == ["200", "422", "200" if place != ".request" else "201"]
    assert db("select count(*) from checkups") == [(1,)], "what was right in the batches"
    condition = {"resourceType": "Condition", "subject": {"reference": "urn:uuid:p1"}}
    assert issues(send("", posted(PATIENT, glucose("x"), condition), 422)) == [
        ("not-supported", "Bundle.entry[2].resource")
    ]
    assert issues(send("", posted(PATIENT), 422)) == [("not-supported", "Bundle.entry[0].resource")], (
        "no patient is created"
    )
    assert db("select count(*) from checkups") == [(1,)]


def test_a_refused_result_refuses_a_whole_transaction_but_not_a_batch(send, db) -> None:
    sent = posted(PATIENT, glucose("a"), glucose("b", effectiveDateTime="yesterday"))
    outcome = send("", sent, 422)
    assert ("processing", "Bundle.entry[2].resource.effectiveDateTime") in issues(outcome)
    assert db("select count(*) from checkups") == [(0,)]
    assert db("select count(*) from rejections") == [(1,)], "it is kept"
    assert [status[:3] for status, _ in responses(send("", sent | {"type": "batch"}))] == ["200", "201", "422"]
    unknown = posted(glucose("z", subject={"identifier": {"value": "nobody"}}))
    (issue,) = send("", unknown, 422)["issue"]
    assert issue["details"]["coding"][0]["code"] == "unknown_user"


def test_a_refused_transaction_teaches_nothing_of_its_patients(send, db) -> None:
    learnt = "select value from patient_identifiers where system like 'fhir-reference%'"
    for when, status, known in (("yesterday", 422, []), ("2026-11-20", 200, [("http://h/Patient/123",)])):
        sent = posted(PATIENT, glucose("a", subject={"reference": "http://h/Patient/123"}, effectiveDateTime=when))
        sent["entry"][0]["fullUrl"] = "http://h/Patient/123"
        send("", sent, status)
        assert db(learnt) == known


def test_a_conditional_create_stores_nothing_twice(send, db) -> None:
    known = {"identifier": [{"system": "http://lab", "value": "7"}]}
    for value, status in ((5, "201"), (6, "200")):
        sent = posted(
            PATIENT,
            glucose("a", **known, valueQuantity=quantity(value, "mmol/l")),
            entry1={"ifNoneExist": "identifier=http://lab|7"},
        )
        assert responses(send("", sent))[1] == ({"201": "201 Created", "200": "200 OK"}[status], "Observation/1-1")
    assert db("select results->0->>'value' from checkups") == [("5",)]
    other = posted(PATIENT, glucose("a", **known), entry1={"ifNoneExist": "identifier=http://lab|8"})
    assert issues(send("", other, 422)) == [("not-supported", "Bundle.entry[1].request.ifNoneExist")]


def test_a_condition_that_another_patients_result_meets_hides_nothing(send, db) -> None:
    known = {"identifier": [{"system": "http://lab", "value": "7"}]}
    send("", posted(PATIENT, glucose("a", **known)))
    savita = {"resourceType": "Patient", "id": "p1", "identifier": [{"value": "savita"}]}
    for machine, entry in (("", "422 Unprocessable Entity"), ("HC-9", "201 Created")):
        device = {"device": {"identifier": {"value": machine}}} if machine else {}
        sent = posted(
            savita, glucose("a", **known, **device), kind="batch", entry1={"ifNoneExist": "identifier=http://lab|7"}
        )
        answer = send("", sent)
        assert responses(answer)[1][0] == entry
        assert str(get_user("bholanath").subject) not in json.dumps(answer)
    assert db("select username from checkups join users on users.id = patient_id order by checkups.id") == [
        ("bholanath",), ("savita",)
    ]  # fmt: skip


def test_one_resource_by_itself(send, db) -> None:
    alone = observation(
        "o",
        subject={"identifier": {"system": "http://example.org/card", "value": "CARD-7"}},
        identifier=[{"system": "http://lab", "value": "9"}],
    )
    for status in (201, 200):
        assert send("Observation", alone, status)["Location"].endswith("/fhir/Observation/1-1")
    assert send("Observation", alone | {"status": "amended"}, 200, If_None_Exist="identifier=http://lab|9")[
        "Location"
    ].endswith("1-1")
    assert db("select revision from checkups") == [(1,)]
    empty = report(subject=alone["subject"], result=...)
    location = send("DiagnosticReport", empty, 201)["Location"]
    assert location == f"http://localhost/fhir/DiagnosticReport/{db('select max(id) from checkups')[0][0]}"
    (issue,) = send("Observation", alone | {"effectiveDateTime": "x"}, 422)["issue"]
    assert issue["expression"] == ["Observation.effectiveDateTime"]
    assert "DiagnosticReport" in send("DiagnosticReport", alone, 400)["issue"][0]["details"]["text"]


def test_what_a_source_withdraws_by_delete(send, upload, log_in, db) -> None:
    send("", posted(PATIENT, glucose("a")))
    gone = {"request": {"method": "DELETE", "url": "Observation/a"}, "fullUrl": "urn:uuid:a"}
    answer = send("", {"resourceType": "Bundle", "type": "transaction", "entry": [gone]})
    assert responses(answer) == [("204 No Content", "")]
    assert db("select status from checkups") == [("entered-in-error",)]
    unknown = {"request": {"method": "DELETE", "url": "Observation/unknown"}}
    answer = send("", {"resourceType": "Bundle", "type": "batch", "entry": [unknown]})
    (issue,) = answer["entry"][0]["response"]["outcome"]["issue"]
    assert (issue["details"]["text"], "nothing was withdrawn" in issue["diagnostics"]) == (
        "Nothing was withdrawn.",
        True,
    )
    sent = {"resourceType": "Bundle", "type": "transaction", "entry": [unknown]}
    bulk = upload("POST", "/checkups/", sent, token=log_in("tara"))
    assert (bulk.status_code, bulk.json["details"]) == (200, "What was to be withdrawn is not stored here.")


BAD: dict[str, tuple[bytes, int]] = {
    "no JSON": (b"{", 400), "no object": (b"[]", 400), "empty": (b"", 400), "another type": (b'{"resourceType":"Observation"}', 400),
    "a collection": (b'{"resourceType":"Bundle","type":"collection"}', 400), "entries of no kind": (b'{"resourceType":"Bundle","type":"batch","entry":3}', 400),
    "many entries": (b'{"resourceType":"Bundle","type":"batch","entry":[' + b",".join([b"{}"] * 5001) + b"]}", 413),
    "very many": (b'{"resourceType":"Bundle","type":"batch","entry":[' + b",".join([b"1"] * 500_000) + b"]}", 413),
    "deep": (b'{"resourceType":"Bundle","type":"batch","entry":[' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"]}", 400),
    "twice": (b'{"resourceType":"Bundle","type":"transaction","entry":[{"resource":{"resourceType":"Observation","status":"a","status":"b"},"request":{"method":"POST","url":"Observation"}}]}', 422),
}  # fmt: skip


def test_bad_requests_are_operation_outcomes(send, upload: Caller, log_in, db) -> None:
    for name, (body, status) in BAD.items():
        assert send("", body, status)["resourceType"] == "OperationOutcome", name
    for caller, status in (("", 401), ("bholanath", 403), ("root", 403)):
        send("", posted(PATIENT, glucose("a")), status, caller)
    for method, status in (("GET", 405), ("PUT", 405)):
        answer = upload(method, "/fhir/Observation", token=log_in("tara"))
        assert (answer.status_code, answer.mimetype) == (status, FHIR)
    send("", b"x=1", 415, Content_Type="application/x-www-form-urlencoded")
    send("", posted(PATIENT), 406, Accept="text/csv")
    assert (
        responses(
            send("", {"resourceType": "Bundle", "type": "batch", "entry": [{}, {"resource": {}}, {"request": 3}]})
        )
        == [("422 Unprocessable Entity", "")] * 3
    )
    assert "entry" not in send("", {"resourceType": "Bundle", "type": "batch"})
    assert db("select count(*) from checkups") == [(0,)]


def test_the_places_of_many_results_of_one_report_are_told_at_once(upload, send, log_in) -> None:
    token, answers = log_in("tara"), {}

    def send_results(count: int) -> None:
        names = [f"o{count}-{n}" for n in range(count)]
        urls = (f"urn:uuid:{name}" for name in names)
        whole = report(*urls, id=f"r{count}", conclusion=f"{count} values.", subject={"reference": "urn:uuid:p1"})
        sent = posted(PATIENT, whole, *map(glucose, names))
        answers[count] = upload("POST", "/fhir/", sent, token=token, headers={"Content-Type": FHIR}).json

    send_results(10)
    assert not grows_with_the_square(send_results, 100)
    places = [place for _, place in responses(answers[400])]
    number = places[-401].removeprefix("DiagnosticReport/")
    assert places[-400:] == [f"Observation/{number}-{place}" for place in range(1, 401)]

"""A later version of an Observation replaces it as a whole: a component that it has no more is not shown any more."""

import io
import json
from typing import Any

import pytest
from support.fhir import LOINC, bundle, concept, observation, quantity, report
from support.stored_results import stored

from myhealth.intake.file_import import FileImport, ImportOptions

CODES = {"systolic": "8480-6", "diastolic": "8462-4"}
BOTH = {"systolic": 128, "diastolic": 82}
BHOLANATH = {"identifier": {"value": "bholanath"}}


def pressure(version: int | None, values: dict[str, int], **changes: Any) -> dict[str, Any]:
    components = [
        {"code": concept(CODES[name], system=LOINC), "valueQuantity": quantity(value, "mmHg", "mm[Hg]")}
        for name, value in values.items()
    ]
    meta = {"meta": {"versionId": str(version)}} if version else {}
    made = {"code": concept("85354-9", system=LOINC), "subject": BHOLANATH, "component": components, **meta}
    return observation("bp", **{**made, "valueQuantity": ..., **changes})


def in_report(found: dict[str, Any]) -> dict[str, Any]:
    return bundle(
        report("Observation/bp", subject=BHOLANATH, **{name: found[name] for name in ("meta",) if name in found}), found
    )


def send(*resources: dict[str, Any]) -> list[list[str]]:
    """Store resources one after the other; return the codes of the warnings of each."""
    told = []
    for resource in resources:
        coming = FileImport(io.BytesIO(json.dumps(resource).encode()), "x.json", ImportOptions())
        results = [result for batch in coming for _, result in batch]
        assert [result.status for result in results if result.status == "rejected"] == []
        told.append([each["code"] for result in results for each in result.warnings if each.get("code")])
    return told


def shown(db: Any) -> dict[str, Any]:
    names = {code: name for name, code in CODES.items()}
    return {names.get(each["code"], each["name"]): each["value"] for each in stored(db)}


@pytest.mark.parametrize("left", [{"systolic": 130}, {"systolic": 128}])
@pytest.mark.parametrize(
    "forms", [(dict, dict), (in_report, in_report), (in_report, dict), (dict, in_report)],
    ids=["alone", "in a report", "in a report, then alone", "alone, then in a report"],
)  # fmt: skip
def test_a_component_that_a_later_version_lacks_is_not_shown(db, people, forms: Any, left: dict[str, int]) -> None:
    first, second = forms
    send(first(pressure(1, BOTH)), second(pressure(2, left)))
    assert shown(db) == left
    send(first(pressure(1, BOTH)), second(pressure(2, left)))
    assert shown(db) == left  # neither does the earlier version bring it back
    send(second(pressure(3, BOTH)))
    assert shown(db) == BOTH


def test_a_component_that_is_gone_is_told(db, people) -> None:
    assert send(pressure(1, BOTH), pressure(2, {"systolic": 128})) == [[], ["withdrawn"]]


def test_a_value_takes_the_place_of_components(db, people) -> None:
    send(pressure(1, BOTH), pressure(2, {}, component=..., valueString="128/82"))
    assert [each["value"] for each in stored(db)] == ["128/82"]


def test_a_component_stays_where_nothing_tells_that_it_is_gone(db, people) -> None:
    subset = {"versionId": "2", "tag": [{"code": "SUBSETTED"}]}
    for later in (
        pressure(None, {"systolic": 128}),
        pressure(1, {"systolic": 128}),
        pressure(2, {"systolic": 128}, meta=subset),
    ):
        send(pressure(1, BOTH), later)
        assert shown(db) == BOTH
    send(
        in_report(pressure(1, BOTH)),
        bundle(
            report("Observation/x", subject=BHOLANATH, meta={"versionId": "2"}), observation("x", subject=BHOLANATH)
        ),
    )
    assert BOTH.items() <= shown(db).items()  # a result that a report does not mention stays

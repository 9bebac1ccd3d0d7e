"""Which results make one trend."""

from typing import Any

import pytest

from myhealth.clinical.series import series_key, specimen_kind


def result(code: str | None = None, name: str = "Glucose", unit: str | None = "mg/dL", **more: Any) -> dict[str, Any]:
    return {"code": code, "name": name, "value": 5, "unit": unit, **more}


ONE = [
    (result("2339-0"), result("2345-7")),
    (result("8480-6", unit="mmHg"), result("76534-7", unit="mm[Hg]")),
    (result("8867-4", unit="bpm"), result("8889-8", unit="/min")),
    (result("6690-2", unit="10^9/L"), result("6690-2", unit="10*9/L")),
    (result("2345-7"), result("2345-7", specimen="Serum")),
    (result("2345-7"), result("2345-7", name="GLU", unit="mg/dl")),
    (result(specimen="Serum"), result(specimen={"codings": [{"code": "119361006", "display": "Plasma specimen"}]})),
    (result(), result(name=" Glucose ")),
]
TWO = [
    (result("2345-7"), result("2345-7", specimen="Urine")),
    (result(specimen="Serum"), result(specimen="Urine")),
    (result(), result(specimen="Serum")),
    (result("2345-7"), result("2345-7", unit="mmol/L")),
    (result("2345-7"), result("1558-6")),
    (result("2345-7"), result("2350-7")),
    (result(), result(name="Sodium")),
    (result(specimen="Blood"), result(specimen="Cord blood")),
]


@pytest.mark.parametrize(("one", "other"), ONE)
def test_one_test_in_one_unit_of_one_specimen_is_one_series(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert series_key(one) == series_key(other)


@pytest.mark.parametrize(("one", "other"), TWO)
def test_another_test_unit_or_specimen_is_another_series(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert series_key(one) != series_key(other)


@pytest.mark.parametrize(
    ("specimen", "kind"),
    [("SERUM", "blood"), ("BLDV", "blood"), ("Serum or Plasma", "blood"), ({"text": "Venous blood"}, "blood"), ("Urine", "urine"),
     ({"text": "24 h", "codings": [{"code": "UR"}]}, "urine"), (None, ""), ({}, "")],
)  # fmt: skip
def test_the_kind_of_a_specimen(specimen: Any, kind: str) -> None:
    assert specimen_kind(specimen) == kind

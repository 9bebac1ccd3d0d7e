"""Read quantities and their units: UCUM where that is certain, and as they were sent.

Source: HL7 FHIR R4 (4.0.1), "Data Types" (Quantity).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from myhealth.clinical.coding_systems import MDC, UCUM, uri_of
from myhealth.clinical.mdc import is_mdc_reference, mdc_unit
from myhealth.clinical.unit_sizes import contradiction_in_unit
from myhealth.clinical.units import is_ucum, series_unit, ucum_unit
from myhealth.common.text import printable
from myhealth.intake.formats.fhir.element import Element, compact


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit. `code`: UCUM where it is certain, else as sent; `text`: as sent, if it differs. `coding`: its code in
    another system, or one of UCUM's that we do not know. `doubt`: how its words contradict its code."""

    code: str = ""
    text: str = ""
    coding: dict[str, Any] = field(default_factory=dict, hash=False)
    doubt: str = ""

    def fields(self) -> dict[str, Any]:
        found: dict[str, Any] = {"unit": self.code} if self.code else {}
        if self.text:
            found["unit_text"] = self.text
        return found | {"unit_coding": {**self.coding}} if self.coding else found

    def is_same(self, other: Unit) -> bool:
        """Return whether this unit is empty, or another spelling of `other`."""
        return not self.code or series_unit(self.code) == series_unit(other.code)


NO_UNIT = Unit()


def read_unit(quantity: Element) -> Unit:
    return _unit(quantity.text("system"), quantity.text("code"), quantity.text("unit"))


@lru_cache(maxsize=1024)
def _unit(system: str, sent: str, text: str) -> Unit:
    coded = uri_of(system) == UCUM
    certain = (sent if is_ucum(sent) else ucum_unit(sent)) if coded else None
    if uri_of(system) == MDC or is_mdc_reference(sent):
        certain = mdc_unit(sent, text)
    code = certain or ucum_unit(text or sent) or text or sent
    kept = sent and (not coded or not is_ucum(sent))
    coding = compact(system=system, code=sent) if kept and (system or sent != text) else {}
    doubt = contradiction_in_unit(text, sent) if sent and text and (coded or not system) else ""
    return Unit(code, text if text != code else "", coding, doubt)


def quantity_digits(quantity: Element) -> str:
    """Return a Quantity's comparator and number as text, digit by digit; "" if it has no number."""
    value = quantity.number("value")
    if value is None:
        return ""
    return _comparator(quantity) + (repr(value) if isinstance(value, float) else str(value))


def span(low: Element, high: Element, units: tuple[Unit, ...] = ()) -> str:
    """Return a range in words, each end with its unit if `units` are given; either end may be open."""
    first, last = quantity_digits(low), quantity_digits(high)
    if first and last:
        codes = [unit.code for unit in units] or ["", ""]
        return f"{first} {codes[0]}".strip() + " - " + f"{last} {codes[1]}".strip()
    only, sign = (first, ">=") if first else (last, "<=")
    return only if only[:1] in ("", "<", ">") else sign + only


def quantity_of(quantity: Element) -> dict[str, Any] | None:
    """Return a Quantity within a value as a record has it; None if it is empty."""
    value, comparator = quantity.number("value"), _comparator(quantity)
    return compact(value=value, comparator=comparator, **read_unit(quantity).fields()) or None


def _comparator(quantity: Element) -> str:
    """Return the comparator; add a fault if R4 does not have it, for the number alone would mean something else."""
    comparator = quantity.text("comparator").strip()
    if comparator not in ("", "<", "<=", ">=", ">"):
        quantity.add_error("comparator", f"is not known: '{printable(comparator, 40)}'")
    return comparator

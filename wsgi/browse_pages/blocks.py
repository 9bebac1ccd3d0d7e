"""Measurements as people read them: a blood pressure is one, "128/82", and each measurement has its own trend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from myhealth.clinical.catalog import codes_of
from myhealth.clinical.guide import BLOOD_PRESSURE, DIASTOLIC, SYSTOLIC
from wsgi.browse_pages.result_view import SHORT, ResultView, shortened

UPPER, LOWER = frozenset(codes_of(SYSTOLIC)), frozenset(codes_of(DIASTOLIC))
PRESSURE_NAME, ABSENT = "Blood pressure", "–"


class Block(msgspec.Struct, frozen=True, gc=False):
    """One measurement: a result, or both values of a blood pressure. `parts`: (its own words, result): "" for a single
    one. `short`: the value with its unit, cut for a list; `usual`, `words`: of all parts; `position` and `shape`: of
    the part that is outside its range, if one is. `is_far`: a value is far outside its range. `code`, `raw_name`: how
    its trend is asked for."""

    name: str
    value: str
    unit: str
    short: str
    usual: str
    position: str
    shape: str
    words: str
    is_unusual: bool
    is_general: bool
    is_far: bool
    code: str
    raw_name: str
    parts: tuple[tuple[str, ResultView], ...]

    def trend(self, path: Callable[..., str]) -> str:
        """Return the address of the measurement's trend. `path`: `link` for the pages about the person."""
        return path("trends", code=self.code, name=None if self.code else self.raw_name)


def blocks_of(results: Sequence[ResultView]) -> list[Block]:
    """Return the results as blocks, in their order; the n-th upper pressure takes the n-th lower one, if their units
    are the same."""
    lower = [each for each in results if each.code in LOWER]
    upper = [each for each in results if each.code in UPPER]
    pairs = {id(up): low for up, low in zip(upper, lower, strict=False) if up.unit == low.unit}
    taken = {id(low) for low in pairs.values()}
    return [
        pressure(each, pairs[id(each)]) if id(each) in pairs else single(each)
        for each in results
        if id(each) not in taken
    ]


def single(view: ResultView, kind: str = "") -> Block:
    """Return the block of one result. `kind`: the specimen's, as the end of the name."""
    v = view
    shown = v.value, v.unit, v.short, v.usual, v.position, v.shape, v.words, v.is_unusual, v.is_general, is_far(v)
    return Block(f"{v.name}{kind}", *shown, v.code, v.raw_name, (("", v),))


def pressure(upper: ResultView | None, lower: ResultView | None) -> Block:
    """Return the block of a blood pressure, of which one value may be absent."""
    parts = tuple((words, view) for words, view in (("upper", upper), ("lower", lower)) if view)
    unusual = tuple(part for part in parts if part[1].is_unusual)
    told, chief = unusual or parts, (unusual or parts)[0][1]
    same = len(told) == len(parts) and all(view.words == chief.words for _, view in told)
    value = "/".join([shortened(view.value) if view else ABSENT for view in (upper, lower)])
    return Block(
        PRESSURE_NAME,
        value,
        chief.unit,
        f"{shortened(value, SHORT)} {chief.unit}".rstrip(),
        "; ".join([f"{each} {view.usual}" for each, view in parts if view.usual]),
        chief.position,
        chief.shape,
        chief.words if same else ", ".join([f"{each} value {view.words}" for each, view in told]),
        bool(unusual),
        any(view.is_general for _, view in parts),
        any(is_far(view) for _, view in parts),
        BLOOD_PRESSURE,
        "",
        parts,
    )


def is_far(view: ResultView) -> bool:
    """Return whether a value is far outside its range."""
    return view.words.startswith("far ")


def result_fields(point: Any, fields: Sequence[str], code: str | None = None) -> dict[str, Any]:
    """Return the fields of a trend's point as a result, without those that are None. `code`: what was asked for."""
    found = {name: value for name in fields if (value := getattr(point, name)) is not None}
    found["code"] = point.code or code
    return found

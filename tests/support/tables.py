"""Read tables as an import does."""

import io
from typing import Any

import pytest

from myhealth.common.errors import BadInput
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.formats.registry import read_dump
from myhealth.intake.formats.tables.layout import GUESSED, Layout, parse_layout

LONG = "patient,taken_at,name,code,value,unit\n"


def read(text: str | bytes, layout: str | Layout = GUESSED, **options: Any) -> list[Any]:
    data = text.encode() if isinstance(text, str) else text
    layout = parse_layout(layout) if isinstance(layout, str) else layout
    return list(read_dump(io.BytesIO(data), layout=layout, **options).records)


def refusal(text: str | bytes, layout: str | Layout = GUESSED, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        read(text, layout, **options)
    return f"{caught.value.message} {caught.value.hint}"


def take_in(text: str | bytes, **options: Any) -> dict[str, int]:
    data = text.encode() if isinstance(text, str) else text
    coming = FileImport(io.BytesIO(data), "table.csv", ImportOptions(**options))
    for _ in coming:
        pass
    return coming.counts


def faults(text: str | bytes, layout: str | Layout = GUESSED) -> list[tuple[int, Any, str]]:
    return [(each.line, *fault) for each in read(text, layout) for fault in each.faults]


def results(text: str | bytes, layout: str | Layout = GUESSED) -> list[Any]:
    return [result for each in read(text, layout) for result in each.record["results"]]


def values(text: str | bytes, layout: str | Layout = GUESSED) -> list[Any]:
    return [result["value"] for result in results(text, layout)]

"""Read tables as an import does."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from myhealth.common.errors import BadInput
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.formats.registry import read_dump
from myhealth.intake.formats.tables.layout import GUESSED, Layout, parse_layout
from myhealth.intake.pipeline import Intake

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


@contextmanager
def before_identity_in_any_order(monkeypatch: Any) -> Iterator[Any]:
    """Derive numbers as the releases did for which the order of columns was a part of the content."""

    def derive(intake: Any, item: Any, record: Any) -> None:
        said = item.patients[0] if intake.origin.assigned or item.is_mapped else record.checkup_for
        content, former = record.identity_by_order(said), (item.former or record).former_identity()
        record.record_id, *numbers = intake._stored.names(*dict.fromkeys((content, former)))
        item.former_ids = (*numbers,)

    with monkeypatch.context() as before:
        before.setattr(Intake, "_derive_number", derive)
        yield before

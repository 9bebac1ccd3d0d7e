"""Downloads of reports: a table for a spreadsheet (CSV), and FHIR R4 for another health service."""

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import bottle

from myhealth.reports.documents import Document, encode_json
from myhealth.reports.export.csv_table import report_lines
from myhealth.reports.export.fhir import fhir_bundle, report_entries
from wsgi.browse_api.parameters import FILTER_PARAMETERS
from wsgi.browse_pages.filters import parse_report_query
from wsgi.browse_pages.reports import PatientPage
from wsgi.common.views import CONTENT_TYPES, CSV, FHIR, SECURITY_HEADERS, pack, pack_stream

KINDS = {"csv": (CSV, "csv"), "fhir": (FHIR, "json")}
BYTE_ORDER_MARK = "\ufeff"  # spreadsheets recognise UTF-8 by it
BLOCK_BYTES = 64 * 1024


class Download(PatientPage):
    """A page that answers with a file."""

    def file(self, reports: Iterable[Document], person: dict[str, Any], kind: str, name: str) -> bottle.HTTPResponse:
        """Return these reports as one file for the browser to save under that name. Its memory is bounded: the file is
        made while it is sent. Raises TooManyAttempts while the user downloads another one."""
        media_type, ending = KINDS[kind]
        pieces = csv_pieces(reports, person) if media_type == CSV else fhir_pieces(reports, person)
        kept = disposition(f"{name}.{ending}")
        headers = {**SECURITY_HEADERS, "Content-Type": CONTENT_TYPES[media_type], "Content-Disposition": kept}
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.context.exports.enter(self.user["subject"]))
            blocks = in_blocks(pieces)
            first, second = next(blocks), next(blocks, None)
            if second is None:
                return bottle.HTTPResponse(pack(first, headers), headers=headers)
            body = _closing(pack_stream(itertools.chain((first, second), blocks), headers), stack.pop_all())
            next(body)
            return bottle.HTTPResponse(body, headers=headers)


class ReportsDownload(Download):
    """All reports that match the filter in the address."""

    parameters = FILTER_PARAMETERS

    def get(self, kind: str, username: str = "") -> Any:
        query = parse_report_query(self.dates)
        person = self.read_person(username, "export")
        found = self.context.reports.iterate(person, query.wanted)
        return self.file(found, person, kind, f"health-reports-{person['username']}-{self.dates.now():%Y-%m-%d}")


class ReportDownload(Download):
    """One report."""

    def get(self, report_id: int, kind: str) -> Any:
        report, person = self.report(report_id)
        return self.file([report], person, kind, f"health-report-{person['username']}-{report_id}")


def csv_pieces(reports: Iterable[Document], person: Document) -> Iterator[bytes]:
    """Yield the lines of the table."""
    yield BYTE_ORDER_MARK.encode()
    for line in report_lines(reports, person["username"]):
        yield line.encode()


def fhir_pieces(reports: Iterable[Document], person: Document) -> Iterator[bytes]:
    """Yield the JSON of `fhir_bundle`, report by report."""
    yield encode_json(fhir_bundle([], person))[: -len("]}")]
    for report in reports:
        yield b"," + encode_json(report_entries(report, person))[1:-1]
    yield b"]}"


def in_blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join the pieces to blocks of BLOCK_BYTES or a little more."""
    block = bytearray()
    for piece in pieces:
        block += piece
        if len(block) >= BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _closing(blocks: Iterable[bytes], stack: contextlib.ExitStack) -> Iterator[bytes]:
    """Yield the blocks, and close the stack at their end or when this is closed. The first item is empty: a generator
    that was never started closes nothing."""
    with stack:
        yield b""
        yield from blocks


def disposition(name: str) -> str:
    """Return the header with the name under which the browser saves the file.
    Source: RFC 6266, 4.3; its `filename*` is for names beyond ASCII."""
    plain = re.sub(r"[^A-Za-z0-9._@+-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"

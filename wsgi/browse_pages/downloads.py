"""Downloads of reports: a table for a spreadsheet (CSV), and FHIR R4 for another health service."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import bottle

from myhealth.reports.documents import Document
from myhealth.reports.export.csv_table import report_lines
from myhealth.reports.export.fhir import fhir_bundle
from wsgi.browse_api.responses import CONTENT_TYPES, CSV, FHIR
from wsgi.browse_pages.reports import PatientPage
from wsgi.common.application import encode_json
from wsgi.common.http_cache import pack
from wsgi.common.pages import SECURITY_HEADERS

KINDS = {"csv": (CSV, "csv"), "fhir": (FHIR, "json")}
BYTE_ORDER_MARK = "\ufeff"  # spreadsheets recognise UTF-8 by it


class Download(PatientPage):
    """A page that answers with a file."""

    def file(self, reports: Iterable[Document], person: dict[str, Any], kind: str, name: str) -> bottle.HTTPResponse:
        """Return these reports as one file for the browser to save under that name."""
        media_type, ending = KINDS[kind]
        if media_type == CSV:
            content = (BYTE_ORDER_MARK + "".join(report_lines(reports, person["username"]))).encode()
        else:
            content = encode_json(fhir_bundle(reports, person))
        kept = disposition(f"{name}.{ending}")
        headers = {**SECURITY_HEADERS, "Content-Type": CONTENT_TYPES[media_type], "Content-Disposition": kept}
        return bottle.HTTPResponse(pack(content, headers), headers=headers)


class ReportsDownload(Download):
    """All reports that match the filter in the address."""

    def get(self, kind: str, username: str = "") -> Any:
        query = self.report_query()
        person = self.read_person(username, "export")
        found = self.context.reports.iterate(person, query.wanted)
        return self.file(found, person, kind, f"health-reports-{person['username']}-{self.dates.now():%Y-%m-%d}")


class ReportDownload(Download):
    """One report."""

    def get(self, report_id: int, kind: str) -> Any:
        report, person = self.report(report_id)
        return self.file([report], person, kind, f"health-report-{person['username']}-{report_id}")


def disposition(name: str) -> str:
    """Return the header with the name under which the browser saves the file.
    Source: RFC 6266, 4.3; its `filename*` is for names beyond ASCII."""
    plain = re.sub(r"[^A-Za-z0-9._@+-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"

"""Reports to take along: a table for a spreadsheet (CSV), and FHIR R4 for another health service."""

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
MARK = "\ufeff"  # by which spreadsheets know UTF-8


class Download(PatientPage):
    def file(self, reports: Iterable[Document], person: dict[str, Any], kind: str, name: str) -> bottle.HTTPResponse:
        """All of these reports as one file, which the browser keeps under that name."""
        media_type, ending = KINDS[kind]
        if media_type == CSV:
            content = (MARK + "".join(report_lines(reports, person["username"]))).encode()
        else:
            content = encode_json(fhir_bundle(reports, person))
        kept = disposition(f"{name}.{ending}")
        headers = {**SECURITY_HEADERS, "Content-Type": CONTENT_TYPES[media_type], "Content-Disposition": kept}
        return bottle.HTTPResponse(pack(content, headers), headers=headers)


class ReportsDownload(Download):
    """Whatever the filter in the address asks for, all of it."""

    def get(self, kind: str, username: str = "") -> Any:
        asked = self.asked()
        person = self.whose(username, "export")
        found = self.context.reports.iterate(person, asked.wanted)
        return self.file(found, person, kind, f"health-reports-{person['username']}-{self.dates.now():%Y-%m-%d}")


class ReportDownload(Download):
    """One report."""

    def get(self, report_id: int, kind: str) -> Any:
        report, person = self.report(report_id)
        return self.file([report], person, kind, f"health-report-{person['username']}-{report_id}")


def disposition(name: str) -> str:
    """The header that a file is kept by under this name, which whoever keeps several people's files knows them by.
    Source: RFC 6266, 4.3; its `filename*` is for names beyond ASCII."""
    plain = re.sub(r"[^A-Za-z0-9._@+-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"

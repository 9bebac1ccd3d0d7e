"""Name the fields of a record as HL7 v2 does, for errors that people can find in their message."""

from __future__ import annotations

import re

PLACES = {
    "checkup_type": "OBR-4",
    "record_id": "OBR-3",
    "machine": "MSH-3",
    "taken_by": "OBR-16",
    "taken_at": "OBR-7",
    "taken_until": "OBR-8",
    "issued_at": "OBR-22",
    "status": "OBX-11",  # all its results were withdrawn
    "results": "OBX-11",
    "details.codings": "OBR-4",
    "details.notes": "NTE-3",
    "details.clinical_information": "OBR-13",
    "details.reasons": "OBR-31",
    "details.specimen": "SPM-4",
    "details.category": "OBR-24",
    "patient.name": "PID-5",
    "patient.birth_date": "PID-7",
    "patient.sex": "PID-8",
}
OF_RESULT = {
    **dict.fromkeys(("code", "name", "other_code", "code_system", "codings"), 3),
    "sub_id": 4,
    **dict.fromkeys(("unit", "unit_text"), 6),
    **dict.fromkeys(("low", "high", "range_text", "ranges"), 7),
    **dict.fromkeys(("flag", "interpretations"), 8),
    **dict.fromkeys(("status", "absent_reason", "absent_code"), 11),
    **dict.fromkeys(("taken_at", "taken_precision"), 14),
    "performers": 16,
    "method": 17,
    "device": 18,
    "body_site": 20,
}
FIELD = re.compile(r"results\[([0-9]+)\](?:\.([a-z_]+))?.*|(details\.[a-z_]+|patient\.[a-z_]+|[a-z_]+).*")


def locate(places: tuple[int, ...], patient: str, name: str) -> str:
    """Return the field of the message that a field of the record comes from; the same name if it is not one field.

    `places`: the numbers of the OBX segments of the results; `patient`: the field with the patient's number.
    Worked example: results[1].unit is OBX[3]-6 if places is (1, 3), checkup_for is PID-3.
    """
    match = FIELD.fullmatch(name)
    if match is None:
        return name
    if match[1] is None:
        return patient if match[3] in ("checkup_for", "patient.identifiers") else PLACES.get(match[3], name)
    index, part = int(match[1]), match[2] or ""
    segment = f"OBX[{places[index]}]" if index < len(places) else "OBX"
    number = 5 if part.startswith("value") else OF_RESULT.get(part)
    return f"{segment}-{number}" if number else "NTE-3" if part == "notes" else segment

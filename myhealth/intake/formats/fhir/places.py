"""Name the elements of FHIR resources from which the fields of a record come, as errors name them.

Source: HL7 FHIR R4 (4.0.1), "Observation" and "DiagnosticReport".
"""

import re
from collections.abc import Sequence

# Our fields with the elements of a resource that they come from alone.
_OF_CHECKUP = """
checkup_for subject, patient.identifiers subject, record_id identifier, checkup_type code, taken_at effective,
taken_until effective, taken_precision effective, issued_at issued, status status, order_status status,
checkup_report conclusion
"""
_OF_RESULT = """
name code, code code, codings code, other_code code, code_system code, unit value[x].unit, unit_text value[x].unit,
low referenceRange, high referenceRange, range_text referenceRange, ranges referenceRange, flag interpretation,
interpretations interpretation, status status, taken_at effective, taken_until effective, issued_at issued,
sub_id identifier, identifiers identifier, specimen specimen, method method, body_site bodySite, device device,
performers performer, category category, notes note, absent_reason dataAbsentReason, absent_code dataAbsentReason
"""
OF_CHECKUP, OF_RESULT = (
    dict(each.split() for each in table.replace("\n", " ").split(",")) for table in (_OF_CHECKUP, _OF_RESULT)
)
OF_PATIENT = {"patient.name": "name", "patient.birth_date": "birthDate", "patient.sex": "gender"}
MEMBERS = {"Observation": "hasMember", "DiagnosticReport": "result"}
MISSING = "results.missing"  # the results that a report names and that are nowhere
RESULT = re.compile(r"results\[([0-9]+)\](?:\.([a-z_]+))?.*")


def locate_element(kind: str, paths: Sequence[str], name: str) -> str:
    """Return the element of a resource of this kind that a field of the record comes from; else the field's name.

    `paths`: those of the results. Worked example: results[1].unit is Observation.component[0].value[x].unit if the
    second path is Observation.component[0].
    """
    if name == MISSING:
        return f"{kind}.{MEMBERS[kind]}"
    if name in OF_PATIENT:
        return f"Patient.{OF_PATIENT[name]}"
    if element := OF_CHECKUP.get(name):
        return f"{kind}.{element}"
    match = RESULT.fullmatch(name)
    if match is None or int(match[1]) >= len(paths):
        return kind if name in ("details", "results") else name
    field = match[2] or ""
    element = "value[x]" if field.startswith("value") else OF_RESULT.get(field, "")
    return ".".join(filter(None, (paths[int(match[1])], element)))

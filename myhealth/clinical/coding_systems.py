"""The names of coding systems: HL7 v2's (table 0396) and their URIs. Pure.

Source: HL7 table 0396; HL7 FHIR R4, "Using codes in resources"; terminology.hl7.org for the OIDs.
"""

import re
from functools import lru_cache
from urllib.parse import quote, unquote

LOINC = "http://loinc.org"
LOINC_CODE = re.compile(r"([0-9]{1,7})-([0-9])")
UCUM = "http://unitsofmeasure.org"
SNOMED = "http://snomed.info/sct"
MDC = "urn:iso:std:iso:11073:10101"
# Our own systems are tag URIs (RFC 4151), which need no server; `LOCAL` begins those of a laboratory's own codes. A
# username may be another person's elsewhere; a subject, the id that a user has for good, may not.
OUR_REPORT, OUR_USERNAME, OUR_SUBJECT, OUR_DISEASE, OUR_SERIAL, LOCAL = (
    f"tag:myhealth.example,2026:{what}" for what in ("report", "username", "subject", "disease", "serial", "codes:")
)
HL7_TABLE = "http://terminology.hl7.org/CodeSystem/v2-"

# A URI, its names in HL7 v2 (the first one as in table 0396), and its OID.
_TABLE = """
http://loinc.org LN LNC LOINC 2.16.840.1.113883.6.1
http://snomed.info/sct SCT SNOMED SNOMED-CT SNOMEDCT 2.16.840.1.113883.6.96
urn:iso:std:iso:11073:10101 MDC ISO11073 IEEE11073 2.16.840.1.113883.6.24
http://unitsofmeasure.org UCUM 2.16.840.1.113883.6.8
http://hl7.org/fhir/sid/icd-10 I10 ICD10 ICD-10 2.16.840.1.113883.6.3
http://hl7.org/fhir/sid/icd-10-cm I10C ICD10CM ICD-10-CM 2.16.840.1.113883.6.90
http://hl7.org/fhir/sid/icd-9-cm I9C I9CDX ICD9CM ICD-9-CM
http://npu-terminology.org NPU
http://www.ama-assn.org/go/cpt C4 CPT CPT4 CPT-4
http://www.whocc.no/atc ATC 2.16.840.1.113883.6.73
http://www.nlm.nih.gov/research/umls/rxnorm RXNORM
http://hl7.org/fhir/sid/cvx CVX
http://hl7.org/fhir/sid/ndc NDC
http://dicom.nema.org/resources/ontology/DCM DCM
urn:oid:1.2.392.200119.4.504 JC10 JLAC10
"""
NAMES = {uri: tuple(names) for uri, *names in map(str.split, _TABLE.strip().split("\n"))}
URIS = {name: uri for uri, names in NAMES.items() for name in names} | {
    "2.16.840.1.113883.5.83": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
}
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
OID = re.compile(r"(?:urn:oid:)?([0-2](?:\.[0-9]+)+)")
TABLE = re.compile(r"HL7-?([0-9]{4})")


@lru_cache(maxsize=1024)
def uri_of(name: str) -> str:
    """Return the URI of a coding system by its name in HL7 v2, its OID or its URI; "" for "".

    Worked examples: "SCT" is http://snomed.info/sct, "HL70078" http://terminology.hl7.org/CodeSystem/v2-0078. "99MRC"
    and "L" are a laboratory's own: tag:myhealth.example,2026:codes:99MRC. The URI of a known system loses a final slash
    and gets http; any other URI stays as it is.
    """
    name = name.strip()
    if known := URIS.get(name.upper().replace(" ", "-")):
        return known
    if oid := OID.fullmatch(name):
        return URIS.get(oid[1], f"urn:oid:{oid[1]}")
    if URI.fullmatch(name):
        plain = name.rstrip("/").replace("https://", "http://", 1)
        return plain if plain in NAMES else name
    if table := TABLE.fullmatch(name.upper()):
        return HL7_TABLE + table[1]
    return LOCAL + quote(name, safe="", errors="replace") if name else ""


def v2_name_of(uri: str) -> str:
    """Return the name of a coding system in HL7 v2; "" if it has none. The inverse of `uri_of`."""
    if uri in NAMES:
        return NAMES[uri][0]
    if uri.startswith(HL7_TABLE):
        return f"HL7{uri.removeprefix(HL7_TABLE)}"
    return unquote(uri.removeprefix(LOCAL)) if uri.startswith(LOCAL) else ""


def is_local(uri: str) -> bool:
    """Return whether a URI is that of a laboratory's own system, whose codes mean nothing elsewhere."""
    return uri.startswith(LOCAL)


def is_loinc(code: str) -> bool:
    """Return whether a code has the shape and the check digit of a LOINC code.

    Mod 10 (loinc.org, Users' Guide): 12345 has 5, for 5, 3 and 1 are doubled as 531 to 1062, and the digits of 42 and
    1062 add up to 15, which lacks 5 to 20.
    """
    match = LOINC_CODE.fullmatch(code)
    if match is None:
        return False
    digits = match[1][::-1]
    total = sum(map(int, digits[1::2])) + sum(map(int, str(2 * int(digits[::2][::-1]))))
    return -total % 10 == int(match[2])

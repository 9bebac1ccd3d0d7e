"""Which results make one series over time: those of one test, in one unit, of one kind of specimen. Pure."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from myhealth.clinical.catalog import codes_of
from myhealth.clinical.in_words import mappings, plain_text
from myhealth.clinical.units import series_unit

# Serum, plasma and blood are one kind: in words, in HL7 v2 table 0487, in SNOMED CT. Cord blood and cultures are not.
BLOOD = re.compile(
    r"(?:whole |venous |capillary |arterial )?blood(?: (?:sample|specimen))?|(?:blood )?(?:serum|plasma)(?: or plasma)?"
    r"|(?:serum|plasma) (?:sample|specimen)|ser|plas|ser/plas|serpl|plasma/serum|serum/plasma|bld[vca]?|wb"
    r"|119297000|119364003|119361006|122555007|122554006"
)
URINE = re.compile(r"(?:(?:random|spot|24 ?h(?:our)?) )?urine(?: (?:sample|specimen))?|ur|urn|uri|122575003")
BLOOD_KIND, URINE_KIND = "blood", "urine"


class SeriesKey(NamedTuple):
    """The key of a trend: results with one key are comparable.

    `test`: a LOINC code, else the name; `unit`: as `series_unit` has it; `specimen`: its kind, "" if not known.
    """

    test: str
    unit: str
    specimen: str


def series_key(result: Mapping[str, Any]) -> SeriesKey:
    """Return the series of a result.

    All codes that the catalogue has for one test are one series. A LOINC code implies its specimen, so results with a
    code from blood and from no stated specimen are one series. Without a code, a result of an unknown specimen is a
    series of its own: it may be serum or urine.
    """
    code = result.get("code")
    kind = specimen_kind(result.get("specimen"))
    unit = series_unit(plain_text(result.get("unit") or result.get("unit_text")))
    if not code:
        return SeriesKey(" ".join(str(result.get("name") or "").split()), unit, kind)
    return SeriesKey(codes_of(str(code))[0], unit, "" if kind == BLOOD_KIND else kind)


def specimen_kind(specimen: Any) -> str:
    """Return the kind of a specimen (text, or {text, codings}) in lower case; "blood" for serum, plasma and blood.

    Worked examples: "Serum", {"codings": [{"code": "119361006"}]} and "BLDV" are blood, "UR" is urine, None is "".
    """
    if not specimen:
        return ""
    if isinstance(specimen, Mapping):
        codings = mappings(specimen.get("codings"))
        words = [specimen.get("text"), *(coding.get(name) for name in ("display", "code") for coding in codings)]
    else:
        words = [specimen]
    plain = [text for each in words if (text := " ".join(str(each or "").lower().split()))]
    for pattern, kind in ((BLOOD, BLOOD_KIND), (URINE, URINE_KIND)):
        if any(pattern.fullmatch(text) for text in plain):
            return kind
    return plain[0] if plain else ""

"""The usernames of the patients as machines call them, in the words of an operator."""

import csv
import itertools
from collections.abc import Iterable

from myhealth.common.errors import BadInput
from myhealth.intake.identity import composed
from myhealth.profiles.models import Key


class PatientMap(dict[str | Key, str]):
    """Usernames by the names that machines use, and by (folded authority, number).

    A name without an authority also means the number of one authority, the first that is seen with it: the same number
    of another one is another patient's.
    """

    def __init__(self, *given: dict[str | Key, str]) -> None:
        super().__init__(*given)
        self._authorities: dict[str, str] = {}

    def find(self, names: Iterable[str], identifiers: Iterable[Key]) -> str | None:
        """Return the username of a record's patient, None if the map does not say it."""
        for name in names:
            if name in self:
                return self[name]
        for system, value in identifiers:
            authority = system.casefold()
            if (authority, value) in self:
                return self[authority, value]
            if value in self and self._authorities.setdefault(value, authority) == authority:
                return self[value]
        return None


def read_patient_map(lines: Iterable[str]) -> PatientMap:
    """Read CSV with the columns `patient`, `username` and optionally `authority`, between commas, semicolons or tabs.

    Raises BadInput naming the line if the header is another, a cell is empty, or a patient is mapped twice.
    """
    rows = iter(lines)
    first = next(rows, "")
    separator = next((each for each in ";\t" if each in first), ",")
    reader = csv.DictReader(itertools.chain([first], rows), delimiter=separator, strict=True)
    found = PatientMap()
    try:
        header = [name.strip().casefold() for name in reader.fieldnames or ()]
        if sorted({*header, "authority"}) != ["authority", "patient", "username"] or len(header) != len({*header}):
            raise BadInput("line 1: the header must be patient,username or patient,authority,username")
        reader.fieldnames = header
        for row in reader:
            patient, username, authority = (
                composed(row.get(name) or "") for name in ("patient", "username", "authority")
            )
            if not patient or not username or None in row:
                raise BadInput(f"line {reader.line_num}: it must have a patient and a username")
            key = (authority.casefold(), patient) if authority else patient
            if found.setdefault(key, username) != username:
                raise BadInput(f"line {reader.line_num}: {patient} is mapped twice")
    except csv.Error as error:
        raise BadInput(f"line {reader.line_num}: {error}") from error
    return found

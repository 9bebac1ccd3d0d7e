"""Find the stored texts that name a person: usernames as whole words, in any spelling that folds to the same."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg2.extras import DateTimeTZRange

from myhealth.common.database import database, fetch_all
from myhealth.common.text import fold_name
from myhealth.intake.models import Rejection
from myhealth.intake.parsed_record import named_in
from myhealth.intake.rejections import payload_text
from myhealth.intake.retry import reread
from myhealth.profiles.held_names import HeldNames, erased_form
from myhealth.profiles.models import Key

# No person is called so: a patient whose name has one of these is called by the username.
NO_PERSONS_NAME = re.compile(r"[\d._@]")
JSON_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
# Raw SQL: conditions on text and JSON.
# Rows without the name in ASCII, without a character beyond ASCII, an escape or base64 cannot name the person.
CANDIDATES = """
select id, payload, context, source, errors, received_at from (
    select *, concat_ws(' ', payload, source, context, errors) as content from rejections) as all_of_them
where content ilike any(%s) or octet_length(content) <> char_length(content) or content like '%%\\\\u%%'
    or context ? 'base64' order by id"""

HELD = """
select exists (select from patient_identifiers
               join unnest(%s::text[], %s::text[]) as wanted (system, value) using (value, system))"""


class Mentions:
    """Recognises `names` (usernames of one person) as whole words of a text. `held`: when which names were the
    person's; by default these always. `identifiers`: the person's."""

    def __init__(
        self, names: Collection[str], held: HeldNames | None = None, identifiers: Collection[Key] = ()
    ) -> None:
        self.identifiers = set(identifiers)
        self.folds = {fold_name(name.strip()) for name in names}
        self.held = {name: [DateTimeTZRange()] for name in self.folds} if held is None else held
        words = "|".join(map(re.escape, sorted(self.folds, key=len, reverse=True)))
        # asha is no word of asha.roy, asha-roy or asha@example.org, but is one of "asha." and of asha^^^
        self._words = re.compile(rf"(?<![\w-])(?<!\w[.@])(?:{words})(?![\w-]|[.@]\w)")

    def names(self, name: str, at: datetime) -> bool:
        """Return whether this, with or without blanks around it, was a name of the person at that moment."""
        return any(at in span for span in self.held.get(fold_name(name.strip()), ()))

    def is_in(self, text: str) -> bool:
        """Return whether one of the names is a word of the text."""
        unescaped = JSON_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
        return self._words.search(fold_name(unescaped)) is not None


@dataclass(frozen=True)
class FoundRejections:
    """Ids of rejections. `certain`: the record is the person's. `possible`: it mentions the person, who need not be its
    patient; somebody must look. `identifiers`: how the certain ones call their patient; `forms`: the
    numbers of authorities among that, as `erased_form` writes them."""

    certain: list[int]
    possible: list[int]
    identifiers: set[str]
    forms: set[str] = field(default_factory=set)


def find_rejections(cursor: Any, mentions: Mentions, full_name: str = "") -> FoundRejections:
    """Find the rejections of a person, within the caller's transaction, in bounded memory.

    A record is the person's if its patient, or the address that it was sent to, is, and no other linked user may be the
    patient too. A name elsewhere in it, and `full_name`, which several people may have, make it only possible.
    """
    linked = fetch_all(cursor, "select folded_name from users where linked_at is not null")
    others = {folded for (folded,) in linked} - mentions.folds
    parts = fold_name(full_name).split()
    found = FoundRejections([], [], set())
    for rejection in _candidates([*mentions.held, *parts[:1], *(value for _, value in mentions.identifiers)]):
        context = rejection.context
        text = f"{payload_text(rejection)} {context.get('correction', '')}"
        patients = {name for name in (context.get("patient"), *context.get("patients", ()), *named_in(text)) if name}
        words = set(re.findall(r"\w+", fold_name(text))) if len(parts) > 1 else set()
        mine = {name for name in patients if mentions.names(name, rejection.received_at)}
        known = any(fold_name(name.strip()) in others for name in patients - mine)
        is_word = mentions.is_in(f"{text} {rejection.source} {rejection.errors}")
        keys = {(system, value) for system, value in context.get("identifiers", ())}
        known = known or _are_held(cursor, keys - mentions.identifiers)
        if not known and (mine or keys & mentions.identifiers or (is_word and _calls_patient(rejection, mentions))):
            found.certain.append(rejection.id)
            found.identifiers.update(patients)
            found.forms.update(erased_form(*key) for key in keys)
        elif is_word or (parts and words.issuperset(parts)):
            found.possible.append(rejection.id)
    return found


def _are_held(cursor: Any, keys: Collection[Key]) -> bool:
    """Return whether a patient has one of these identifiers."""
    if not keys:
        return False
    cursor.execute(HELD, ([system for system, _ in keys], [value for _, value in keys]))
    return bool(cursor.fetchone()[0])


def _calls_patient(rejection: Rejection, mentions: Mentions) -> bool:
    """Return whether the record gives a username as the name of its patient, for whom it has a number besides."""
    name = reread(rejection).full_name
    return mentions.names(name, rejection.received_at) and NO_PERSONS_NAME.search(name) is not None


def _candidates(words: list[str]) -> Iterator[Rejection]:
    patterns = [f"%{word}%" for word in words if word.isascii()]  # a % or _ in it finds too much, never too little
    with database.connection().cursor(name="rejections", withhold=True) as cursor:
        cursor.itersize = 200
        cursor.execute(CANDIDATES, (patterns,))
        for id_, payload, context, source, errors, at in cursor:
            yield Rejection(id=id_, payload=payload, context=context, source=source, errors=errors, received_at=at)


def find_spellings(cursor: Any, mentions: Mentions) -> dict[str, list[Any]]:
    """Return `names`, the person's as the audit trail and the login attempts spell them, and `held`, the span of each;
    a name with several spans is there as often."""
    spelt = fetch_all(
        cursor,
        "select distinct name from (select subject as name from audit_events union all select actor from audit_events"
        " union all select username from login_attempts) as spelt"
        " where lower(trim(name)) = any(%s) or octet_length(name) <> char_length(name)",
        (sorted(mentions.held),),
    )
    names = sorted({*mentions.held, *(name for (name,) in spelt if name)})
    pairs = [(name, span) for name in names for span in mentions.held.get(fold_name(name.strip()), ())]
    return {"names": [name for name, _ in pairs], "held": [span for _, span in pairs]}

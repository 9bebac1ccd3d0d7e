"""Find the user whom each record of a batch is about, or the reason why there is none.

A number with an authority belongs to the patient who has this identifier; a name or a number without one is a username.
"""

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from psycopg2.extras import execute_values

from myhealth.clinical.coding_systems import OUR_SUBJECT
from myhealth.common.database import fetch_all
from myhealth.common.text import fold_name, printable
from myhealth.intake.identity import as_named_today, claim_of, contradiction
from myhealth.intake.new_patients import NewPatients
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record_ids import HELD
from myhealth.intake.record_types import Patient
from myhealth.intake.results import ERASED, ConcurrentChange, ImportSource, ValidatedRecord
from myhealth.profiles.held_names import IS_RENAME, erased_form, find_erased_names
from myhealth.profiles.models import FHIR_REFERENCE, Key, reference_system
from myhealth.profiles.names import is_certain_birth_date, is_no_name, names_nobody, username_error

ACCOUNT = "id, username, linked_at is not null, birth_date::text, sex"
FIND_USERS = f"select folded_name, {ACCOUNT} from users where folded_name = any(%s)"
FIND_HOLDERS = f"""
with held as (
    select system, value, source_name, patient_id from patient_identifiers
    join unnest(%s::text[], %s::text[]) as wanted (system, value) using (value, system)
    union all select '{FHIR_REFERENCE}', value, null, patient_id from patient_identifiers
    where value = any(%s) and system like '{FHIR_REFERENCE}%%'
    union all select '{OUR_SUBJECT}', subject::text, null, id from users where subject::text = any(%s))
select held.system, held.value, held.source_name, {ACCOUNT} from held join users on users.id = patient_id"""
FORMER_NAMES = f"""
select lower(audit_events.subject), username from audit_events join users on users.id = subject_id
where lower(audit_events.subject) = any(%s) and linked_at is not null and {IS_RENAME} order by audit_events.id"""
FIND_HELD = "select patient_id, system, value from patient_identifiers where patient_id = any(%s) and system <> ''"
ON_SERVER = re.compile(r"https?://(.*)(/Patient/[^/]+)")
# A lock: an account that is linked at this moment takes in the records that are rejected before.
STILL_UNLINKED = "select id from users where id = any(%s) and linked_at is null for share"
LINKED_MEANWHILE = "an account was linked while records for it were rejected; try again"
LEARN = """
insert into patient_identifiers as known (patient_id, system, value, source_name) values %s
on conflict (value, system) do update set patient_id = excluded.patient_id, source_name = case
    when known.patient_id = excluded.patient_id then coalesce(known.source_name, excluded.source_name)
    else excluded.source_name end
where known.patient_id = excluded.patient_id or known.system = ''"""  # a username's patient is known otherwise
# Of a patient who holds the number that the source gives: a name alone may be another person's.
LEARN_BIRTH_DATES = """
update users set birth_date = sent.born::date from (values %s) as sent (id, born)
where users.id = sent.id and birth_date is null"""
RETRY = "store it with `myhealth rejections retry --patient USERNAME ID`"


class NoPatient(NamedTuple):
    """Why a record has no patient here."""

    field: str
    message: str
    code: str


class Account(NamedTuple):
    """A user who may be a record's patient. `linked`: to a person."""

    id: int
    username: str
    linked: bool
    birth_date: str | None
    sex: str | None


class Patients:
    """The patients of a batch's records. `created`: the usernames of those that were created; `news`: by id, what the
    senders must know of them. `erased`: the names among the records' that were erased."""

    def __init__(self, origin: ImportSource) -> None:
        self.origin = origin
        self.created: list[str] = []
        self.erased: set[str] = set()
        self.news: dict[int, str] = {}
        self._named: set[str] = set()
        self._users: dict[str, Account] = {}
        self._holders: dict[Key, tuple[Account, str | None]] = {}
        self._references: dict[str, set[Account]] = {}
        self._held: dict[int, set[Key]] = {}
        self._called: dict[int, set[str]] = {}
        self._before: dict[int, Account] = {}
        self._learnt: dict[Key, tuple[int, str | None]] = {}
        self._told: dict[int, str] = {}
        self._born: dict[int, str] = {}
        self._renamed: dict[str, str] = {}
        self._found: dict[tuple[str, ...], Account] = {}

    def look_up(self, cursor: Any, items: Sequence[ValidatedRecord]) -> None:
        """Find the users of the records; create missing patients if wanted. Raises ConcurrentChange."""
        detailed = [item for item in items if item.patient is not None or item.reference]
        self._find(cursor, items, detailed)
        if self.origin.create_patients:
            self._find_former_names(cursor)
            new = NewPatients([item for item in items if self._may_be_new(item)])
            created = new.create(cursor, self._users)
            if created:
                self.created, self.news = [*created], new.news
                self._find(cursor, items, detailed)
        unlinked = {account.id for account in self._all() if not account.linked}
        if unlinked:
            cursor.execute(STILL_UNLINKED, (sorted(unlinked),))
            if cursor.rowcount != len(unlinked):
                raise ConcurrentChange(LINKED_MEANWHILE)
        keys = {key for item in detailed for key in item.keys if key not in self._holders}
        forms = {erased_form(*key) for key in keys if key[1] not in self._references}
        self.erased = find_erased_names(cursor, forms | self._named - self._users.keys())
        self._find_stored_before(cursor, detailed)

    def of(self, item: ValidatedRecord) -> Account | NoPatient:
        """Return the record's patient, who is one linked user, or why there is none. Accounts that are not linked do
        not count as candidates: anybody can register an account with another's number as its name."""
        if item.is_detailed:
            return self._settle(item)
        account = self._found.get(item.patients)  # of the same names before
        if account is None:
            settled = self._settle(item)
            if isinstance(settled, NoPatient):  # it names a field of its own record
                return settled
            account = self._found[item.patients] = settled
        return account

    def _settle(self, item: ValidatedRecord) -> Account | NoPatient:
        if doubt := item.parsed.patient_doubt:
            return NoPatient(
                item.parsed.patient_field, f"{doubt}; when you know whose it is, {RETRY}", "identity_conflict"
            )
        found = self._matching(item)
        linked = [account for account in found if account.linked]
        if len(linked) == 1:
            return self._contradiction(item, linked[0]) or linked[0]
        if id(item) in self._before:
            return self._before[id(item)]
        place, shown = item.parsed.patient_field, _who(item)
        if found and not linked:
            message = f"the account of {shown} is not linked to a person yet; an admin must link it"
            return NoPatient(place, message, "account_not_linked")
        if not self.erased.isdisjoint(item.erased_forms):
            return NoPatient(place, f"the user {shown} was erased", ERASED)
        if linked:
            meant = f"{printable(item.reference, 60)} has meant" if item.reference else f"{shown} are"
            message = f"{meant} different users here; say who is meant with a patient map"
            return NoPatient(place, message, "ambiguous_user")
        if self.origin.create_patients and (placeholder := _placeholder(item)):
            message = f"is not known, and no patient is created: {placeholder} stands for many people"
            message += "; if it is one, add the user first"
            return NoPatient(place, message, "unknown_user")
        if item.identifiers:
            return self._unknown_number(item)
        if item.reference and (self._bare(item) or any(name in self._users for name in item.patients)):
            known = "without a server" if self._bare(item) else "from another server"
            message = f"{shown} is known {known}; if {printable(item.reference, 100)} is the same person, {RETRY}"
            return NoPatient(place, message, "identity_conflict")
        if not shown:
            return NoPatient(place, "has no number that names a patient here", "unknown_user")
        if renamed := self._renamed_to(item):
            message = f"{shown} was the username of {renamed}; if it is this person, {RETRY}"
            return NoPatient(place, message, "identity_conflict")
        faults = [username_error(name) for name in item.patients] if self.origin.create_patients else []
        fault = faults[0] if faults and all(faults) else ""
        message = f"there is no user named {shown}" + (f", and none can be created: {fault}" if fault else "")
        return NoPatient(place, message, "unknown_user")

    def learn(self, cursor: Any) -> None:
        """Store the names, numbers and birth dates that sources give to the patients that were found."""
        if self._learnt:
            rows = [(id_, system, value, name) for (system, value), (id_, name) in sorted(self._learnt.items())]
            execute_values(cursor, LEARN, rows)
        if self._born:
            execute_values(cursor, LEARN_BIRTH_DATES, sorted(self._born.items()))

    def teach(self, cursor: Any, people: Iterable[tuple[str, Patient]]) -> None:
        """Store the references by which FHIR resources name patients who are known here. A reference that named another
        patient before then names both, so it alone identifies neither."""
        items = []
        for reference, patient in people:
            names, identifiers = claim_of("", patient, self.origin.own_authorities)
            parsed = ParsedRecord(0, 1, reference, None, full_name=patient.name or "")
            items.append(ValidatedRecord(parsed, None, [], names, identifiers=identifiers, patient=patient))
        self.look_up(cursor, items)
        for item in items:
            found = self.of(item)
            if not isinstance(found, NoPatient):
                system = item.identifiers[0][0] if item.identifiers else ""
                self._learnt[reference_system(system, found.id), item.parsed.raw] = found.id, None
        self.learn(cursor)

    def _all(self) -> Iterable[Account]:
        yield from self._users.values()
        yield from (account for account, _ in self._holders.values())
        for accounts in self._references.values():
            yield from accounts

    def _find(self, cursor: Any, items: Sequence[ValidatedRecord], detailed: Sequence[ValidatedRecord]) -> None:
        self._named = set().union(*[item.patients for item in items])
        names = self._named | {value for item in detailed for _, value in item.identifiers}
        folds = {name: fold_name(name) for name in names}
        cursor.execute(FIND_USERS, (sorted(set(folds.values())),))
        found = {folded: Account(*account) for folded, *account in cursor.fetchall()}
        self._users = {name: found[folded] for name, folded in folds.items() if folded in found}
        if not detailed:
            return
        keys = {key for item in detailed for key in (*item.identifiers, *_keys_of_names(item))}
        references = sorted({each for item in detailed for each in (item.reference, _without_server(item)) if each})
        subjects = [value for system, value in keys if system == OUR_SUBJECT]
        cursor.execute(
            FIND_HOLDERS, ([system for system, _ in keys], [value for _, value in keys], references, subjects)
        )
        self._holders, self._references = {}, defaultdict(set)
        for system, value, source_name, *account in cursor.fetchall():
            if system == FHIR_REFERENCE:
                self._references[value].add(Account(*account))
            else:
                self._holders[system, value] = Account(*account), source_name
        self._held, self._called = defaultdict(set), defaultdict(set)
        cursor.execute(FIND_HELD, ([account.id for account in self._all()],))
        for id_, system, value in cursor.fetchall():
            if system.startswith(FHIR_REFERENCE):
                self._called[id_].add(value)
            else:
                self._held[id_].add((system, value))

    def _matching(self, item: ValidatedRecord) -> set[Account]:
        """Return the accounts that the record may mean; several are an ambiguity."""
        if item.reference in self._references:
            return self._references[item.reference]
        found = {self._users[name] for name in item.patients if name in self._users}
        if not item.identifiers and item.reference:
            if (bare := self._bare(item)) and bare != found:
                return set()
            return {account for account in found if not self._is_of_other_server(item.reference, account)}
        return found | {self._holders[key][0] for key in item.identifiers if key in self._holders}

    def _bare(self, item: ValidatedRecord) -> set[Account]:
        """Return the accounts that the record's reference names without its server; on another server, the same
        reference may name another person."""
        return self._references.get(_without_server(item), set())

    def _may_be_new(self, item: ValidatedRecord) -> bool:
        """Return whether the record's patient may be new: no account here may be that person."""
        known = (
            self._matching(item)
            or self._namesakes(item)
            or self._renamed_to(item)
            or (not item.identifiers and self._bare(item))
        )
        return not known and not item.parsed.patient_doubt and not _placeholder(item)

    def _is_of_other_server(self, reference: str, account: Account) -> bool:
        """Return whether the account is known as the patient with the same id of another server."""
        address = ON_SERVER.fullmatch(reference)
        others = [*filter(None, map(ON_SERVER.fullmatch, self._called.get(account.id, ())))] if address else []
        servers = {other[1] for other in others if address and other[2] == address[2]}
        return bool(servers) and address is not None and address[1] not in servers

    def _find_former_names(self, cursor: Any) -> None:
        """Find the unknown names that a user had before: a source goes on with the name that it knows."""
        unknown = {fold_name(name): name for name in self._named - self._users.keys()}
        found = fetch_all(cursor, FORMER_NAMES, ([*unknown],)) if unknown else ()
        self._renamed = {unknown[former]: username for former, username in found}

    def _renamed_to(self, item: ValidatedRecord) -> str:
        """Return the present name of a user who had a name of the record's patient; "" if nobody had."""
        return next((self._renamed[name] for name in item.patients if name in self._renamed), "")

    def _namesakes(self, item: ValidatedRecord) -> list[tuple[Account, Key]]:
        """Return the accounts whose username is one of the record's numbers and that have no identifiers, each with the
        number."""
        found = [(self._users[key[1]], key) for key in item.identifiers if key[1] in self._users]
        return [(account, key) for account, key in found if not self._held.get(account.id)]

    def _unknown_number(self, item: ValidatedRecord) -> NoPatient:
        place = item.parsed.patient_field
        for account, (system, value) in self._namesakes(item):
            words = shlex.join(["myhealth", "users", "identifiers", "add", account.username, system, value])
            message = (
                f"nobody said that the account {account.username} is {_numbered(system, value)}; if it is: {words}"
            )
            return NoPatient(place, printable(message, 500), "identifier_unconfirmed")
        system, value = item.identifiers[0]
        words = shlex.join(["myhealth", "users", "identifiers", "add", "USERNAME", system, value])
        message = f"there is no patient with {_who(item)}; if there is: {words}"
        return NoPatient(place, printable(message, 500), "unknown_user")

    def _contradiction(self, item: ValidatedRecord, account: Account) -> NoPatient | None:
        """Return why the record has no patient here if the source's facts contradict the account; else None, and
        remember what the source calls the patient."""
        place, only = item.parsed.patient_field, self.origin.patient
        if only and fold_name(account.username) != fold_name(only):
            return NoPatient(place, f"is not {only}, the patient of all records", "")
        reference = item.parsed.patient_reference if self.origin.assigned else item.reference
        if reference and ON_SERVER.fullmatch(reference) and reference not in self._references:
            self._learnt[reference_system("", account.id), reference] = account.id, None
            self._called.setdefault(account.id, set()).add(reference)
        if item.patient is None:
            return None
        keys = [key for key in item.identifiers if key in self._held.get(account.id, ())]
        keys += _keys_of_names(item)
        known = {key: name for key in keys for holder, name in [self._holders.get(key, (account, None))]
                 if holder.id == account.id}  # fmt: skip
        born = account.birth_date or self._told.get(account.id)
        what = contradiction(item.patient, filter(None, known.values()), born, account.sex)
        has = self._held.get(account.id, set())
        same = {system for system, value in item.identifiers if (system, value) in has}
        if not what and any(system not in same and any(system == s for s, _ in has) for system, _ in item.identifiers):
            what = "number"
        if what:
            message = f"the {what} contradicts what is known of {_who(item)}; if it is this person, {RETRY}"
            return NoPatient(place, message, "identity_conflict")
        if not born and is_certain_birth_date(item.patient.birth_date):
            self._told[account.id] = item.patient.birth_date or ""  # two people of one name in a file are told
            if same:
                self._born[account.id] = self._told[account.id]
        if item.patient.name and not is_no_name(item.patient.name):
            for key in keys:
                if not known.get(key):
                    self._learnt[key] = account.id, item.patient.name
                    self._holders[key] = account, item.patient.name
        return None

    def _find_stored_before(self, cursor: Any, detailed: Sequence[ValidatedRecord]) -> None:
        """Find the accounts under which records are stored already because earlier releases took a number for a
        username."""
        asked = []
        for item in detailed:
            if item.identifiers and item.record and item.record.record_id is not None and not self._matching(item):
                accounts = {self._users[value] for _, value in item.identifiers if value in self._users}
                asked += [(item, account) for account in accounts if account.linked and len(accounts) == 1]
        if not asked:
            return
        records = [(item.record.machine, item.record.record_id) for item, _ in asked if item.record]
        columns = [machine for machine, _ in records], [id_ for _, id_ in records], [acc.id for _, acc in asked]
        cursor.execute(HELD, columns)
        self._before = {id(asked[position - 1][0]): asked[position - 1][1] for (position,) in cursor.fetchall()}


def _placeholder(item: ValidatedRecord) -> str:
    """Return a placeholder that the record has for its patient's name or number, "" if it has none."""
    own = (*item.patients, *(value for _, value in item.identifiers))
    return next((printable(each, 60) for each in own if names_nobody(each)), "")


def _without_server(item: ValidatedRecord) -> str:
    """Return the reference of a record's patient without its server; "" if it names none."""
    address = ON_SERVER.fullmatch(item.reference)
    return address[2].removeprefix("/") if address else ""


def _keys_of_names(item: ValidatedRecord) -> list[Key]:
    """Return the keys under which the sources' names for users with these usernames are stored."""
    return [("", fold_name(name)) for name in item.patients] if item.patient and item.patient.name else []


def _numbered(system: str, value: str) -> str:
    return f"{printable(value, 60)} of {printable(system, 60)}"


def _who(item: ValidatedRecord) -> str:
    return " or ".join(
        [
            *(printable(name, 60) for name in item.patients),
            *(_numbered(*key) for key in as_named_today(item.identifiers)),
        ]
    )

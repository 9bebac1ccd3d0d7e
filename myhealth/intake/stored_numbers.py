"""Give records the numbers under which their check-ups are or were stored, if they came under others.

All functions work within the transaction that stores the batch.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from myhealth.checkups.models import JSON_NAMES, select_list
from myhealth.intake.content import (
    TEMPORARY,
    UNKNOWN,
    Content,
    came_with,
    holds_results,
    is_other_sample,
    is_same,
    is_version,
    keyed,
    results_in,
    said_text,
)
from myhealth.intake.insert import STORED_NAMES, StoredRow, find_known, find_stored
from myhealth.intake.originals import find_deleted_of, find_originals_at
from myhealth.intake.record import decode_json, encode_json
from myhealth.intake.results import Pending, RecordKey
from myhealth.intake.settlement import BY_RESULT, PARTIAL, content_of, content_of_row, encoded, find_contents

FIND_AT = f"""
select machine_id, record_id, {select_list(STORED_NAMES)} from checkups
where patient_id = any(%s) and taken_at = any(%s) and record_id is not null"""
# The end of the record_id of a further order of one number (#2); how many orders of one number are looked up.
ORDER, ORDERS_MAX = re.compile(r"#[0-9]{1,5}$"), 32
# So many equal values of a patient's day are no second measurement.
MANY = 3


def split_rounds(rows: Sequence[Pending], format_: str) -> Iterator[list[Pending]]:
    """Yield the records in parts, of which each must find the ones before it: those of different HL7 messages that may
    be of one order, though they have other numbers."""
    if format_ != PARTIAL:
        yield [*rows]
        return
    several = {_number_of(*row.key) for row in rows if ORDER.search(str(row.record.record_id))}
    parts, counts = defaultdict[int, list[Pending]](list), Counter[Any]()
    for row in rows:
        key: Any = _number_of(*row.key)
        is_first = key == row.key  # of its message: the others have a #
        if row.item.parsed.unnumbered and row.record.taken_at:
            key, is_first = (row.patient_id, row.machine_id, row.record.taken_at, row.record.checkup_type), True
        elif key not in several:
            key, is_first = None, False
        counts[key] += is_first
        parts[max(counts[key] - 1, 0)].append(row)
    for place in sorted(parts):
        yield parts[place]


def find_numbers(cursor: Any, rows: Sequence[Pending], format_: str) -> bool:
    """Give records the numbers under which their check-ups are or were stored, if the records came under others. Return
    whether there are any."""
    if format_ not in BY_RESULT:
        return False
    before = [row.key for row in rows]
    if format_ == PARTIAL:
        _find_new_orders(cursor, rows)
    _find_sent_again(cursor, [row for row in rows if row.item.parsed.unnumbered], is_message=format_ == PARTIAL)
    return before != [row.key for row in rows]


def _find_new_orders(cursor: Any, rows: Sequence[Pending]) -> None:
    """Give a new record of a further order (F1#2) the number of the check-up that has its results under another order:
    a message may number the orders of one sample differently than before."""
    further = [row for row in rows if ORDER.search(str(row.record.record_id))]
    known = find_known(cursor, further) if further else set()
    new = [row for row in further if row.key not in known]
    first = find_stored(cursor, [_numbers_of(row)[0] for row in new]) if new else {}
    new = [row for row in new if _numbers_of(row)[0] in first]
    ordered = {row.key: _order_of(content_of(row, None)) for row in rows} if new else {}
    for row, orders in _find_orders(cursor, new):
        sent, own = content_of(row, None), ordered[row.key]
        same = [key for key, (each, _) in orders.items() if ordered.get(key) != own and holds_results(each, sent)]
        if len(same) == 1:
            row.record.record_id = same[0][1]


def _find_sent_again(cursor: Any, rows: Sequence[Pending], *, is_message: bool) -> None:
    """Give records without a lasting number that of the check-up which has their content, order and moment, or had it
    before it was corrected or deleted here, or is another version of it: they came in another envelope. `is_message`:
    they may be versions of each other."""
    known = find_known(cursor, rows) if rows else set()
    timed = [row for row in rows if row.key not in known and row.record.taken_at]
    timed = [row for row in timed if row.record.taken_precision in (None, "day")]
    if not timed:
        return
    cursor.execute(FIND_AT, ([*{row.patient_id for row in timed}], [*{row.record.taken_at for row in timed}]))
    names = ("machine_id", "record_id", *STORED_NAMES)
    held: dict[tuple[Any, ...], list[Content]] = {}
    ids: dict[int, int] = {}
    for values in cursor.fetchall():
        stored: StoredRow = dict(zip(names, values, strict=True))
        content = content_of_row(stored)
        ids[id(content)] = stored["id"]
        held.setdefault(_occasion(stored["patient_id"], stored["machine_id"], content), []).append(content)
    originals = find_originals_at(
        cursor, [row for row in timed if not row.record.taken_precision or _count(row) >= MANY]
    )
    of_day = _find_equal_of_day([row for row in timed if row.record.taken_precision], held)
    read = said_text if is_message else _lasting_text  # only a Bundle has addresses for a time
    texts = {id(each): read(each) for every in held.values() for each in every}
    for row in timed if held or originals or is_message else ():
        content = content_of(row, None)
        text = texts[id(content)] = read(content)
        others = held.setdefault(_occasion(row.patient_id, row.machine_id, content), [])
        is_day = row.record.taken_precision is not None
        same = [other for other in others if not is_day and texts[id(other)] == text]
        same = [of_day[row.id]] if row.id in of_day else same
        if not same and len(others) == 1:
            sent, only = (content, *others) if is_message else map(_lasting, (content, *others))
            is_one = is_message or _has_number_of(sent, only)
            same = others if is_one and is_version(sent, only, marked=not is_message, later=is_day) else []
        if not same and is_message and others:
            versions = find_contents(cursor, [ids[id(each)] for each in others if id(each) in ids])
            former = [[content for _, content in versions.get(ids.get(id(each), 0), ())] for each in others]
            both = zip(others, former, strict=True)
            same = [each for each, before in both if _came_before(content, each, before, is_day=is_day)][:1]
        if same:
            row.record.record_id = same[0]["record_id"]
            if not is_message:
                _take_addresses(row, content, same[0])
        elif name := originals.get(row.id):
            row.record.record_id = name
        elif is_message:
            others.append(content)


def _find_equal_of_day(rows: Sequence[Pending], held: Mapping[Any, Sequence[Content]]) -> dict[int, Content]:
    """Return by the rows' ids the check-ups that are sent again, for rows of a day without a time. An equal content may
    be a second measurement of the day, unless it was issued at the same instant, or MANY values of the patient are
    equal."""
    found: dict[int, tuple[Content, Content]] = {}
    used, counts = set[int](), Counter[Any]()
    texts = {id(each): _lasting_text(each) for every in held.values() for each in every} if rows else {}
    for row in rows:
        sent = content_of(row, None)
        others, text = held.get(_occasion(row.patient_id, row.machine_id, sent), ()), _lasting_text(sent)
        left = (each for each in others if id(each) not in used and texts[id(each)] == text)
        if other := next(left, None):
            used.add(id(other))
            found[row.id] = sent, other
            counts[row.patient_id, sent["taken_at"]] += _count(row)
    return {
        row.id: found[row.id][1]
        for row in rows
        if row.id in found
        if counts[row.patient_id, row.record.taken_at] >= MANY or _is_issued_with(*found[row.id])
    }


def _came_before(sent: Content, stored: Content, former: Sequence[Content], *, is_day: bool) -> bool:
    """Return whether a check-up has, or had, all values of a record. Of a day without a time that tells only if other
    messages changed it: an equal value may be a second measurement."""
    return any(came_with(each, sent) for each in ((stored, *former) if former or not is_day else ()))


def _is_issued_with(sent: Content, stored: Content) -> bool:
    return sent["issued_at"] is not None and sent["issued_at"] == stored["issued_at"]


def _count(row: Pending) -> int:
    return len(results_in(content_of(row, None)))


def _take_addresses(row: Pending, sent: Content, stored: Content) -> None:
    """Copy the addresses of a stored check-up to another version of it, or all to a record with the same content."""
    lasting = _lasting(sent), _lasting(stored)
    ours, theirs = (
        dict(zip((key for key, _ in keyed(results_in(each))), results_in(whole), strict=True))
        for each, whole in zip(lasting, (sent, stored), strict=True)
    )
    names = {
        str(ours[key]["sub_id"]): theirs[key]["sub_id"] for key in ours.keys() & theirs.keys() if "sub_id" in ours[key]
    }
    parsed = row.item.parsed
    parsed.entries = {place: names.get(number, number) for place, number in parsed.entries.items()}
    if is_same(*lasting):
        for name in JSON_NAMES:
            setattr(row.record, name, encoded(stored[name]))
    else:
        results = [
            {**each, **({"sub_id": names.get(each["sub_id"], each["sub_id"])} if "sub_id" in each else {})}
            for each in results_in(sent)
        ]
        row.record.results = encode_json(results).decode()


def _has_number_of(sent: Content, stored: Content) -> bool:
    """Return whether two records have one number, but for the ids of their resources and temporary addresses."""
    numbers = [str(each["record_id"]) for each in (sent, stored)]
    return numbers[0].partition("#")[0] == numbers[1].partition("#")[0]


def _occasion(patient_id: int, machine_id: int | None, content: Content) -> tuple[Any, ...]:
    return patient_id, machine_id, content["taken_at"], content["taken_precision"], _order_of(content)


def _lasting(content: Content) -> Content:
    """Return a content with one address in place of those that a Bundle gives its resources for a time."""
    found: Content = decode_json(TEMPORARY.sub("urn:uuid:", encode_json(content).decode()))
    return {**found, "taken_at": content["taken_at"]}


def _lasting_text(content: Content) -> str:
    """Return what a content says as text, with one address in place of those that `_lasting` replaces."""
    return TEMPORARY.sub("urn:uuid:", said_text(content))


def find_known_orders(cursor: Any, rows: Sequence[Pending], found: dict[RecordKey, StoredRow]) -> set[int]:
    """Give each record the number of its own order's check-up, if a message numbers its orders differently than before.
    (Orders that share a number are numbered in sequence.) Return the ids of the records that may belong to several.

    The code tells which order it is, then the moment, then the results. A record of none of the stored orders may be of
    one that was deleted here, and gets its number. `found`: the stored check-ups of the records' numbers; this function
    adds to it.
    """
    moved = [row for row in rows if row.key not in found or not _is_order(content_of_row(found[row.key]), row)]
    deleted = find_deleted_of(cursor, {row.patient_id for row in moved}) if moved else []
    unclear = set()
    for row, orders in _find_orders(cursor, moved):
        gone = [each for each in deleted if each[0] not in orders and _number_of(*each[0]) == _number_of(*row.key)]
        same = _of_order(content_of(row, None), {key: each for key, (each, _) in orders.items()})
        key = next((key for key, first in gone if first.is_same(row)), None)
        if key is None and gone and not same and (row.key in orders or row.key not in found):
            key = gone[0][0]
        if key is None and len(same) == 1:
            key, found[same[0]] = same[0], orders[same[0]][1]
        if key:
            row.record.record_id = key[1]
        elif same and row.key not in same:
            unclear.add(row.id)
    return unclear


def _is_order(stored: Content, row: Pending) -> bool:
    sent = content_of(row, None)
    return _order_of(stored) == _order_of(sent) and _is_at_moment(stored, sent) and _shares_results(stored, sent)


def _of_order(sent: Content, orders: Mapping[RecordKey, Content]) -> list[RecordKey]:
    """Return which of several orders of one number a record may belong to."""
    same = {key: each for key, each in orders.items() if _order_of(each) == _order_of(sent)}
    for tells in (_is_at_moment, _shares_results):
        same = {key: each for key, each in same.items() if tells(each, sent)} or same
    return [*same]


def _is_at_moment(stored: Content, sent: Content) -> bool:
    return sent["taken_precision"] == UNKNOWN or sent["taken_at"] in (None, stored["taken_at"])


def _shares_results(stored: Content, sent: Content) -> bool:
    codes = [{key[0] for key, _ in keyed(results_in(each))} for each in (stored, sent)]
    return not codes[0].isdisjoint(codes[1])


def _find_orders(
    cursor: Any, rows: Sequence[Pending]
) -> Iterator[tuple[Pending, dict[RecordKey, tuple[Content, StoredRow]]]]:
    """Yield each record with the stored check-ups of the orders under its number, of the same patient and sample."""
    wanted = {row.id: _numbers_of(row) for row in rows}
    stored = find_stored(cursor, [key for keys in wanted.values() for key in keys]) if wanted else {}
    for row in rows:
        sent = content_of(row, None)
        orders: dict[RecordKey, tuple[Content, StoredRow]] = {}
        for key in wanted[row.id]:
            if key in stored and stored[key]["patient_id"] == row.patient_id:
                content = content_of_row(stored[key])
                if not is_other_sample(content, sent, same_patient=True):
                    orders[key] = content, stored[key]
        yield row, orders


def _numbers_of(row: Pending) -> list[RecordKey]:
    """Return the numbers that the orders of a record's number may have: F1, F1#2, F1#3 and so on."""
    _, base = _number_of(*row.key)
    names = (base, *(f"{base}#{place}" for place in range(2, ORDERS_MAX)), str(row.record.record_id))
    return [(row.machine_id, name) for name in dict.fromkeys(names)]


def _number_of(machine_id: int | None, record_id: str | None) -> tuple[int | None, str]:
    """Return the number that an order shares with others of its sample."""
    return machine_id, ORDER.sub("", str(record_id))


def _order_of(content: Content) -> tuple[Any, ...]:
    """Return what was ordered: the code of the order, else its name."""
    codings = (content["details"] or {}).get("codings") or [{}]
    return (codings[0].get("system"), codings[0]["code"]) if "code" in codings[0] else (content["checkup_type"],)

"""Decide whether a record is the stored check-up of its number again, or a later or an earlier version of it. Pure.

Contents and the identity of results: content.py.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from myhealth.clinical import status
from myhealth.clinical.absent_reasons import NOT_SENT_AGAIN
from myhealth.clinical.status import WITHDRAWN
from myhealth.clinical.unit_sizes import was_not_taken
from myhealth.intake.components import (
    says_all,
    settle_components,
    settle_left,
    with_notice,
    with_parts_of,
    without_notice,
)
from myhealth.intake.content import (
    ENVELOPE,
    LATER,
    UNKNOWN,
    Content,
    came_with,
    differing,
    has_value,
    is_same,
    keyed,
    later,
    matched,
    moment_json,
    moment_order,
    numbers_in,
    renumbered,
    results_in,
    same_result,
    sign,
    status_order,
    updated_moment,
    version_order,
    with_previous,
)
from myhealth.intake.result_match import by_code, by_number

Facts = dict[str, Any]
MOMENT = ("taken_at", "taken_precision", "taken_until")


class Merge(Struct):
    """What a record does to the stored check-up.

    `effect`: none, replaced, withdrawn, or "" if the contents differ and it is not known which is later. `content`: the
    columns afterwards. `notes`: (field, message, code) for the answer. `places`: the fields that differ.
    """

    content: Content
    effect: str = "none"
    notes: list[tuple[str, str, str]] = []
    places: list[str] = []


def merge(
    stored: Content,
    sent: Content,
    *,
    by_result: bool = False,
    partial: bool = False,
    legacy: bool = False,
    earlier: Sequence[Content] = (),
) -> Merge:
    """Return what the record does to the check-up.

    `by_result`: its format has a status for each result, so results that the record lacks stay. `partial`: even an
    earlier message may have results that no later one has. `legacy`: the check-up was stored by an earlier release, so
    of two equal statuses the record's is later. `earlier`: the check-up's earlier versions.
    """
    if is_same(plain := without_notice(stored), sent):
        return Merge(stored) if plain is stored else Merge(plain, "replaced")
    if _is_withdrawn_whole(sent):
        return _withdraw(stored, sent)
    if sent["status"] == WITHDRAWN:  # each of its results is withdrawn, but others may remain
        sent = {**sent, "status": None if stored["status"] == WITHDRAWN else stored["status"]}
    is_emptied = stored["status"] == WITHDRAWN and not _is_withdrawn_whole(stored)  # by the deletion of its results
    order = compare_versions(sent, {**stored, "status": None} if is_emptied and not partial else stored) or int(legacy)
    if _is_withdrawn_whole(stored) and version_order(sent, stored) <= 0:
        return Merge(stored, notes=[WAS_WITHDRAWN])
    if order < 0 and _is_resumed(sent, stored) and not any(came_with(each, sent) for each in earlier):
        order = 1
    if not by_result:
        return _replace_whole(stored, sent, order)
    if order < 0 and not partial:
        return Merge(stored, notes=[EARLIER])
    return _ResultMerge(stored, sent, order, partial, legacy, earlier).run()


def _is_resumed(new: Content, old: Content) -> bool:
    """Return whether a result (or a record) with a value follows a cancelled one without a value, and only its status
    makes it seem older."""
    is_result = "details" not in new
    values = [not each.get("absent_reason") if is_result else has_value(each) for each in (new, old)]
    moved = later(new, old, "updated_at") or later(new, old, "issued_at") if is_result else moment_order(new, old)
    return (
        values == [True, False]
        and old["status"] == "cancelled"
        and new["status"] not in ("cancelled", WITHDRAWN)
        and not version_order(new, old)
        and moved >= 0
    )


WAS_WITHDRAWN = ("status", "its source withdrew it; this earlier version is not shown", "withdrawn")
STILL_SHOWN = ("order_status", "it is cancelled, but its results are not withdrawn: they are still shown", "cancelled")
SHOWN = ("final", *status.CORRECTED)
EARLIER = ("record_id", "a later version is stored; this earlier one changes nothing", "earlier_version")


def compare_versions(new: Content, old: Content) -> int:
    """Return 1 if `new` is the later version, -1 if the earlier one, 0 if neither is certain.

    The source's own number of its version decides, else the status, else the moment of the change.
    """
    return (
        version_order(new, old) or status.compare_status(new.get("status"), old.get("status")) or moment_order(new, old)
    )


class _ResultMerge:
    """The merge of a record result by result. `order`: of the whole record."""

    def __init__(
        self, stored: Content, sent: Content, order: int, partial: bool, legacy: bool, earlier: Sequence[Content]
    ) -> None:
        self.stored, self.sent, self.order, self.partial, self.legacy = stored, sent, order, partial, legacy
        self.earlier = [dict(keyed(_expanded_results(each))) for each in earlier]
        self.counts: Counter[str] = Counter()
        self.unclear: list[str] = []
        self.notes: list[tuple[str, str, str]] = []
        self.changed: list[str] = []
        self.left: list[str] | None = None

    def run(self) -> Merge:
        results = dict(keyed(_expanded_results(self.stored)))
        before = [key for key, each in results.items() if each["status"] != WITHDRAWN]
        sent = matched(_expanded_results(self.sent), [*results.values()])
        if not self.partial:
            stored = {**self.stored, "record_id": self.sent["record_id"]}
            sent = by_number(sent, numbers_in(self.sent), results, numbers_in(stored))
            sent, dropped = settle_components(stored, self.sent, sent, results)
        else:
            sent, dropped = by_code(sent, results, self._without_original(results)), {}
        repeated = any(key in results and same_result(new, results[key]) for key, new in sent)
        for place, (key, new) in enumerate(sent):
            if key is None:
                self.unclear.append(f"results[{place}]")
            elif key not in results and self.partial and self._came_before(key, new):
                self.counts["earlier"] += 1  # a later version of it has come under another sub_id
            else:
                results[key] = self._settle(key, new, results.get(key), f"results[{place}]")
        self.counts["withdrawn"] += len(dropped)
        self.notes += dropped.values()
        mentioned = {*dropped, *(key for key, _ in sent)}
        if says_all(self.sent, self.order, partial=self.partial, repeated=repeated):
            left = [key for key in before if key not in mentioned]
            self.left, notes = settle_left(self.stored, left, results)
            self.counts["withdrawn"] += len(left) - len(self.left)
            self.notes += notes
        content = self._columns(whole=mentioned.issuperset(before))
        if not self.counts["later"] + self.counts["withdrawn"] and not self.unclear:
            self._judge_columns(content, whole=mentioned.issuperset(before))
        if self.unclear:
            return Merge(self.stored, "", places=self.unclear)
        facts = shared_facts(content)
        content["results"] = [_compacted(each, facts) for each in results.values()]
        return self._verdict(content, results)

    def _settle(self, key: tuple[Any, ...], new: Content, old: Content | None, place: str) -> Content:
        """Return the stored result or the record's, whichever counts; count which one it was."""
        if old is not None and new.get("absent_reason") == NOT_SENT_AGAIN:
            said = {
                name: each for name, each in new.items() if each is not None and name not in ("value", "absent_reason")
            }
            new = {**old, **said}
        if old is None:
            self.counts["withdrawn" if new["status"] == WITHDRAWN else "later"] += 1
            return new
        if same_result(new, old) or old["status"] == new["status"] == WITHDRAWN:
            return old
        order = self._order(key, new, old)
        if order < 0 and old["status"] == WITHDRAWN:
            self.notes.append(WAS_WITHDRAWN)
        if order > 0:
            withdrawn = new["status"] == WITHDRAWN
            self.counts["withdrawn" if withdrawn else "later"] += 1
            self.changed.append(str(old.get("name")))
            at = new.get("updated_at") or datetime.now(UTC).isoformat(timespec="seconds")
            kept = {"number": old["number"]} if "number" in old else {}
            new = {"identifiers": old["identifiers"], **new} if "identifiers" in old else new
            # Of a withdrawn result the source need not repeat the value.
            return {**old, **new} if withdrawn else {**with_previous(new, old, at), **kept}
        if order == 0:
            self.unclear.append(place)
        self.counts["earlier"] += 1
        return old

    def _order(self, key: tuple[Any, ...], new: Content, old: Content) -> int:
        """Return 1 if the record's result is later than the stored one, -1 if earlier, 0 if that is not certain."""
        order = version_order(new, old) or version_order(self.sent, self.stored)
        moved = later(new, old, "updated_at") or later(new, old, "issued_at")
        reissued = moved > 0 and new["status"] in status.CORRECTED
        came = any(key in each and each[key]["status"] == new["status"] == WITHDRAWN for each in self.earlier)
        if came and self.partial and not order and (self._changed() or moved) < 0:
            return -1  # the value that is stored now came behind this withdrawal
        if old["status"] == WITHDRAWN and reissued and self.partial and not order:  # corrected after its withdrawal
            return 1 if self._changed() > 0 or not self._came_before(key, new, of_any_status=True) else -1
        if old["status"] == WITHDRAWN and new["status"] != WITHDRAWN and self.partial and self._changed() > 0:
            return -1 if self._came_before(key, new, of_any_status=True) else 1  # a new value in its place
        if not order and was_not_taken(old.get("absent_reason")) and not new.get("absent_reason"):
            return 1  # it says its unit in one way now
        if not order and _is_resumed(new, old):
            return -1 if self._came_before(key, new, of_any_status=True) else 1
        order = order or status_order(new["status"], old["status"])
        if order:
            return order
        order = moved or later(new, old, "taken_at") or int(self.legacy)
        if order > 0 and self.partial and not reissued and self._changed() <= 0 and self._came_before(key, new):
            return -1  # an old message in a new envelope
        return order

    def _without_original(self, results: Mapping[tuple[Any, ...], Content]) -> set[Any]:
        """Return the codes of which only corrections and withdrawals have come; none if the record is later."""
        told = [(key[0], each["status"] in LATER) for found in (results, *self.earlier) for key, each in found.items()]
        return {code for code, _ in told} - {code for code, is_later in told if not is_later or self._changed() > 0}

    def _changed(self) -> int:
        """Compare when the source changed the two reports (OBR-22): 1, 0 or -1. The time of sending (MSH-7) does not
        show that: an old message may be sent again."""
        return sign(self.sent["issued_at"], self.stored["issued_at"])

    def _came_before(self, key: tuple[Any, ...], new: Content, *, of_any_status: bool = False) -> bool:
        found = [each[key] for each in self.earlier if key in each]
        return any(same_result(new, {**each, "status": new["status"]} if of_any_status else each) for each in found)

    def _columns(self, *, whole: bool) -> Content:
        """Return the columns that count. `whole`: the record mentions every result of the check-up."""
        later = self.order > 0 or (self.order == 0 and bool(self.counts["later"]))
        if whole and later:
            return {**self.sent, "record_id": self.stored["record_id"]}
        if self.left is not None and not self.partial:
            details = with_parts_of(self.sent["details"] or {}, self.stored["details"] or {}, self.left)
            return {**self.sent, **{name: self.stored[name] for name in ("record_id", "sent")}, "details": details}
        content = dict(self.stored)
        if status_order(self.sent["status"], self.stored["status"]) > 0 or self.stored["status"] == WITHDRAWN:
            content["status"] = self.sent["status"]
        content["checkup_report"] = self._report() if self.counts else self.stored["checkup_report"]
        content["details"] = self._details() if later else self.stored["details"]
        return content

    def _report(self) -> str:
        """Return the report with the record's lines in place of those about results that changed."""
        changed = tuple(f"{name}:" for name in self.changed)
        kept = [line for line in self.stored["checkup_report"].splitlines() if not line.startswith(changed)]
        return "\n".join(dict.fromkeys([*kept, *self.sent["checkup_report"].splitlines()]))

    def _details(self) -> Any:
        """Return the details with the record's version and further notes."""
        ours, theirs = self.stored["details"] or {}, self.sent["details"] or {}
        found = {**ours, **{name: theirs[name] for name in ENVELOPE if name in theirs}}
        notes = [*ours.get("notes", ())]
        notes += [each for each in theirs.get("notes", ()) if each not in notes]
        if self.left is not None:
            notes = with_notice(notes, self.left)
        return ({**found, "notes": notes} if notes else found) or None

    def _judge_columns(self, content: Content, *, whole: bool) -> None:
        """Note whether the columns beside the results are earlier, later, or different in an unknown order."""
        if self.counts["earlier"] or self.order < 0:
            self.counts["earlier"] += 1
            return
        told = self.sent if whole else content
        names = [name for name in differing(told, self.stored) if name != "results"]
        if self.order > 0:
            self.counts["later"] += bool(names)
        else:
            self.unclear += names

    def _verdict(self, content: Content, results: Mapping[Any, Content]) -> Merge:
        withdrawn = [each for each in results.values() if each["status"] == WITHDRAWN]
        if withdrawn and len(withdrawn) == len(results):
            content["status"] = WITHDRAWN
        notes = self.notes[:1] or ([EARLIER] if self.counts["earlier"] else [])
        if not self.counts["later"] + self.counts["withdrawn"]:
            return Merge(self.stored, notes=notes)
        shown = any(not each.get("absent_reason") for each in results.values() if each["status"] in SHOWN)
        if content["status"] == "cancelled" != self.stored["status"] and shown:
            notes = [*notes, STILL_SHOWN]
        return Merge(content, "replaced" if self.counts["later"] else "withdrawn", notes)


def _withdraw(stored: Content, sent: Content) -> Merge:
    if _is_withdrawn_whole(stored):
        return Merge(stored)
    if version_order(sent, stored) < 0:
        return Merge(stored, notes=[EARLIER])
    details = {**(stored["details"] or {}), **{n: v for n, v in (sent["details"] or {}).items() if n in ENVELOPE}}
    return Merge({**stored, "status": WITHDRAWN, "details": details or None}, "withdrawn")


def _replace_whole(stored: Content, sent: Content, order: int) -> Merge:
    """Return what a whole record does to the stored one. It replaces the stored one only if it names its own status or
    version, and is not known to be earlier."""
    says = sent["status"] is not None or any(name in (sent["details"] or {}) for name in ENVELOPE) or sent["issued_at"]
    effect = "replaced"
    if not says or order == 0:
        order, effect = _order_of_results(sent, stored)
        if order == 0:
            return Merge(stored, "", places=differing(stored, sent))
    if order < 0:
        return Merge(stored, notes=[EARLIER])
    gone = {"status": WITHDRAWN} if stored["status"] == WITHDRAWN else {}
    results = corrected(results_in(sent), [each | gone for each in results_in(stored)], updated_moment(sent))
    is_withdrawn = bool(results) and all(each.get("status") == WITHDRAWN for each in results)
    status_now = WITHDRAWN if is_withdrawn else sent["status"]
    return Merge({**sent, "status": status_now, "results": results}, effect)


def _order_of_results(sent: Content, stored: Content) -> tuple[int, str]:
    """Return 1 if the results that differ are later by their own status or version, -1 if they are earlier, else 0; and
    the effect. Return 0 too if another column differs, or if the sets of results differ."""
    new, old = dict(keyed(results_in(sent))), dict(keyed(results_in(stored)))
    if {*differing(stored, sent)} - {"status"} != {"results"} or new.keys() != old.keys():
        return 0, ""
    pairs = [(new[key], old[key]) for key in new if not same_result(new[key], old[key])]
    orders = {_own_order(one, other, sent["status"]) for one, other in pairs}
    withdrawn = all(one.get("status") == WITHDRAWN for one, _ in pairs)
    return orders.pop() if len(orders) == 1 else 0, "withdrawn" if withdrawn else "replaced"


def _own_order(new: Content, old: Content, of_record: str | None) -> int:
    statuses = (new.get("status") or of_record, old.get("status") or of_record)
    return version_order(new, old) or status_order(*statuses) or later(new, old, "updated_at")


def corrected(results: list[Any], before: list[Any], at: str | None) -> list[Any]:
    """Return results with the numbers and values of those that they replace. `at`: when, by default now."""
    at = at or datetime.now(UTC).isoformat(timespec="seconds")
    known = dict(keyed(before))
    made = [with_previous(new, known[key], at) if key in known else new for key, new in keyed(results)]
    return renumbered(made, before)


def _is_withdrawn_whole(content: Content) -> bool:
    """Return whether the source withdrew the record itself, not only each of its results."""
    results = results_in(content)
    return content["status"] == WITHDRAWN and not (results and all(each.get("status") == WITHDRAWN for each in results))


def shared_facts(content: Content) -> Facts:
    """Return the facts that a check-up states for all results without their own, in the form of a result's fields."""
    details = content["details"] or {}
    moment = content["taken_at"] if content["taken_precision"] != UNKNOWN else None
    until = content["taken_until"]
    issued = content["issued_at"]
    found = {
        "issued_at": issued and moment_json(issued),
        "taken_at": moment and moment_json(moment),
        "taken_precision": content["taken_precision"] if moment else None,
        "taken_until": until and moment_json(until),
        "status": content["status"] or "final",
        **{name: details.get(name) for name in ("specimen", "performers", "updated_at")},
    }
    return {name: value for name, value in found.items() if value is not None}


def _expanded_results(content: Content) -> list[Content]:
    facts = shared_facts(content)
    return [_expanded(each, facts) for each in results_in(content)]


def _expanded(result: Content, facts: Facts) -> Content:
    """Return a result with the facts that its check-up states for all."""
    inherited = {name: value for name, value in facts.items() if not (name in MOMENT and result.get("taken_at"))}
    return {**inherited, **{name: value for name, value in result.items() if value is not None or name not in facts}}


def _compacted(result: Content, facts: Facts) -> Content:
    """Return a result without the facts that its check-up states for all."""
    kept = dict(result)
    if all(result.get(name) == facts.get(name) for name in MOMENT):
        kept = {name: value for name, value in kept.items() if name not in MOMENT}
    for name in facts.keys() - set(MOMENT):
        if kept.get(name) == facts[name] and kept[name] != WITHDRAWN:
            kept.pop(name, None)
    return kept

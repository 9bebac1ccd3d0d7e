"""Group the segments of an HL7 v2 message into records: an OBR with its segments and those of its patient.

Source: HL7 v2.8, chapter 7 (ORU^R01, OUL^R22) and chapter 2 (segment groups).
"""

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.formats.terminology import FieldError

# A private segment in the text of a stored record: ZMH|2|R means that its OBR was the second of the message, and that
# an earlier OBR had the same order number. Needed to rebuild the record_id when the record is read alone.
PLACE = re.compile("ZMH.([0-9]{1,9}).(R?)")


class OrderGroup(Struct, eq=False):
    """The segments of one record. `head`: those of the message and the patient; `number`: the position of its OBR in
    the message, from 1; `order`: the order number, of OBR, else of ORC, which is the same; `repeated`: an earlier OBR
    of the message has the same order number."""

    head: list[Segment]
    body: list[Segment]
    number: int
    obr: Segment | None = None
    order: str = ""
    repeated: bool = False
    faults: list[FieldError] = []
    warnings: list[tuple[str, ...]] = []
    _named: dict[str, list[Segment]] = {}

    def all(self, name: str) -> Sequence[Segment]:
        """Return the segments of this name in the body, which must not change any more."""
        if not self._named:
            for segment in self.body:
                self._named.setdefault(segment.name, []).append(segment)
        return self._named.get(name, ())


def order_number(segments: Iterable[Segment]) -> str:
    """Return the order number that the segments of a group name: the filler's (OBR-3), else the placer's (OBR-2), with
    the assigning authority; "" if there is none."""
    for segment in segments:
        for place in (3, 2):
            if segment.text(place):
                return "^".join(filter(None, (segment.text(place), segment.text(place, 2))))
    return ""


def find_groups(segments: list[Segment]) -> list[OrderGroup]:
    """Return the groups of a message, one for each OBR, or for OBX segments without one.

    A specimen (SPM) belongs to the OBR before it; in messages that begin with it (OUL^R22), to those behind it. An ORC
    belongs to the OBR behind it, and to further ones that have no number of their own.
    """
    common: list[Segment] = []
    patient: list[Segment] = []
    specimen: list[Segment] = []
    names = [segment.name for segment in segments]
    led = next((name for name in names if name in ("SPM", "OBR", "OBX")), "") == "SPM"
    groups: list[OrderGroup] = []
    waiting: list[Segment] | None = None  # an ORC, and what follows it, before its OBR
    control: Segment | None = None  # the last ORC before an OBR
    inside, place = False, None
    opens = _opening(names) if "ORC" in names else []
    head: list[Segment] | None = None  # common and patient; orders share one list
    for i, segment in enumerate(segments):
        if segment.name == "PID":
            patient = [*_without_orders(patient, groups, segment), segment]
            specimen, waiting, inside, head, control = [], None, False, None, None
        elif led and segment.name == "SPM":
            specimen, waiting, inside, head, control = [segment], None, False, None, None
        elif (
            segment.name == "ZMH" and not groups and not waiting and (found := _find_rack_segment(segments[i : i + 2]))
        ):
            place = found
        elif segment.name == "OBR" or (segment.name == "OBX" and not inside):
            head = head or [*common, *patient, *specimen]
            obr = segment if segment.name == "OBR" else None
            if control and obr and not waiting and not (obr.text(2) or obr.text(3)):
                waiting = [control]
            groups.append(OrderGroup(head, [*(waiting or []), segment], len(groups) + 1, obr))
            if place:
                groups[-1].number, groups[-1].repeated = int(place[1]), bool(place[2])
            waiting, inside, place = None, True, None
        elif segment.name == "ORC" and (not inside or opens[i]):
            waiting, inside, control = [segment], False, segment
        elif waiting is not None:
            waiting.append(segment)
        elif inside:
            groups[-1].body.append(segment)
        else:
            (specimen or patient or common).append(segment)
            head = None
    return _mark_repeated(groups)


def _without_orders(patient: list[Segment], groups: list[OrderGroup], other: Segment) -> list[Segment]:
    """Return the segments of a patient of whom no order came before the PID of another one: the next order may be of
    either."""
    has_orders = groups and any(each is patient[0] for each in groups[-1].head) if patient else True
    return [] if has_orders or patient[0].fields[2:4] == other.fields[2:4] else patient


def repeated_bytes(groups: list[OrderGroup]) -> int:
    """Return the length of the segments before the orders, counted for each order: the text of each record has them."""
    sizes = {
        id(head): sum(len(segment.raw) for segment in head) for head in {id(g.head): g.head for g in groups}.values()
    }
    return sum(sizes[id(each.head)] + (len(each.body[0].raw) if each.body[0].name == "ORC" else 0) for each in groups)


def _find_rack_segment(segments: list[Segment]) -> re.Match[str] | None:
    """Return the match of a ZMH segment if a group begins after it. `segments`: the two."""
    if segments[-1].name not in ("ORC", "OBR", "OBX"):
        return None
    return PLACE.fullmatch(segments[0].encoding.field.join(segments[0].fields))


def _opening(names: list[str]) -> list[bool]:
    """Return for each segment, by their names, whether an ORC in its place belongs to the next OBR. In some messages
    (OUL^R22) an ORC follows its own OBR."""
    found, opens = [], False
    for name in reversed(names):
        found.append(opens)
        if name in ("OBR", "OBX", "PID"):
            opens = name == "OBR"
    return found[::-1]


def _mark_repeated(groups: list[OrderGroup]) -> list[OrderGroup]:
    """Mark groups whose order number is used before: laboratories give several OBRs the number of one sample."""
    seen: set[str] = set()
    for group in groups:
        order = group.order = order_number((*group.all("OBR"), *group.all("ORC")))
        group.repeated = group.repeated or (bool(order) and order in seen)
        seen.add(order)
    return groups


def text_of(group: OrderGroup) -> str:
    """Return the message without its other groups; reading it gives this group again."""
    mark = group.head[0].encoding.field
    placed = group.repeated or (group.number > 1 and not group.order)
    place = [f"ZMH{mark}{group.number}{mark}{'R' if group.repeated else ''}".encode()] if placed else []
    parts = [*(segment.raw for segment in group.head), *place, *(segment.raw for segment in group.body), b""]
    return b"\r".join(parts).decode("utf-8", "surrogateescape")

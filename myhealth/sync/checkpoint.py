"""The mark: how far the report store has come, kept in MongoDB beside the data that it describes. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from myhealth.reports.documents import FORM

FEEDS = ("tombstones", "users", "checkups")
TABLES = ("users", "checkups")
ID_MAX = 2**63 - 1
# So long after a pass that did not end by itself, whatever it still had on its way may yet arrive.
RECHECK = timedelta(hours=1)


@dataclass(frozen=True)
class History:
    """Which history of which cluster transaction ids belong to; in another one they come a second time.

    `tables`: the object ids of the database and its tables, which change when a dump is loaded over them, and a hash of
    what guards them, which changes when triggers were off.
    """

    system_identifier: str
    timeline: int
    tables: str


@dataclass(frozen=True)
class Position:
    """A place in a feed: everything up to this (transaction id, row id) has been taken over."""

    xid: int = 0
    id: int = 0


@dataclass(frozen=True)
class Recheck:
    """What a pass that did not end by itself may have undone: deletions since `tombstones` are carried out again until
    `until`, for a write of that pass may arrive late; `sweep`: so is the removal of earlier epochs."""

    tombstones: Position
    until: datetime
    sweep: bool


@dataclass(frozen=True)
class Checkpoint:
    """`phase` scan: tables are read by id, `scanned` says how far; follow: feeds are read from `feeds` on; steady:
    the same, and nothing of an earlier epoch is left. `horizon`: where the feeds begin once the scan is done.
    `last_checkup_id`: the highest check-up id stored, for people. `witness`: a row that PostgreSQL has since before
    the mark moved last; without it, it was set back. `run`: whose pass it is; `finished`: it has ended by itself;
    `began`: where the deletions stood when it began. `store`: which collections it is about; one that was dropped and
    made anew is another. `form`: the form that its documents have (documents.FORM)."""

    history: History
    epoch: int
    phase: str
    horizon: int
    witness: str
    scanned: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))
    feeds: dict[str, Position] = field(default_factory=lambda: dict.fromkeys(FEEDS, Position()))
    last_checkup_id: int = 0
    run: str = ""
    finished: bool = True
    began: Position = Position()
    recheck: Recheck | None = None
    store: str = ""
    form: int = FORM

    def begun(self, run: str, now: datetime) -> Checkpoint:
        """A further pass. What an earlier one that did not end by itself may have undone is to be checked again."""
        recheck = self.recheck
        if not self.finished:
            since = min(
                [self.began, *([recheck.tombstones] if recheck else [])], key=lambda place: (place.xid, place.id)
            )
            recheck = Recheck(since, now + RECHECK, self.phase != "steady" or bool(recheck and recheck.sweep))
        elif recheck is not None and recheck.until < now:
            recheck = None
        return replace(self, run=run, finished=False, began=self.feeds["tombstones"], recheck=recheck)

    def scanning(self, table: str, position: int) -> Checkpoint:
        return replace(self, scanned={**self.scanned, table: position})

    def following(self) -> Checkpoint:
        """The scan is done: the feeds go on from the horizon that was noted before it began."""
        start = Position(self.horizon - 1, ID_MAX)
        return replace(self, phase="follow", feeds=dict.fromkeys(FEEDS, start), began=start)

    def steady(self) -> Checkpoint:
        return replace(self, phase="steady")

    def moved(self, feed: str, position: Position) -> Checkpoint:
        return replace(self, feeds={**self.feeds, feed: position})

    def covers(self, feed: str, place: Position) -> bool:
        """Whether what stands at this place of the feed has surely been taken over."""
        if self.phase == "scan":
            return place.xid < self.horizon and place.id <= self.scanned.get(feed, ID_MAX)
        reached = self.feeds[feed]
        return (place.xid, place.id) <= (reached.xid, reached.id)

    def holding(self, checkup_id: int) -> Checkpoint:
        return replace(self, last_checkup_id=max(self.last_checkup_id, checkup_id))


def to_document(mark: Checkpoint) -> dict[str, Any]:
    return asdict(mark)


def from_document(document: dict[str, Any] | None) -> Checkpoint | None:
    """The mark that a document holds; None where it holds none that this program can read."""
    try:
        known = {"form": 1, **document}  # type: ignore[dict-item] # the first form was not told
        fields = {name: known[name] for name in Checkpoint.__dataclass_fields__}
        recheck = fields["recheck"]
        fields |= {
            "history": History(**fields["history"]),
            "feeds": {name: Position(**fields["feeds"][name]) for name in FEEDS},
            "scanned": {name: int(fields["scanned"][name]) for name in TABLES},
            "began": Position(**fields["began"]),
            "recheck": recheck and _recheck(**recheck),
        }
        return Checkpoint(**fields)
    except (TypeError, KeyError, ValueError):
        return None


def _recheck(tombstones: dict[str, Any], until: Any, sweep: bool) -> Recheck:
    """`until` is text where the mark came over HTTP."""
    moment = datetime.fromisoformat(until) if isinstance(until, str) else until
    return Recheck(Position(**tombstones), moment, sweep)


def epoch_ended(
    mark: Checkpoint | None, history: History, next_xid: int, witnessed: bool, store: str | None = None
) -> str:
    """Why a new epoch must begin, or nothing. `next_xid`: the first transaction id that is not given out yet.
    `witnessed`: PostgreSQL has the mark's witness. `store`: the collections that are there now, where it is known."""
    if mark is None:
        return "there is no mark"
    if mark.history.system_identifier != history.system_identifier:
        return "it is another PostgreSQL cluster"
    if mark.history.timeline != history.timeline:
        return "PostgreSQL's history has branched (a restore or a failover)"
    if mark.history.tables != history.tables:
        return "the tables were made anew, or their triggers were off"
    if mark.form != FORM:
        return "the documents have the form of another version of MyHealth"
    if max(mark.horizon - 1, *(position.xid for position in mark.feeds.values())) >= next_xid:
        return "the mark lies in PostgreSQL's future"
    if not witnessed:
        return "PostgreSQL was set back to before the last pass"
    if store is not None and mark.store != store:
        return "collections of the report store were dropped or made anew"
    return ""

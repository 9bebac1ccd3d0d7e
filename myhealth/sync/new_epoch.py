"""How an epoch begins, and what keeps a wrong source from emptying the report store."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from myhealth.common.errors import SettingsError
from myhealth.reports.epochs import FIRST_ID, newest_epoch
from myhealth.sync.checkpoint import Checkpoint, History, last_epoch, to_document
from myhealth.sync.rows import KINDS
from myhealth.sync.source import Source

if TYPE_CHECKING:
    from myhealth.sync.targets import Target

log = logging.getLogger(__name__)

# If the source is another system, a sync may remove this share of the documents without `expected`.
REMOVED_SHARE = 0.1


def check_removals(
    source: Source, target: Target, found: Checkpoint | None, history: History, expected: int | None = None
) -> None:
    """Raise SettingsError if more documents would go than `expected`; by default, than a tenth, if it is another
    system.

    A restore of the same system loses few documents, or does not count as another system. A database_url that names,
    say, a test system has rows of other people, and would empty the report store.
    """
    is_other = found is not None and found.history.system != history.system
    if expected is None and not is_other:
        return
    missing = stored = 0
    for table, kind in KINDS.items():
        after = FIRST_ID
        while documents := target.list_subjects(kind, after):
            stored, after = stored + len(documents), documents[-1][0]
            missing += source.count_missing(table, documents)
    if missing > (stored * REMOVED_SHARE if expected is None else expected):
        filled = found.history.system if found is not None else "an unknown database"
        raise SettingsError(
            f"{missing:,} of the report store's {stored:,} documents would go: {filled} has filled it, and database_url"
            f" is {history.system}",
            hint="look at database_url and mongo_url; if both are right:"
            f" myhealth sync --once --restart --expect-removals {missing}",
        )


def begin_epoch(source: Source, target: Target, found: Checkpoint | None, reason: str) -> Checkpoint:
    """Begin an epoch: read the horizon before anything is scanned, because what the scan cannot see comes by the feeds.

    The checkpoint's witness is younger than the horizon. So a server that still has the witness after a crash gives out
    no transaction id below the horizon again.
    """
    store = target.prepare()
    # A write never replaces a newer epoch, and the documents may be newer than the checkpoint.
    epoch = max(last_epoch(found), newest_epoch(target)) + 1
    if epoch > 1:
        log.warning("sync begins epoch %s, reading everything anew: %s", epoch, reason)
    target.defer_index()
    state = source.state(source.insert_witness())
    checkpoint = Checkpoint(state.history, epoch, "scan", state.horizon, source.insert_witness(), store=store)
    target.begin(to_document(checkpoint))
    return checkpoint

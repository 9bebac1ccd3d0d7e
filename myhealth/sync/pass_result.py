"""The result of one pass of the sync. Pure."""

from dataclasses import dataclass, field
from typing import Any

from myhealth.reports.writer import QuarantinedDocument, WriteResult

QUARANTINED_SHOWN = 100


@dataclass
class Pass:
    """The result of one pass.

    `quarantined`: the first documents that MongoDB refused; `quarantined_count`: all of them. `last_checkup_id`: the
    highest check-up id stored. `locked_out`: another runner is at work and this pass did nothing. `begun`: both stores
    have answered.
    """

    read: int = 0
    written: int = 0
    unchanged: int = 0
    removed: int = 0
    quarantined_count: int = 0
    quarantined: list[QuarantinedDocument] = field(default_factory=list)
    last_checkup_id: int = 0
    epoch: int = 0
    new_epoch: str = ""
    secs: float = 0.0
    locked_out: bool = False
    begun: bool = False

    def line(self) -> str:
        """Return one log line with fixed keys."""
        return (
            f"sync read={self.read} written={self.written} unchanged={self.unchanged} removed={self.removed}"
            f" failed={self.quarantined_count} mark={self.last_checkup_id} secs={self.secs:.2f}"
        )

    def figures(self) -> dict[str, Any]:
        """Return the figures that `sync_pass` stores in PostgreSQL; scripts read these names."""
        figures = {"read": self.read, "written": self.written, "unchanged": self.unchanged, "removed": self.removed}
        return {**figures, "failures": self.quarantined_count, "new_epoch": self.new_epoch}

    def add(self, rows: int, result: WriteResult) -> None:
        """Add the result of one batch of rows."""
        self.read += rows
        self.written += result.written
        self.unchanged += result.unchanged
        self.removed += result.removed
        self.quarantined_count += len(result.quarantined)
        self.quarantined = [*self.quarantined, *result.quarantined][:QUARANTINED_SHOWN]

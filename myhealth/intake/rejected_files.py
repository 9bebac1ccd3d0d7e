"""Files of rejected records in the format they came in, ready to be corrected and imported again."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from myhealth.common.errors import BadInput
from myhealth.intake.formats.format import Dump
from myhealth.intake.parsed_record import ParsedRecord


class RejectedFile:
    """A file that is created when the first record is added; closing it writes its end."""

    def __init__(self, path: Path, dump: Dump) -> None:
        """Raises BadInput if the file exists: it may contain corrections that are not imported yet."""
        if path.exists():
            raise BadInput(f"{path} is there already; move it away first, it may hold what is not imported yet")
        self.path = path
        self._dump = dump
        self._file: BinaryIO | None = None

    def add(self, parsed: ParsedRecord) -> None:
        """Raises BadInput if it cannot be written."""
        layout = self._dump.format.write_rejected(self._dump)
        with self._writing():
            if self._file is None:
                self._file = self.path.open("xb")
                self._file.write(layout.before)
            else:
                self._file.write(layout.between)
            self._file.write(layout.encode(parsed))

    def close(self) -> None:
        """Raises BadInput if it cannot be written."""
        if self._file is not None:
            with self._writing(), self._file as file:
                file.write(self._dump.format.write_rejected(self._dump).after)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BadInput(f"{self.path} cannot be written: {error.strerror or error}") from error

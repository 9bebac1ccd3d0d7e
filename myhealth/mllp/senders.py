"""Which machine sends: by its address, or by what it calls itself (MSH-3 and MSH-4)."""

from __future__ import annotations

import csv
from collections.abc import Iterable

from myhealth.common.addresses import is_trusted, parse_networks
from myhealth.common.errors import BadInput, SettingsError
from myhealth.machines.services import serial_fault


class Senders:
    """The serials of machines by sender. `always`: the serial of whoever sends, if given."""

    def __init__(self, always: str = "") -> None:
        if always and (fault := serial_fault(always)):
            raise BadInput(fault)
        self._always = always
        self._names: dict[str, str] = {}
        self._networks: list[tuple[str, str]] = []

    def add(self, sender: str, serial: str) -> None:
        """Add a machine. `sender`: an address, a network, APPLICATION or APPLICATION@FACILITY. Raises BadInput."""
        if not sender or (fault := serial_fault(serial)):
            raise BadInput(fault if sender else "a sender is needed")
        try:
            parse_networks(sender)
        except SettingsError:
            if self._names.setdefault(sender, serial) != serial:
                raise BadInput(f"{sender} is mapped twice") from None
        else:
            self._networks.append((sender, serial))

    def serial(self, address: str, application: str, facility: str) -> str:
        """Return the serial of a sender's machine, "" if none is known: by its names, else by its address."""
        named = self._names.get(f"{application}@{facility}") or self._names.get(application)
        found = (serial for network, serial in self._networks if is_trusted(address, network))
        return named or next(found, "") or self._always


def read_senders(lines: Iterable[str], always: str = "") -> Senders:
    """Read CSV with the columns `sender` and `machine`; see `Senders.add`. Raises BadInput naming the line."""
    senders = Senders(always)
    rows = csv.reader(lines, strict=True)
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if rows.line_num == 1 and cells != ["sender", "machine"]:
                raise BadInput("the header must be sender,machine")
            if rows.line_num > 1 and any(cells):
                senders.add(cells[0], cells[1] if len(cells) == 2 else "")
    except (csv.Error, BadInput) as error:
        raise BadInput(f"line {rows.line_num}: {error}") from error
    return senders

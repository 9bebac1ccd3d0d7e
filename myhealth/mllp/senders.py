"""Which machine sends: by its address, or by what it calls itself (MSH-3 and MSH-4), which anybody can write."""

from collections.abc import Iterable

from myhealth.common.addresses import is_trusted, parse_networks
from myhealth.common.errors import BadInput, SettingsError
from myhealth.machines.services import serial_fault


class Senders:
    """The serials of machines by sender. `given`: SENDER=SERIAL, where the sender is an address, a network, MSH-3 or
    MSH-3@MSH-4; or SERIAL, for all others. Raises BadInput."""

    def __init__(self, given: Iterable[str] = ()) -> None:
        self._names: dict[str, str] = {}
        self._networks: dict[str, str] = {}
        for text in given:
            sender, _, serial = text.rpartition("=")
            if fault := serial_fault(serial):
                raise BadInput(f"{text!r}: {fault}")
            known = self._networks if _is_network(sender) else self._names
            if known.setdefault(sender, serial) != serial:
                raise BadInput(f"{text!r}: the sender has another machine already")

    def serial(self, address: str, application: str, facility: str) -> str:
        """Return the serial of a sender's machine, "" if none is known: by its address, else by its names."""
        by_address = (serial for network, serial in self._networks.items() if is_trusted(address, network))
        named = self._names.get(f"{application}@{facility}") or (application and self._names.get(application))
        return next(by_address, "") or named or self._names.get("", "")

    def is_elsewhere(self, serial: str) -> bool:
        """Return whether only other addresses speak for a machine that a message names."""
        return serial in self._networks.values()


def _is_network(sender: str) -> bool:
    try:
        return bool(parse_networks(sender))
    except SettingsError:
        return False

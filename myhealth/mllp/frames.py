"""Find the frames of MLLP in a stream of bytes. Pure.

Source: HL7 Minimal Lower Layer Protocol, release 1: a frame is VT, the message, FS, CR.
"""

VT, FS = b"\x0b", b"\x1c"
BLANK = b"\r\n \t\0"  # between two frames nobody means anything by them


class FrameTooLong(Exception):
    """A frame is longer than allowed. `start`: its beginning."""

    def __init__(self, start: bytes) -> None:
        self.start = start


class Frames:
    """The frames of one connection. Senders differ: the CR behind FS may be missing, and a VT before FS means that the
    sender began anew.

    `is_open`: a frame has begun and has not ended. `stray`: the number of bytes so far outside of whole frames, which
    are passed over.
    """

    def __init__(self, frame_max: int) -> None:
        self.is_open = False
        self.stray = 0
        self._max = frame_max
        self._data = bytearray()
        self._searched = 0

    def __len__(self) -> int:
        """Return the number of bytes that are kept."""
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Add what has come in."""
        self._data += data

    def take(self) -> bytes | None:
        """Return the next message, without its frame; None if more has to come in. Raises FrameTooLong."""
        while self.is_open or self._open():
            end = self._data.find(FS, self._searched)
            is_whole, end = end >= 0, end if end >= 0 else len(self._data)
            again = self._data.rfind(VT, self._searched, end)
            if again >= 0:
                self.stray += len(self._cut(again))
                continue
            self._searched = end
            if end > self._max:
                raise FrameTooLong(bytes(self._data[: self._max]))
            self.is_open = not is_whole
            return self._cut(end) if is_whole else None
        return None

    def _open(self) -> bool:
        """Pass over what comes before the next frame. Return whether there is one."""
        start = self._data.find(VT)
        self.is_open = start >= 0
        self.stray += len(self._cut(start if self.is_open else len(self._data)).strip(BLANK))
        return self.is_open

    def _cut(self, end: int) -> bytes:
        """Remove the bytes up to `end`, and the mark there; return them."""
        taken = bytes(self._data[:end])
        del self._data[: end + 1]
        self._searched = 0
        return taken

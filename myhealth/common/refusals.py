"""Sum equal refusals of one minute, so that a flood of them fills neither the audit trail nor the log."""

import hashlib
import threading
import time

from myhealth.common.addresses import network_of

DETAILS_PER_GROUP = 10
GROUPS_MAX = 10_000


class MinuteTexts:
    """The texts of the current minute, in groups. Thread-safe; each process has its own."""

    def __init__(self) -> None:
        self._minute, self._groups = 0, dict[str, set[str]]()
        self._lock = threading.Lock()

    def add(self, group: str, text: str = "") -> str:
        """Add the text to its group; return `new`, `known` from earlier in this minute, or `full` if it is not kept."""
        minute = int(time.time() // 60)
        with self._lock:
            if minute != self._minute:
                self._minute, self._groups = minute, {}
            if group not in self._groups and len(self._groups) >= GROUPS_MAX:
                return "full"
            texts = self._groups.setdefault(group, set())
            if text in texts:
                return "known"
            if len(texts) >= DETAILS_PER_GROUP:
                return "full"
            texts.add(text)
            return "new"

    def clear(self) -> None:
        with self._lock:
            self._groups = {}


refusal_details = MinuteTexts()


def refusal_key(who: object, what: str, detail: str, address: str | None) -> bytes:
    """Return the digest that equal refusals of this minute share: the same caller, action, detail and network.

    `detail`: text from the caller, such as a path. In each process, the first ten details of a caller, action and
    network get keys of their own, and all further details share one key, so that a caller cannot create many keys.
    """
    group = repr((who, what, network_of(address)))
    kept = refusal_details.add(group, detail) != "full"
    minute = int(time.time() // 60)
    return hashlib.sha256(repr((minute, group, kept, detail if kept else "")).encode()).digest()

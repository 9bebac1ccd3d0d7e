"""What ends the sync's wait for a PostgreSQL that hangs: neither its driver nor TCP does, if the host answers."""

import contextlib
import logging
import threading
from collections.abc import Collection, Iterator
from typing import Any

from myhealth.common.database_watch import NoAnswer, ask, break_connection
from myhealth.common.errors import MyHealthError

log = logging.getLogger(__name__)
# A server under load may be slow; a pass is no request that somebody waits for.
ASK_EVERY_S, ANSWER_S = 10.0, 20.0


@contextlib.contextmanager
def broken_if_hanging(url: str, connections: Collection[Any]) -> Iterator[None]:
    """Within the block, ask the server every ten seconds over a connection of its own; without an answer, break the
    connections, so that who waits for them gets an error."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(ASK_EVERY_S):
            try:
                ask(url, "select true", ANSWER_S)
            except NoAnswer as error:
                log.warning("%s; the sync's connections are broken", error.message)
                for connection in tuple(connections):
                    break_connection(connection)
            except MyHealthError:
                pass  # it says no, so the connections end by themselves

    thread = threading.Thread(target=watch, name="sync watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()

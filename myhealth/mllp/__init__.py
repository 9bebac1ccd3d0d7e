"""HL7 v2 over MLLP: take messages from analyzers over TCP, store them, acknowledge them.

needs: common, audit, machines, intake
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of connections.

    `allow`: the addresses and networks that may send, with commas between them. `message_max`: bytes of a message.
    `idle_s`: from one message to the next; `frame_s`: from the beginning of a message to its end.
    """

    allow: str = "127.0.0.0/8,::1"
    message_max: int = 16 * 1024 * 1024
    idle_s: float = 3600.0
    frame_s: float = 60.0

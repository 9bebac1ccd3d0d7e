"""Types that msgspec converts to and decodes."""

from typing import Any

import msgspec


def prepare(*types: Any) -> None:
    """Have msgspec work out types of ours. Call it where they are defined, so while their module is imported.

    Otherwise it works a type out when it first needs it, and two threads that do so at once crash the process (seen
    with msgspec 0.22).
    """
    for each in types:
        msgspec.json.Decoder(each)

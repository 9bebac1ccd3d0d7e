"""What a source withdrew stays stored, so that an earlier version does not bring it back, and is not shown. Pure."""

import msgspec

from myhealth.clinical.status import WITHDRAWN

_decode = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def shown_results(text: str) -> str:
    """Return results, as JSON, without withdrawn ones; the others keep their number and every digit."""
    if WITHDRAWN not in text:
        return text
    try:
        results = _decode(text)
    except msgspec.MsgspecError:  # another program stored results of another form
        return text
    kept = []
    for place, result in enumerate(results, 1):
        if bytes(result.get("status", b"")) != f'"{WITHDRAWN}"'.encode():
            kept.append({**result, "number": result.get("number", msgspec.Raw(str(place).encode()))})
    return text if len(kept) == len(results) else msgspec.json.encode(kept).decode()

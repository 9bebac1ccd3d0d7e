"""Numbers that keep the digits with which they were written. Pure."""

from decimal import Decimal

# The range of BSON's and PostgreSQL's 64-bit integers.
INT_MIN, INT_MAX = -(2**63), 2**63 - 1


def exact_number(text: str) -> float | Decimal:
    """Parse a JSON number exactly: 5.1 as a float, 5.10 as a Decimal, because the float would print as 5.1.

    Raises ValueError or decimal.InvalidOperation if the text is not a number.
    """
    value = float(text)
    return value if repr(value) == text else Decimal(text)


def whole_number(value: object) -> object:
    """Return a number such as 3.0 as the integer that it is in JSON Schema, and anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value

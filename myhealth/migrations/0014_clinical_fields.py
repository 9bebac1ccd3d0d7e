"""Fields of a check-up: status, precision, offset and end of its moment, when it was issued, details, what was sent."""

from typing import Any

COLUMNS = {
    "status": "text",
    "taken_precision": "text",
    "taken_offset": "integer",
    "taken_until": "timestamptz",
    "issued_at": "timestamptz",
    "details": "jsonb",
    "sent": "jsonb",
}


def up(migrator: Any, db: Any) -> None:
    added = ", ".join(f"add column {name} {type_}" for name, type_ in COLUMNS.items())
    db.cursor().execute(f"alter table checkups {added}")


def down(migrator: Any, db: Any) -> None:
    db.cursor().execute(f"alter table checkups {', '.join(f'drop column {name}' for name in COLUMNS)}")

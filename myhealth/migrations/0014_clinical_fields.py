"""Fields of a check-up: status, precision, offset and end of its moment, when it was issued, details, what was sent."""

from myhealth.migrations import run_sql

COLUMNS = {
    "status": "text",
    "taken_precision": "text",
    "taken_offset": "integer",
    "taken_until": "timestamptz",
    "issued_at": "timestamptz",
    "details": "jsonb",
    "sent": "jsonb",
}

up = run_sql(f"alter table checkups {', '.join(f'add column {name} {type_}' for name, type_ in COLUMNS.items())}")
down = run_sql(f"alter table checkups {', '.join(f'drop column {name}' for name in COLUMNS)}")

"""erased_digests: keyed digests of the names and of the machine records of erased people; nothing else of them is kept.

By these, a name is not given out again unnoticed and a record that a machine sends again is refused. `keyed_digest` is
HMAC-SHA256 (RFC 2104) of its arguments as JSON. Its random key is kept here, not derived from `secret_key`, so that the
command line on a host without that computes the same digests. `erasure_key` holds the key's two padded forms.
"""

import secrets
from typing import Any

from myhealth.migrations import run_sql

UP = """
create table erased_digests (
    kind text not null check (kind in ('name', 'record')),
    digest bytea not null,
    at timestamptz not null default now(),
    primary key (kind, digest)
);
create table erasure_key (
    one boolean primary key default true check (one),
    inner_key bytea not null,
    outer_key bytea not null
);
create function keyed_digest(variadic parts text[]) returns bytea language sql stable as $$
    select sha256(outer_key || sha256(inner_key || convert_to(to_json(parts)::text, 'UTF8'))) from erasure_key
$$;
"""
BLOCK_BYTES = 64


def up(migrator: Any, db: Any) -> None:
    key = secrets.token_bytes(32).ljust(BLOCK_BYTES, b"\0")
    pads = (bytes(byte ^ pad for byte in key) for pad in (0x36, 0x5C))
    db.cursor().execute(UP)
    db.cursor().execute("insert into erasure_key (inner_key, outer_key) values (%s, %s)", (*pads,))


down = run_sql("drop function keyed_digest(text[]); drop table erasure_key, erased_digests")

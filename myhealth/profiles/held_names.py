"""The names of a user, and the time in which each of them was nobody else's: rows by name without an id are the user's
only then. Renamed accounts leave names that others take."""

from collections import defaultdict
from typing import Any

from psycopg2.extras import DateTimeTZRange

from myhealth.common.database import fetch_all
from myhealth.common.text import fold_name
from myhealth.profiles.models import User

HeldNames = dict[str, list[DateTimeTZRange]]
# The condition for a row without an id. Parameters: what `find_spellings` returns.
BY_NAME = (
    "exists (select from unnest(%(names)s::text[], %(held)s::tstzrange[]) as mine (name, span)"
    " where name = {} and at <@ span)"
)
# Raw SQL: spans of time and JSON.
RENAMES = """
select event.subject_id, event.subject, event.at from audit_events event join users on users.id = event.subject_id
where (linked_at is not null or users.id = %s) and action = 'user.change' and details->>'changed' like 'username %%'
order by event.id"""
HOLDERS = """
select id, folded_name, created_at from users
where id = %(me)s or id = any(%(ids)s) or (folded_name = any(%(names)s) and linked_at is not null)"""
OLDEST_EVENT = """
select at from audit_events where id > 1 and not exists (select from audit_events where id = 1) order by id limit 1"""


def find_held_names(cursor: Any, user: User) -> HeldNames:
    """Return by folded name the spans in which the user had it, the time before and after included if no other linked
    user ever had it. The spans are empty for an account that was never linked to a person, and begin with the first
    audit event that is still kept: nobody knows the names of before.
    """
    renames = [(id_, fold_name(name), at) for id_, name, at in fetch_all(cursor, RENAMES, (user.id,))]
    names = {user.folded_name, *(name for id_, name, _ in renames if id_ == user.id)}
    holders = fetch_all(cursor, HOLDERS, {"me": user.id, "ids": [id_ for id_, *_ in renames], "names": [*names]})
    since = {id_: created_at for id_, _, created_at in holders}
    spans = []
    for id_, name, at in renames:
        spans.append((name, id_, since[id_], at))
        since[id_] = at
    spans += [(name, id_, since[id_], None) for id_, name, _ in holders]
    first = next((at for (at,) in fetch_all(cursor, OLDEST_EVENT)), None)
    found = defaultdict(list)
    for name, id_, start, end in spans:
        if id_ == user.id:
            others = [begun for other, holder, begun, _ in spans if other == name and holder != user.id]
            begin = max(filter(None, (start if any(each < start for each in others) else None, first)), default=None)
            until = end if any(each >= start for each in others) else None
            found[name].append(DateTimeTZRange(begin, until, empty=user.linked_at is None))
    return dict(found)


def find_taken(cursor: Any, user: User, names: HeldNames) -> set[str]:
    """Return those of the names that another linked user has now."""
    sql = "select folded_name from users where folded_name = any(%s) and id <> %s and linked_at is not null"
    return {name for (name,) in fetch_all(cursor, sql, ([*names], user.id))}

"""users.folded_name: the name by which a user is found, folded by MyHealth itself; PostgreSQL's locale does not matter.

users.linked_at: when staff or an import linked the account to a person; records for an account without it are rejected.
Existing accounts are linked; those that registered themselves have needs_review. Of two users whose names are the same
now, the later one gets its id behind the name, and neither is linked until it is reviewed.
"""

import logging
import unicodedata
from typing import Any

from myhealth.migrations import run_sql

UP = """
alter table users add column folded_name text, add column linked_at timestamptz,
    add column needs_review boolean not null default false;
-- For writers that do not fold: ASCII is exact, other names are as near as PostgreSQL comes.
create function users_fold() returns trigger language plpgsql as $$
begin
    if octet_length(new.username) = length(new.username) then
        new.folded_name := lower(new.username collate "C");
    else
        new.folded_name := coalesce(new.folded_name, lower(normalize(new.username, nfkc)));
    end if;
    return new;
end $$;
create trigger users_fold before insert or update of username on users for each row execute function users_fold();
alter table users enable always trigger users_fold;
drop index users_username_key;
"""
FILL = """
update users set username = filled.username, folded_name = filled.folded, needs_review = filled.unsure or exists (
        select from audit_events where action = 'register' and outcome = 'done' and subject_id = users.id
            and at >= users.created_at - interval '1 minute'),
    linked_at = case when not filled.unsure then created_at end
from unnest(%s::bigint[], %s::text[], %s::text[], %s::boolean[]) as filled (id, username, folded, unsure)
where users.id = filled.id
"""
RENAMED = """
insert into audit_events (actor, action, subject_id, subject, outcome, details)
values ('myhealth migrate', 'user.change', %s, %s, 'done', jsonb_build_object('changed', 'username ' || %s))
"""
DONE = """
alter table users alter column folded_name set not null;
create unique index users_folded_name_key on users (folded_name);
"""
DOWN = """
drop trigger users_fold on users;
drop function users_fold();
create unique index users_username_key on users (lower(username));
alter table users drop column folded_name, drop column linked_at, drop column needs_review;
"""
log = logging.getLogger(__name__)


def fold(name: str) -> str:
    """Fold as `myhealth.common.text.fold_name` did when this migration was written."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return folded.replace("i\u0307", "i")


def up(migrator: Any, db: Any) -> None:
    cursor = db.cursor()
    cursor.execute(UP)
    cursor.execute("select id, username from users order by id")
    rows = cursor.fetchall()
    taken = {fold(username) for _, username in rows}
    holders: dict[str, int] = {}
    names: dict[int, str] = {}
    unsure: set[int] = set()
    for id_, name in rows:
        names[id_] = name
        if holders.setdefault(fold(name), id_) != id_:
            unsure |= {id_, holders[fold(name)]}
            names[id_] = f"{name}-{id_}"
            while fold(names[id_]) in taken:
                names[id_] += "-"
            cursor.execute(RENAMED, (id_, name, names[id_]))
            log.warning("users %s and %s have the same name; review both", holders[fold(name)], id_)
        taken.add(fold(names[id_]))
    columns = ([*names], [*names.values()], [*map(fold, names.values())], [id_ in unsure for id_ in names])
    cursor.execute(FILL, columns)
    cursor.execute(DONE)


down = run_sql(DOWN)

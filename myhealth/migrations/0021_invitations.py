"""invitations: the code with which a person sets a password; one of each user, as a keyed digest.

A trigger ends it with a new password, a new role, or the end of the account, whichever program writes that. The trigger
has its owner's rights, so that it works for roles that have no rights here yet.
"""

from myhealth.migrations import run_sql

UP = """
create table invitations (
    user_id bigint primary key references users on delete cascade,
    digest bytea not null,
    created_at timestamptz not null default now()
);
create index invitations_created_at on invitations (created_at);
create function users_end_invitation() returns trigger language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp as $$
begin
    delete from public.invitations where user_id = new.id;
    return null;
end $$;
create trigger users_end_invitation after update on users for each row
    when (new.password_hash is distinct from old.password_hash or new.role <> old.role or not new.active)
    execute function users_end_invitation();
alter table users enable always trigger users_end_invitation;
"""
DOWN = """
drop trigger users_end_invitation on users;
drop function users_end_invitation();
drop table invitations
"""

up = run_sql(UP)
down = run_sql(DOWN)

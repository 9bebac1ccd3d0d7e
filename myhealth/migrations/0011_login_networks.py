"""login_attempts: the user's id if there is such a user, and whether the check has ended. refusals: counts of equal
ones.

From here on, `address` holds the network. `refusals`: how many equal refusals of one minute share one audit event; old
rows are deleted, as old events are.
"""

from myhealth.migrations import run_sql

UP = """
alter table login_attempts add column user_id bigint references users on delete cascade;
alter table login_attempts add column finished boolean not null default true;
update login_attempts set user_id = users.id, username = ''
    from users where kind = 'login' and users.folded_name = login_attempts.username;
create index login_attempts_user on login_attempts (user_id, at);
create table refusals (
    key bytea primary key,
    event_id bigint not null unique,
    count integer not null default 1,
    at timestamptz not null default now()
);
create index refusals_at on refusals (at);
"""
DOWN = """
drop table refusals;
update login_attempts set username = users.folded_name from users where users.id = user_id;
alter table login_attempts drop column user_id, drop column finished
"""

up = run_sql(UP)
down = run_sql(DOWN)

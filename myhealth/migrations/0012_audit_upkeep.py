"""audit_upkeep(): the only way to change or remove an audit event, for erasure and for retention.

The append-only trigger stays on; it lets a statement pass only within this function, which runs as the table's owner.
The function removes no event younger than 31 days, and renames no person who still has an account. A role that may add
events may call it. It replaces `spellings` of the name within details too, `identifiers` only as whole subjects.
"""

from myhealth.migrations import run_sql

UP = r"""
create function audit_upkeep(
    expired timestamptz, most integer, person bigint default null, spellings text[] default '{}',
    identifiers text[] default '{}'
) returns bigint language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp as $$
declare
    pseudonym text := 'erased user ' || person;
    word text := (select string_agg(regexp_replace(each, '([^[:alnum:]])', '\\\1', 'g'), '|' order by length(each) desc)
                  from unnest(spellings) as each);
    subjects text[] := spellings || identifiers;
    touched bigint := 0;
begin
    if not has_table_privilege(session_user, 'public.audit_events', 'insert') then
        raise exception 'permission denied for audit_events' using errcode = 'insufficient_privilege';
    end if;
    perform set_config('myhealth.audit_upkeep', 'on', true);
    if expired > (select at from public.audit_events order by id limit 1) then
        delete from public.audit_events where at < least(expired, now() - interval '31 days') and id in (
            select id from public.audit_events order by id limit most);
        get diagnostics touched = row_count;
    end if;
    if exists (select from public.users where id = person) then
        raise exception 'user % still has an account', person using errcode = 'integrity_constraint_violation';
    end if;
    word := '(?<![[:alnum:]_-])(?<![[:alnum:]_][.@])(?:' || word || ')(?![[:alnum:]_-]|[.@][[:alnum:]_])';
    if person is not null then
        update public.audit_events set
            subject = case when subject_id = person or subject = any(subjects) then pseudonym else subject end,
            actor = case when actor_id = person or actor = any(spellings) then pseudonym else actor end,
            address = case when actor_id = person or actor = any(spellings) then null else address end,
            details = (select coalesce(jsonb_object_agg(key, case when jsonb_typeof(value) = 'string'
                           then to_jsonb(regexp_replace(value #>> '{}', word, pseudonym, 'gi')) else value end), '{}')
                       from jsonb_each(details))
        where subject_id = person or actor_id = person or subject = any(subjects) or actor = any(spellings)
            or details::text ~* word;
        get diagnostics touched = row_count;
    end if;
    perform set_config('myhealth.audit_upkeep', 'off', true);
    return touched;
end $$;
create or replace function audit_events_stay() returns trigger language plpgsql as $$
begin
    if tg_op <> 'TRUNCATE' and current_setting('myhealth.audit_upkeep', true) = 'on'
            and current_user = (select pg_get_userbyid(relowner) from pg_class where oid = tg_relid) then
        return null;
    end if;
    raise exception 'audit events are only ever added' using errcode = 'integrity_constraint_violation';
end $$;
create index rejections_resolved on rejections (resolved_at) where resolved_at is not null;
"""
DOWN = """
create or replace function audit_events_stay() returns trigger language plpgsql as $$
begin
    raise exception 'audit events are only ever added' using errcode = 'integrity_constraint_violation';
end $$;
drop index rejections_resolved;
drop function audit_upkeep(timestamptz, integer, bigint, text[], text[]);
"""

up = run_sql(UP)
down = run_sql(DOWN)

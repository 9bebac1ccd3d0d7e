"""audit_upkeep() with checks: only roles that may erase can call it, and it finds rows by name only in given spans.

Its first five arguments are those of migration 12. `held`: for each of the `spellings`, the span in which it was the
person's name. By name it finds only rows without an id. A name that a linked user has now is refused. Roles that may
delete rejections, as erasure and retention do, may call it; others need a grant by hand.
"""

from importlib import import_module

from myhealth.migrations import run_sql

UP = r"""
drop function audit_upkeep(timestamptz, integer, bigint, text[], text[]);
create function audit_upkeep(
    expired timestamptz, most integer, person bigint default null, spellings text[] default '{}',
    identifiers text[] default '{}', held tstzrange[] default '{}'
) returns bigint language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp as $$
declare
    pseudonym text := 'erased user ' || person;
    word text := (select string_agg(regexp_replace(each, '([^[:alnum:]])', '\\\1', 'g'), '|' order by length(each) desc)
                  from unnest(spellings) as each);
    touched bigint := 0;
begin
    if exists (select from public.users where id = person or (linked_at is not null and folded_name in (
            select lower(normalize(trim(each), NFKC)) from unnest(spellings || identifiers) as each))) then
        raise exception 'user % still has an account', person using errcode = 'integrity_constraint_violation';
    end if;
    perform set_config('myhealth.audit_upkeep', 'on', true);
    if expired > (select at from public.audit_events order by id limit 1) then
        delete from public.audit_events where at < least(expired, now() - interval '31 days') and id in (
            select id from public.audit_events order by id limit most);
        get diagnostics touched = row_count;
    end if;
    word := coalesce(
        '(?<![[:alnum:]_-])(?<![[:alnum:]_][.@])(?:' || word || ')(?![[:alnum:]_-]|[.@][[:alnum:]_])', 'x\A');
    if person is not null then
        update public.audit_events as event set
            subject = case when is_subject then pseudonym else event.subject end,
            actor = case when is_actor then pseudonym else event.actor end,
            address = case when is_actor then null else event.address end,
            details = case when is_subject or told then (
                select coalesce(jsonb_object_agg(key, case when jsonb_typeof(value) = 'string'
                    then to_jsonb(regexp_replace(value #>> '{}', pattern, pseudonym, 'gi')) else value end), '{}')
                from jsonb_each(event.details), lateral (select concat_ws(
                    '|', case key when 'changed' then '^username .*' end, word) as pattern) as of_key
                ) else event.details end
        from (select id, coalesce(subject_id = person, subject = any(identifiers) or exists (
                         select from unnest(spellings, held) as mine (name, span)
                         where name = subject and at <@ coalesce(span, '(,)')), false) as is_subject,
                     coalesce(actor_id = person, exists (
                         select from unnest(spellings, held) as mine (name, span)
                         where name = actor and at <@ coalesce(span, '(,)')), false) as is_actor,
                     coalesce(subject_id is null and details::text ~* word and (
                         held = '{}' or at <@ any(held)), false) as told
              from public.audit_events) as found
        where found.id = event.id and (is_subject or is_actor or told);
        get diagnostics touched = row_count;
    end if;
    perform set_config('myhealth.audit_upkeep', 'off', true);
    return touched;
end $$;
revoke execute on function audit_upkeep from public;
do $$ declare name text; begin
    for name in select rolname from pg_roles
            where rolname !~ '^pg_' and not rolsuper and has_table_privilege(oid, 'rejections', 'delete') loop
        execute format('grant execute on function audit_upkeep to %I', name);
    end loop;
end $$;
"""
FORMER = import_module("myhealth.migrations.0012_audit_upkeep").UP
DOWN = "drop function audit_upkeep; " + FORMER[: FORMER.index("create or replace")]

up = run_sql(UP)
down = run_sql(DOWN)

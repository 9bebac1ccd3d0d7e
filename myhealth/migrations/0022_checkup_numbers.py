"""checkup_numbers(record_id, results, details), and an index by it: the numbers by which FHIR resources are found.

It returns those numbers of a check-up, its results and its panels that are FHIR's, each in three forms: whole, without
its id (before #), and the id alone (after the last / or #). The index leaves out check-ups without such a number, as
those of plain dumps. It is built without a lock that stops uploads.
"""

from typing import Any

atomic = False  # an index cannot be built concurrently within a transaction; a second run begins anew
FUNCTION = """
create or replace function checkup_numbers(record_id text, results jsonb, details jsonb) returns text[]
immutable parallel safe language sql as $f$
select array(
    select distinct part
    from (select record_id where record_id ~ '[/#|]|^urn:'
          union all
          select each #>> '{}' from jsonb_path_query(results, '$[*].sub_id ? (@ like_regex "[^0-9.]")') as each
          union all
          select each #>> '{}' from jsonb_path_query(details, '$.panels[*].sub_id') as each
         ) as of_row (number),
         unnest(array[number, split_part(number, '#', 1), regexp_replace(number, '^.*[/#]', '')]) as part
    order by part)
$f$"""
# Without fastupdate: a look-up would read the pending list each time.
INDEX = """
create index concurrently checkups_numbers on checkups using gin (checkup_numbers(record_id, results, details))
with (fastupdate = off)
where record_id ~ '[/#|]|^urn:' or results @? '$[*].sub_id ? (@ like_regex "[^0-9.]")'
    or details @? '$.panels[*].sub_id'"""
DROP = "drop index concurrently if exists checkups_numbers"


def up(migrator: Any, db: Any) -> None:
    cursor = db.cursor()
    for statement in (FUNCTION, DROP, INDEX):
        cursor.execute(statement)


def down(migrator: Any, db: Any) -> None:
    cursor = db.cursor()
    for statement in (DROP, "drop function checkup_numbers(text, jsonb, jsonb)"):
        cursor.execute(statement)

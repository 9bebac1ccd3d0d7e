"""Link an account to a person, and store the records that were rejected until then."""

from collections import Counter
from collections.abc import Collection

from myhealth.common.database import transaction
from myhealth.common.errors import Conflict
from myhealth.common.text import fold_name
from myhealth.intake.retry import retry_rejection
from myhealth.profiles.models import User
from myhealth.profiles.services import link_user, names_in_rejections

# Raw SQL: conditions on JSON.
# Reasons that end when the account is linked, or existed only because it was not known then whose it is.
IS_WAITING = """resolved_at is null
and jsonb_path_query_array(errors, '$[*].code') ?|
    array['account_not_linked', 'unknown_user', 'registered_since', 'ambiguous_user', 'identifier_unconfirmed',
          'identity_conflict']"""
WAITING = f"""
select id from rejections where {IS_WAITING} and (context->'patients' ?| %s::text[] or exists (
    select from patient_identifiers where patient_id = %s
        and context->'identifiers' @> jsonb_build_array(jsonb_build_array(system, value)))) order by id"""
WAITING_FOR_NAMES = f"select jsonb_array_elements_text(context->'patients'), id from rejections where {IS_WAITING}"


def count_waiting() -> Counter[str]:
    """Return the number of rejected records that wait for an account to be linked, by its folded name."""
    with transaction() as cursor:
        cursor.execute(WAITING_FOR_NAMES)
        return Counter(name for name, _ in {(fold_name(name), id_) for name, id_ in cursor.fetchall()})


def link_patient(username: str, own_authorities: Collection[str] = ()) -> Counter[str]:
    """Link the account, and store the rejected records that waited for that; return their number by result.

    If it is interrupted, linking again goes on. Raises NotFound.
    """
    return store_waiting(link_user(username), own_authorities)


def store_waiting(user: User, own_authorities: Collection[str] = ()) -> Counter[str]:
    """Try again to store the rejected records that waited for this user's name, link or identifiers; return their
    number by result."""
    waiting = find_waiting(user)
    done: Counter[str] = Counter(accepted=0, duplicate=0, rejected=0)
    for rejection_id in waiting:
        try:
            done[retry_rejection(rejection_id, own_authorities=own_authorities).status] += 1
        except Conflict:  # another process resolved it
            continue
    return done


def find_waiting(user: User) -> list[int]:
    """Return the ids of the rejected records that wait for this user's name, link or identifiers."""
    with transaction() as cursor:
        cursor.execute(WAITING, (names_in_rejections(cursor, user), user.id))
        return [id_ for (id_,) in cursor.fetchall()]

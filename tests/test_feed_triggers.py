"""Triggers keep the change feed complete, for any writer: myhealth/README.md, "Why the sync loses nothing"."""

import io

import psycopg2
import pytest

INSERT = (
    "insert into checkups (patient_id, checkup_type, checkup_report, disease) values ((select min(id) from users),"
    " 'PULSE', 'fine', 'none') returning id"
)
ROW = "select revision, changed_in::text::bigint, updated_at from checkups where id = %s"


@pytest.fixture
def row(db, people) -> int:
    return db(INSERT)[0][0]


def tombstones(db) -> list:
    return db("select kind, row_id, revision from tombstones order by id")


def test_an_insert_carries_its_transaction(db, row: int) -> None:
    revision, xid, _ = db(ROW, row)[0]
    assert revision == 1
    assert xid < db("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint")[0][0]


@pytest.mark.parametrize("table", ["checkups", "users"])
def test_an_update_in_plain_sql_sets_all_three(db, row: int, table: str) -> None:
    before = db(f"select revision, changed_in::text::bigint, updated_at from {table} order by id limit 1")[0]
    column = "checkup_report" if table == "checkups" else "full_name"
    db(f"update {table} set {column} = 'edited', revision = 1, updated_at = '2000-01-01', changed_in = '3'")
    after = db(f"select revision, changed_in::text::bigint, updated_at from {table} order by id limit 1")[0]
    assert after[0] == before[0] + 1
    assert after[1] > before[1]
    assert after[2] > before[2]


def test_an_update_is_stamped_in_replica_mode_too(db, row: int) -> None:
    before = db(ROW, row)[0]
    db("set session_replication_role = replica")
    db("update checkups set disease = 'x' where id = %s", row)
    db("set session_replication_role = origin")
    assert db(ROW, row)[0][1] > before[1]


def test_an_insert_or_copy_that_brings_an_old_transaction_gets_its_own(db, row: int, connect) -> None:
    other = connect()
    with other, other.cursor() as cursor:
        data = io.StringIO("PULSE\tfine\tnone\t1\t5\n")
        cursor.copy_expert(
            "copy checkups (checkup_type, checkup_report, disease, patient_id, changed_in) from stdin", data
        )
        cursor.execute("insert into users (username, changed_in) values ('old', '5')")
    lowest = db("select min(changed_in)::text::bigint from (select changed_in from checkups union select changed_in"
                " from users) x")  # fmt: skip
    assert lowest[0][0] > 5


def test_a_delete_leaves_a_tombstone(db, row: int) -> None:
    db("update checkups set disease = 'x' where id = %s", row)
    db("delete from checkups where id = %s", row)
    assert tombstones(db) == [("checkup", row, 3)]


def test_a_delete_by_cascade_leaves_tombstones_of_both(db, row: int) -> None:
    patient = db("select patient_id from checkups")[0][0]
    db("delete from users where id = %s", patient)
    assert sorted(tombstones(db)) == [("checkup", row, 2), ("user", patient, 2)]


def test_a_truncate_leaves_tombstones(db, row: int) -> None:
    db("truncate checkups cascade")
    assert tombstones(db) == [("checkup", row, 2)]


def test_an_id_that_comes_back_goes_on_counting(db, row: int) -> None:
    db("update checkups set disease = 'x' where id = %s", row)
    db("delete from checkups where id = %s", row)
    again = INSERT.replace("(patient_id", "(id, patient_id").replace("((select", f"({row}, (select")
    assert db(again)[0][0] == row
    assert db(ROW, row)[0][0] > tombstones(db)[0][2]


@pytest.mark.parametrize(
    "change",
    ["update checkups set id = id + 1000", "update users set id = id + 1000", "update machines set serial = 'Y'"],
)
def test_what_documents_are_known_by_never_changes(db, row: int, connect, change: str) -> None:
    db("insert into machines (serial) values ('X')")
    other = connect()
    with pytest.raises(psycopg2.errors.IntegrityConstraintViolation), other, other.cursor() as cursor:
        cursor.execute(change)


def test_names_are_unique_whatever_their_case(db, people, connect) -> None:
    other = connect()
    with pytest.raises(psycopg2.errors.UniqueViolation), other, other.cursor() as cursor:
        cursor.execute("insert into users (username) values ('BHOLANATH')")


def test_a_record_is_known_by_its_machine_and_number_or_its_number_alone(db, people, connect) -> None:
    db("insert into machines (serial) values ('A'), ('B')")
    columns = "insert into checkups (patient_id, checkup_type, checkup_report, disease, machine_id, record_id) values"
    for machine in ("1", "2", "null"):
        db(f"{columns} (1, '', '', '', {machine}, '7')")
    for machine in ("1", "null"):
        other = connect()
        with pytest.raises(psycopg2.errors.UniqueViolation), other, other.cursor() as cursor:
            cursor.execute(f"{columns} (1, '', '', '', {machine}, '7')")

"""The report store is a replica set of three real members: the primary is killed within a pass, steps down, or loses
what it alone has; in the end both stores say the same."""

import dataclasses
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.compare import NONE, differences
from support.servers import ReplicaSet
from support.sync_processes import FILL, Writers, begun, carry_over, ended, syncing, wait_for

from myhealth.common.settings import Settings
from myhealth.embedded.mongo import Mongo
from myhealth.reports.repository import ReportRepository

pytestmark = [pytest.mark.usefixtures("people"), pytest.mark.long]


@pytest.fixture(scope="module")
def members(data_dir: Path) -> Iterator[ReplicaSet]:
    running = ReplicaSet(data_dir / "members", Mongo(data_dir).binary())
    try:
        running.begin()
        yield running
    finally:
        running.end()
        shutil.rmtree(data_dir / "members")


@pytest.fixture
def replicated(members: ReplicaSet, settings: Settings) -> Settings:
    members.wait_for_all()
    return dataclasses.replace(settings, mongo_url=members.url_of("myhealth_test"))


@pytest.fixture
def store(replicated: Settings) -> Iterator[ReportRepository]:
    """The empty report store on the replica set."""
    repository = ReportRepository.connect(replicated.mongo_url)
    repository.drop()
    repository.make_indexes()
    yield repository
    repository.close()


def test_the_primary_is_killed_within_a_pass(db, store, replicated, members: ReplicaSet) -> None:
    db(FILL, 6000)
    for _ in range(3):  # the first while everything is read anew, the others while changes are followed
        at_work = begun(store)
        with (
            Writers(replicated.database_url),
            syncing(replicated, "--once", "--verbose", MYHEALTH_SYNC_BATCH_ROWS="40") as process,
        ):
            wait_for(at_work)
            time.sleep(0.3)
            assert process.poll() is None
            primary = members.primary()
            members.signal(signal.SIGKILL, primary)
            said = ended(process)
        assert process.returncode == 0, said
        members.start(primary)
        members.wait_for_all()
        db("update checkups set checkup_report = checkup_report || '.'")
    carry_over(replicated)
    assert differences(db, store) == NONE


def test_what_the_primary_alone_has_is_not_taken_for_done(db, store, replicated, members: ReplicaSet) -> None:
    """The others hang while it goes on writing; then it dies, and they go on without what it wrote."""
    db(FILL, 6000)
    carry_over(replicated)
    for _ in range(2):
        db("update checkups set checkup_report = checkup_report || '.'")
        at_work = begun(store)
        with syncing(replicated, "--once", "--verbose", MYHEALTH_SYNC_BATCH_ROWS="40") as process:
            wait_for(at_work)
            primary = members.primary()
            others = [port for port in members.ports if port != primary]
            time.sleep(0.3)
            members.signal(signal.SIGSTOP, *others)
            time.sleep(1)
            assert process.poll() is None
            members.signal(signal.SIGKILL, primary)
            members.signal(signal.SIGCONT, *others)
            said = ended(process)
        assert process.returncode == 0, said
        assert differences(db, store) == NONE
        members.start(primary)
        members.wait_for_all()
        assert differences(db, store) == NONE


def test_the_primary_steps_down_again_and_again(db, store, replicated, members: ReplicaSet) -> None:
    with (
        syncing(replicated, "--interval", "0.1", MYHEALTH_SYNC_BATCH_ROWS="20") as process,
        Writers(replicated.database_url),
    ):
        for _ in range(4):
            time.sleep(1)
            store.client.admin.command("replSetStepDown", 5, force=True)
            members.wait_for_all()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    assert "Traceback" not in said
    carry_over(replicated)
    assert differences(db, store) == NONE

"""No log holds anything personal: a full run with faults, on servers of its own, and then every line is read."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pymongo
import pytest
from support.factories import dump, record
from support.mllp import Sender, listening, message
from support.servers import crash, running_apis

from myhealth import stores
from myhealth.common.settings import Settings, child_environ
from myhealth.embedded.mongo import Mongo
from myhealth.embedded.postgres import Postgres

pytestmark = [pytest.mark.long, pytest.mark.process]

# Every name, value and password that is used contains the one or the other; hashes and tokens begin like these.
MARK, NUMBER = "zqx", 73191
TRACES = (MARK, str(NUMBER), "$2b$", "eyJ", base64.b64encode(b"zqx").decode())
PASSWORD = f"{MARK}-correct-horse"
PEOPLE = {"zqx-one": "patient", "zqx-two": "patient", "zqx-tech": "technician", "zqx-doc": "doctor"}
REFUSED_BY_MONGODB = f"{MARK} refused"


@dataclasses.dataclass
class System:
    """Servers, both APIs and commands, whose logs are files in one folder."""

    settings: Settings
    postgres: Postgres
    mongo: Mongo
    folder: Path
    upload: str = ""
    browse: str = ""

    def run(self, *words: str, code: int = 0, data: bytes = b"") -> None:
        """Run a command. What those that cron runs write to stderr is a log; others answer a person there."""
        with (self.folder / ("cron.log" if words[0] in ("sync", "verify") else "answers.txt")).open("ab+") as log:
            command = [sys.executable, "-m", "cli", *words]
            done = subprocess.run(
                command, env=child_environ(self.settings), input=data, stdout=subprocess.PIPE, stderr=log, timeout=60
            )
            log.seek(0)
            assert done.returncode == code, (words, log.read().decode()[-1000:])

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run SQL as an operator, whose own statements are not what is tested."""
        connection = psycopg2.connect(self.settings.database_url)
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def ask(self, url: str, method: str = "GET", body: Any = None, token: str = "", **headers: str) -> tuple[int, Any]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **({"x-access-token": token} if token else {}), **headers}
        request = urllib.request.Request(url, data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if "json" in str(answer.headers["Content-Type"]) else text
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def log_in(self, name: str) -> str:
        status, found = self.ask(f"{self.upload}/login/", "POST", {"username": name, "password": PASSWORD})
        assert status == 200, found
        return str(found["token"])

    def statuses(self, url: str, token: str, *bodies: Any, method: str = "POST", **headers: str) -> list[int]:
        return [self.ask(url, method, body, token, **headers)[0] for body in bodies]

    @contextlib.contextmanager
    def blocked_upload(self, token: str, number: str) -> Iterator[tuple[Any, int]]:
        """Send a list whose second record waits for the first patient's row; yield the other session and the backend."""
        other = psycopg2.connect(self.settings.database_url)
        answer: list[Any] = []
        with contextlib.closing(other), other.cursor() as cursor:
            cursor.execute("set deadlock_timeout = '60s'")
            cursor.execute("select from users where username = 'zqx-one' for update")
            body = [secret(f"{number}a", "zqx-two"), secret(f"{number}b")]
            sending = threading.Thread(
                target=lambda: answer.append(self.ask(f"{self.upload}/checkups/", "POST", body, token))
            )
            sending.start()
            yield cursor, wait_for(lambda: self.sql("select pid from pg_locks where not granted limit 1"))[0][0]
            with contextlib.suppress(psycopg2.Error):
                other.rollback()
            sending.join()
        assert answer, "the upload was not answered"

    def logs(self) -> dict[str, str]:
        files = [*self.folder.glob("*.log"), self.postgres.data / "server.log", self.mongo.log_file]
        return {path.name: path.read_text(errors="replace") for path in files}


def wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 15
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return result


def secret(number: int | str, patient: str = "zqx-one", **changes: Any) -> dict[str, Any]:
    result = {"name": f"{MARK} name", "value": NUMBER + 0.5, "unit": f"{MARK}/L"}
    said = {
        "checkup_report": f"{MARK} positive",
        "disease": f"{MARK} disease",
        "taken_by": "zqx-doc",
        "results": [result],
    }
    return record(number, patient, **{"machine": "HC-1", **said, **changes})


@pytest.fixture
def system(data_dir: Path, tmp_path: Path) -> Iterator[System]:
    root = data_dir / "logged"
    postgres, mongo = Postgres(root), Mongo(root)
    try:
        postgres.ensure()
        mongo.ensure()
        postgres.make_database("myhealth_test")
        urls = {
            "database_url": postgres.url_of("myhealth_test"),
            "mongo_url": mongo.url_of("myhealth_test?serverSelectionTimeoutMS=500"),
        }
        own = Settings(data_dir=str(root), secret_key=f"{MARK} a secret of 32 bytes and more", bcrypt_rounds=4, **urls)
        made = System(own, postgres, mongo, tmp_path)
        made.run("migrate")
        words = ("--role", "admin", "--full-name", f"{MARK} root", "--password-stdin")
        made.run("users", "create", "zqx-root", *words, data=f"{PASSWORD}\n".encode())
        with (tmp_path / "gunicorn.log").open("wb") as log, running_apis(own, log_file=log) as (upload, browse):
            yield dataclasses.replace(made, upload=upload, browse=browse)
    finally:
        stores.close_database()
        postgres.stop()
        mongo.stop()


def test_no_log_holds_a_name_a_value_a_password_a_hash_or_a_token(system: System) -> None:
    accounts(system)
    uploads(system)
    faults_of_postgresql(system)
    analyzers(system)
    system.run("sync", "--once", "--verbose")
    browsing(system)
    faults_of_the_sync(system)
    erasure(system)
    logs = system.logs()
    lines = {(name, line) for name, text in logs.items() for line in text.splitlines()}
    assert [f"{name}: {line[:500]}" for name, line in lines if any(trace in line for trace in TRACES)] == []
    for fault in ("deadlock detected", "canceling statement", "violates check constraint", "terminated by signal 9"):
        assert fault in logs["server.log"], f"{fault}: this fault did not happen"
    assert "failed: " in logs["gunicorn.log"]


def accounts(system: System) -> None:
    root = system.log_in("zqx-root")
    people = [
        {"username": name, "role": role, "full_name": f"{MARK} {role}", "password": PASSWORD}
        for name, role in PEOPLE.items()
    ]
    assert system.statuses(f"{system.upload}/users/", root, *people, people[0], {"username": f"{MARK}\0"}) == [
        201
    ] * 4 + [409, 400]
    register = f"{system.upload}/registration/"
    asked = [
        {"username": name, "password": word}
        for name, word in (("zqx-new", PASSWORD), ("zqx-new", PASSWORD), ("zqx new\0", PASSWORD), ("zqx-x", MARK))
    ]
    assert system.statuses(register, "", *asked) == [201, 400, 400, 400]
    for url in (system.upload, system.browse):
        wrong = [{"username": name, "password": f"{MARK} wrong"} for name in ("zqx-two", "zqx-nobody")] * 7
        assert {401, 429} >= {
            *system.statuses(f"{url}/login/", "", *wrong, {"username": [MARK]}, f"{MARK}{{".encode())
        } - {400}
        basic = base64.b64encode(f"zqx-one:{MARK}".encode()).decode()
        assert system.ask(f"{url}/login/", Authorization=f"Basic {basic}")[0] == 401
        assert system.ask(f"{url}/users/zqx-one/", token=f"eyJ{MARK}")[0] == 401
    change = f"{system.upload}/users/zqx-two/"
    assert system.statuses(
        change, root, {"full_name": f"{MARK} two"}, {"role": MARK}, {"username": "zqx-one"}, method="PUT"
    ) == [200, 400, 409]
    system.run("users", "create", "zqx-one", "--no-password", code=2)
    system.run("users", "unblock", "zqx-two")
    system.run("users", "set-password", "zqx-one", "--password-stdin", data=f"{PASSWORD}\n".encode())


def uploads(system: System) -> None:
    token = system.log_in("zqx-tech")
    path = f"{system.upload}/checkups/"
    many = [secret(f"m{i}") for i in range(60)]
    good = (secret(1), [secret(2), secret(3, "zqx-two")], many, dump([secret(4, machine=...)]))
    assert system.statuses(path, token, *good) == [201] * 4
    hl7 = f"MSH|^~\\&|{MARK}|{MARK}|||20261120||ORU^R01|1|P|2.5\rPID|||zqx-one||{MARK}^A\rOBR|1|||X\rOBX|1|NM|{MARK}||{NUMBER}x|{MARK}".encode()
    fhir = {
        "resourceType": "Bundle",
        "entry": [
            {
                "resource": {
                    "resourceType": "Observation",
                    "id": MARK,
                    "valueQuantity": {"value": MARK},
                    "subject": {"reference": "Patient/zqx-one"},
                }
            }
        ],
    }
    bad = (
        secret(1, disease=f"{MARK} other"),
        secret(5, "zqx-nobody"),
        secret(6, "zqx-new"),
        secret(7, disease=NUMBER),
        secret(8, taken_at=MARK),
        secret(9, disease=f"{MARK}\0"),
        f'[{{"{MARK}":'.encode(),
        MARK.encode(),
        b"\xff" + MARK.encode(),
        hl7,
        fhir,
        [secret(10, results=MARK), secret(11)],
    )
    assert not {500, 503} & {
        *system.statuses(path, token, *bad),
        *system.statuses(f"{path}?atomic=true&refused_file=true", token, *bad),
    }
    key = {"Idempotency-Key": MARK}
    assert system.statuses(path, token, secret(12), secret(12), secret(13), **key) == [201, 201, 400]
    doctor = system.log_in("zqx-doc")
    (own,) = system.sql("select id from checkups where record_id = '1'")
    assert system.statuses(
        f"{system.upload}/users/zqx-one/checkups/{own[0]}/",
        doctor,
        {"disease": f"{MARK} new"},
        {"disease": NUMBER},
        method="PUT",
    ) == [200, 400]
    file = system.folder / "zqx-dump.json"
    file.write_bytes(dump([secret("f1", machine=...), secret("f2", "zqx-nobody", machine=...)]))
    system.run("rejections", "retry", "--all", code=1)


def faults_of_postgresql(system: System) -> None:
    token, path = system.log_in("zqx-tech"), f"{system.upload}/checkups/"
    system.sql(f"alter table checkups add constraint no_faults check (disease <> '{MARK} faulty')")
    faulty = [secret(f"c{i}", disease=f"{MARK} faulty") for i in range(60)]  # so many are copied
    assert {*system.statuses(path, token, faulty[0], faulty[:3], faulty)} <= {500, 503}
    with system.blocked_upload(token, "d") as (other, _), contextlib.suppress(psycopg2.Error):
        other.execute("insert into checkups (patient_id, machine_id, record_id, checkup_type, checkup_report, disease)"
                      " select patient_id, machine_id, 'da', '', '', '' from checkups where record_id = '1'")  # fmt: skip
    with system.blocked_upload(token, "e") as (_, backend):
        system.sql(f"select pg_cancel_backend({backend})")
    with system.blocked_upload(token, "f") as (_, backend):
        os.kill(backend, signal.SIGKILL)  # as the kernel does when memory is short: the server starts again
    wait_for(lambda: answers(system))
    system.sql("alter table checkups rename column disease to other_name")
    system.statuses(path, token, secret(20), [secret(21), secret(22)])
    system.sql("alter table checkups rename column other_name to disease")
    crash(system.postgres)
    system.statuses(path, token, secret(23))
    system.run("sync", "--once", code=75)
    system.postgres.ensure()
    assert wait_for(lambda: system.ask(path, "POST", secret(24), token)[0] == 201)


def analyzers(system: System) -> None:
    data = message("m", "zqx-one", value=str(NUMBER)).replace(b"Cholesterol", MARK.encode())
    sent = (data, data.replace(str(NUMBER).encode(), f"{NUMBER}1".encode()), data.replace(b"zqx-one", b"zqx-nobody"),
            data.replace(b"20261120090000", MARK.encode()), data.replace(b"mmol", b"\0\xff"), MARK.encode())  # fmt: skip
    with listening(system.settings) as running:
        with Sender(running.port) as sender:
            sender.send(MARK.encode())
            assert {sender.ask(each) for each in sent} == {"AA", "AE", "AR"}
            system.sql("alter table checkups rename column disease to other_name")
            assert sender.ask(data.replace(b"Fm", b"Fn")) == "AE"
            system.sql("alter table checkups rename column other_name to disease")
            crash(system.postgres)
            assert sender.ask(data) is None
        system.postgres.ensure()
        running.end()
    (system.folder / "listen.log").write_text(running.said)


def answers(system: System) -> bool:
    with contextlib.suppress(psycopg2.Error):
        return bool(system.sql("select 1"))
    return False


def browsing(system: System) -> None:
    tokens = {name: system.log_in(name) for name in (*PEOPLE, "zqx-root")}
    paths = ("/reports/", f"/reports/?text={MARK}&disease={MARK}", f"/reports/?{MARK}=1", f"/reports/?from={MARK}", f"/reports/?after={MARK}",
             "/reports/99/", "/users/zqx-one/", "/users/zqx-two/reports/", f"/users/?search={MARK}", f"/users/zqx-one/trends/?name={MARK}",
             f"/users/zqx-nobody{MARK}%00/", f"/my/patients/zqx-one?text={MARK}", f"/my/{MARK}", f"/%ff{MARK}")  # fmt: skip

    def walk() -> set[int]:
        found = {system.ask(system.browse + path, token=token)[0] for path in paths for token in ("", *tokens.values())}
        cookies = [f"myhealth_session={token}" for token in tokens.values()]
        return found | {
            system.ask(system.browse + path, Cookie=cookie)[0]
            for path in ("/my/", f"/my/?text={MARK}", f"/my/?from={MARK}")
            for cookie in cookies
        }

    assert not {500, 503} & walk()
    client = pymongo.MongoClient(system.settings.mongo_url)
    with client:
        slow = {"$where": f"sleep(200) || '{MARK}'", "disease": f"{MARK} disease"}  # a slow day
        list(client.get_default_database()["reports"].find(slow).limit(1))
    crash(system.mongo)
    assert system.ask(f"{system.browse}/users/zqx-one/", token=tokens["zqx-doc"])[0] == 503
    assert system.ask(f"{system.browse}/my/", Cookie=f"myhealth_session={tokens['zqx-doc']}")[0] == 503
    system.run("sync", "--once", code=75)
    system.run("reports", "list", "zqx-one", code=75)
    system.mongo.ensure()
    assert not {500} & walk()


def faults_of_the_sync(system: System) -> None:
    with pymongo.MongoClient(system.settings.mongo_url) as client:
        store = client.get_default_database()
        store.command("collMod", "reports", validator={"disease": {"$not": {"$regex": "refused$"}}})
        token = system.log_in("zqx-tech")
        large = [{"name": MARK, "value": f"{MARK} " * 1000}] * 4200  # beyond 16 MB
        assert system.statuses(
            f"{system.upload}/checkups/", token, [secret(30, disease=REFUSED_BY_MONGODB), secret(31)]
        ) == [201]
        patient = "(select id from users where username = 'zqx-one')"
        for results in (json.dumps(large), f'[{{"name": "{MARK}", "value": {str(NUMBER) * 9}}}]', f'["{MARK}"]'):
            system.sql("insert into checkups (patient_id, checkup_type, checkup_report, disease, results)"
                       f" values ({patient}, '{MARK}', '{MARK}', '', '{results}')")  # fmt: skip
        for words in (("sync", "--once", "--verbose"), ("sync", "--once", "--verbose", "--retry-failed"), ("verify",)):
            system.run(*words, code=1)
        assert store["reports"].count_documents({}) > 60
    system.run("verify", "--repair", code=1)


def erasure(system: System) -> None:
    root = system.log_in("zqx-root")
    assert system.ask(f"{system.upload}/users/zqx-new/link/", "POST", token=root)[0] == 200
    assert system.ask(f"{system.browse}/users/zqx-two/", "DELETE", token=root)[0] == 204
    system.run("users", "export", "zqx-one", "--output", str(system.folder / "export.zip"))
    system.run("users", "delete", "zqx-one", "--yes")
    system.run("sync", "--once", "--verbose")
    tech = system.log_in("zqx-tech")
    system.statuses(f"{system.upload}/checkups/", tech, [secret(1), secret(2)], secret("m1"))
    assert re.fullmatch("[0-9]+", str(system.sql("select count(*) from rejections")[0][0]))

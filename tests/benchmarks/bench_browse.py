"""How quick the browse API is, against python-eve and a bare handler over the same collection in the same run.

    python3 -m venv /tmp/eve && /tmp/eve/bin/pip install eve==2.3 gunicorn
    .venv/bin/python tests/benchmarks/bench_browse.py --eve /tmp/eve/bin/python [--reports 1000000] [--people 20000] [--results 2]
        [--rounds 9] [--seconds 3] [--only browse,bare] [--folder PATH]

A MongoDB of its own in a temporary folder (--folder keeps it for the next run); needs wrk. Each server is gunicorn with
2 gthread workers of 4 threads; wrk asks them turn and turn about for pages of 50 of people at random, with 8
connections. Each figure is the median of the rounds; each ratio is the median of the ratios within a round, for other
work on the machine comes and goes. A trend is asked for as it was a
moment ago, which is kept for five seconds, and anew, each time from another moment on.

fhir: a page of 50 Observations of these people. bare: a Bottle handler that does the same find and json.dumps, with no
token, no check and no filter; bare with user: it also looks the user up, as the check does. The pages for people are
asked for as a browser does, with the session's cookie: the list of 20 reports, one report, what was measured, one
measurement with its chart (of people at random, and of a thousand points, of which 500 are shown), what a doctor has to
review, and a search.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from myhealth import processes
from myhealth.common.settings import Settings
from myhealth.embedded.mongo import Mongo
from myhealth.profiles.tokens import Signer
from myhealth.reports.documents import UserRow, user_document
from myhealth.reports.filters import PageCursor
from myhealth.reports.repository import ReportRepository
from myhealth.sync.rows import CheckupRow, report_document
from wsgi.browse_api.parameters import format_page_cursor

NAME = "myhealth_bench_test"
SECRET = b"a secret of the benchmark, 32 bytes and more"
LONG = 10_050  # reports of the person with a long history: 201 pages
POINTS = 1_000  # of the person whose trend is asked for
BEGIN = datetime(2026, 11, 20, tzinfo=UTC)
RESULTS = (
    '[{"code":"8480-6","name":"Systolic blood pressure","value":%d,"unit":"mm[Hg]","low":90,"high":120,"flag":"H"},'
    '{"code":"8462-4","name":"Diastolic blood pressure","value":%d,"unit":"mm[Hg]","low":60,"high":80,"flag":null}%s]'
)
MORE = ',{"code":"%d-1","name":"Substance %d in serum or plasma","value":5.1,"unit":"mmol/L","low":3.9,"high":6.1,"flag":null}'
BARE = """
import json, bottle, pymongo
database = pymongo.MongoClient({url!r}).get_default_database()
reports, users = database["reports"], database["users"]
app = bottle.Bottle()
@app.get("/users/<subject>/reports")
def page_of_user(subject):
    return page(users.find_one({{"subject": subject}})["_id"], subject)
@app.get("/reports/<patient:int>/<subject>")
def page(patient, subject):
    found = reports.find({{"patient_id": patient, "subject": subject}}).sort([("taken_at", -1), ("_id", -1)]).limit(50)
    bottle.response.content_type = "application/json"
    return json.dumps(list(found), default=str)
@app.get("/healthz")
def healthz():
    return "ok"
"""
EVE = """
from eve import Eve
fields = {{"_id": {{"type": "integer"}}}}
app = Eve(settings={{"MONGO_URI": {url!r}, "RENDERERS": ["eve.render.JSONRenderer"], "PAGINATION_LIMIT": 500,
    "DOMAIN": {{"reports": {{"schema": fields, "allow_unknown": True, "item_lookup": False}}}},
    "X_DOMAINS": None, "DATE_FORMAT": "%Y-%m-%dT%H:%M:%SZ"}})
app.add_url_rule("/healthz", "healthz", lambda: "ok")
"""
LUA = """
local paths, tokens = {{}}, {{}}
for line in io.lines({file!r}) do
  local path, token = line:match("^(%S+) ?(%S*)$")
  paths[#paths + 1] = path
  tokens[#tokens + 1] = token
end
math.randomseed({seed})
request = function()
  local i = math.random(#paths)
  if paths[i]:sub(1, 4) == "/my/" then
    return wrk.format("GET", paths[i], {{["Cookie"] = "myhealth_session=" .. tokens[i]}})
  end
  return wrk.format("GET", paths[i], {{["Authorization"] = "Bearer " .. tokens[i]}})
end
"""


@dataclasses.dataclass
class Figures:
    """What wrk said: requests a second; half and 99 of 100 answers within so many milliseconds; answers not 2xx."""

    per_s: float
    p50_ms: float
    p99_ms: float
    faults: int


def subject(person: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(person)))


def fill(store: ReportRepository, reports: int, people: int, results: int) -> None:
    """Person 1 has a long history, person 2 a thousand points, all others what is left, in the order of time. A report
    has `results` results, of which the first two are the blood pressure's."""
    more = "".join(MORE % (i, i) for i in range(3, results + 1))
    store.drop()
    store.make_indexes()
    users = [
        user_document(UserRow(i, 1, subject(i), f"patient{i}", f"Patient {i}", "patient", True, None, 1), 1)
        for i in range(1, people + 1)
    ]
    store.users.insert_many(
        [*users, user_document(UserRow(people + 1, 1, subject(people + 1), "dr.bench", "", "doctor", True, None, 1), 1)]
    )
    owners = [1] * LONG + [2] * POINTS
    owners += [3 + i % (people - 2) for i in range(reports - len(owners))]
    random.Random(1).shuffle(owners)
    for start in range(0, reports, 10_000):
        batch = []
        for i in range(start, min(start + 10_000, reports)):
            at = BEGIN - timedelta(minutes=reports - i)
            batch.append(report_document(CheckupRow(i + 1, owners[i], subject(owners[i]), "BLOOD PRESSURE", "Seated, left arm. 128/82",
                                         "BP", f"HC-{i % 500}", f"dr.{i % 40}", at, at, at, RESULTS % (110 + i % 60, 60 + i % 40, more), 1, 1), 1))  # fmt: skip
        store.reports.insert_many(batch, ordered=False)


@contextlib.contextmanager
def keys_served() -> Iterator[str]:
    """A server of the public key that tokens are verified with."""
    keys = json.dumps(Signer(SECRET, 60).jwks()).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(keys)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@contextlib.contextmanager
def served(python: str, folder: Path, module: str, text: str) -> Iterator[str]:
    """A module's `app` under gunicorn with the same settings as the browse API's: its URL."""
    (folder / f"{module}.py").write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        python,
        "-m",
        "gunicorn",
        f"{module}:app",
        "--bind",
        f"127.0.0.1:{port}",
        "--workers",
        "2",
        "--threads",
        "4",
    ]
    words += [
        "--worker-class",
        "gthread",
        "--no-control-socket",
        "--log-level",
        "warning",
        "--worker-tmp-dir",
        "/dev/shm",
    ]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(words, cwd=folder, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        processes._wait_until_ready(process, url, module)
        yield url
    finally:
        process.terminate()
        process.wait()


def measure(url: str, lines: list[str], folder: Path, seconds: int, connections: int = 8) -> Figures:
    """wrk against the paths of these lines, each with its token behind it."""
    file = folder / "paths"
    file.write_text("\n".join(lines) + "\n")
    (folder / "ask.lua").write_text(LUA.format(file=str(file), seed=random.randrange(10**6)))
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(folder / "ask.lua"), url]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    faults = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate, said
    return Figures(float(rate[1]), in_ms(said, "50%"), in_ms(said, "99%"), int(faults[1]) if faults else 0)


def in_ms(said: str, share: str) -> float:
    found = re.search(rf"{share}\s+([\d.]+)(us|ms|s)", said)
    assert found, said
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]


def median(found: list[Figures]) -> Figures:
    assert not any(each.faults for each in found), found
    return Figures(
        *(statistics.median(getattr(each, name) for each in found) for name in ("per_s", "p50_ms", "p99_ms")), 0
    )


def cases(urls: dict[str, str], store: ReportRepository, people: int) -> dict[str, tuple[str, list[str]]]:
    """What is asked: name -> (server, paths with tokens)."""
    signer = Signer(SECRET, 3600)
    some = random.Random(2).sample(range(3, people + 1), 2000)
    early = [f"{datetime(1990, 1, 1) + timedelta(minutes=i):%Y-%m-%dT%H:%M:00Z}" for i in range(50_000)]
    tokens = {i: signer.sign(subject(i))[0] for i in [1, 2, people + 1, *some]}
    place: PageCursor | None = None
    patient = {"_id": 1, "subject": subject(1)}
    for _ in range(199):
        place = PageCursor.of(store.find(patient, limit=50, after=place)[-1])
    where = [
        f"/reports?where=%7B%22patient_id%22:{i},%22subject%22:%22{subject(i)}%22%7D&sort=-taken_at,-_id&max_results=50"
        for i in some
    ]
    return {
        "browse": (urls["browse"], [f"/users/patient{i}/reports/?limit=50 {tokens[i]}" for i in some]),
        "bare": (urls["bare"], [f"/reports/{i}/{subject(i)}" for i in some]),
        "bare with user": (urls["bare"], [f"/users/{subject(i)}/reports" for i in some]),
        **({"eve": (urls["eve"], where)} if "eve" in urls else {}),
        "doctor": (urls["browse"], [f"/users/patient{i}/reports/?limit=50 {tokens[people + 1]}" for i in some]),
        "fhir": (urls["browse"], [f"/fhir/Observation?patient={subject(i)}&_count=50 {tokens[i]}" for i in some]),
        "page 1": (urls["browse"], [f"/reports/?limit=50 {tokens[1]}"]),
        "page 200": (urls["browse"], [f"/reports/?limit=50&after={format_page_cursor(place)} {tokens[1]}"]),
        "trend": (urls["browse"], [f"/users/patient2/trends/?code=8480-6&limit=1000 {tokens[2]}"]),
        "trend anew": (
            urls["browse"],
            [f"/users/patient2/trends/?code=8480-6&limit=1000&from={at} {tokens[2]}" for at in early],
        ),
        **{name: (urls["browse"], lines) for name, lines in page_cases(store, tokens, some, people + 1).items()},
    }


def page_cases(store: ReportRepository, tokens: dict[int, str], some: list[int], doctor: int) -> dict[str, list[str]]:
    """The pages of these people, and a doctor's search for them."""
    newest = {i: store.find({"_id": i, "subject": subject(i)}, limit=1)[0]["_id"] for i in some}
    return {
        "/my/": [f"/my/ {tokens[i]}" for i in some],
        "/my/reports/ID": [f"/my/reports/{newest[i]} {tokens[i]}" for i in some],
        "/my/trends": [f"/my/trends {tokens[i]}" for i in some],
        "a chart": [f"/my/trends?code=8480-6 {tokens[i]}" for i in some],
        "a chart of 500": [f"/my/trends?code=8480-6 {tokens[2]}"],
        "to review": [f"/my/to-review {tokens[doctor]}"],
        "a search": [f"/my/patients?q={str(i)[:3]} {tokens[doctor]}" for i in some],
    }


# What is asked of the speeds: one against another.
ASKED = (
    ("browse", "bare", "no figure; it looks nobody up"),
    ("browse", "bare with user", "0.9 or more"),
    ("browse", "eve", "3 or more"),
    ("fhir", "browse", "0.6 or more"),
    ("page 1", "page 200", "1.10 or less"),
    ("page 1", "trend", "2 or less"),
    ("page 1", "trend anew", "2 or less"),
)


def report(found: dict[str, list[Figures]]) -> None:
    for name, each in found.items():
        middle = median(each)
        print(f"{name:14} {middle.per_s:7.0f} requests/s   p50 {middle.p50_ms:6.1f} ms   p99 {middle.p99_ms:6.1f} ms")
    for one, other, asked in ASKED:
        if one in found and other in found:
            ratios = sorted(a.per_s / b.per_s for a, b in zip(found[one], found[other], strict=True))
            span = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
            print(f"{one} / {other:11} {statistics.median(ratios):.2f} ({span}; asked: {asked})")
    if "browse" in found:
        ratio = statistics.median(each.p99_ms / each.p50_ms for each in found["browse"])
        print(f"p99 / p50          {ratio:.2f} (asked: 5 or less)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eve", help="a Python that has eve 2.3 and gunicorn")
    parser.add_argument("--reports", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--results", type=int, default=2, help="how many a report has; 2 or more")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", help="the names of what is measured, with commas between them")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="myhealth-bench-"))
    folder.mkdir(exist_ok=True)
    mongo = Mongo(folder)
    mongo.ensure()
    try:
        run(options, folder, mongo.url_of(NAME))
    finally:
        mongo.stop()
        if options.folder is None:
            shutil.rmtree(folder)


def run(options: Any, folder: Path, url: str) -> None:
    store = ReportRepository.connect(url)
    if store.count()[0] != options.reports:
        begun = time.monotonic()
        fill(store, options.reports, options.people, options.results)
        print(f"filled with {options.reports:,} reports in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        settings = Settings(mongo_url=url, auth_url=stack.enter_context(keys_served()), data_dir=str(folder))
        listener = stack.enter_context(processes.open_listening_socket("127.0.0.1", 0))
        log_file = stack.enter_context((folder / "browse.log").open("wb"))
        server = processes.gunicorn("wsgi.browse:app", listener, settings, workers=2, threads=4, log_file=log_file)
        stack.enter_context(server)
        urls = {"browse": processes.url_of(listener)}
        urls["bare"] = stack.enter_context(served(sys.executable, folder, "bare", BARE.format(url=url)))
        if options.eve:
            urls["eve"] = stack.enter_context(served(options.eve, folder, "eves", EVE.format(url=url)))
        asked = cases(urls, store, options.people)
        if options.only:
            asked = {name: asked[name] for name in options.only.split(",")}
        found: dict[str, list[Figures]] = {name: [] for name in asked}
        for turn in range(options.rounds + 1):
            for name, (server, lines) in asked.items():
                figures = measure(server, lines, folder, options.seconds if turn else 2)
                if turn:  # the first warms up
                    found[name].append(figures)
    store.close()
    report(found)


if __name__ == "__main__":
    os.environ.pop("MYHEALTH_SETTINGS", None)
    main()

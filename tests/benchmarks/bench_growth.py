"""How the cost of each act grows with the number of check-ups: a table, and a picture if asked for.

    .venv/bin/python tests/benchmarks/bench_growth.py [--steps 500000,1000000,2500000,5000000] [--picture FILE.svg]

Servers of its own, in a temporary folder. Each figure is processor time: of the program, PostgreSQL and MongoDB together,
so that other programs on the machine disturb it less. One patient has 50 reports at each step; the page and the trend are
this patient's, 200 of each over HTTP. The memory is the program's highest.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import urllib.request
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from bench_sync import Bench
from support.factories import PASSWORD
from support.servers import running_apis

from myhealth import stores
from myhealth.embedded.mongo import Mongo
from myhealth.embedded.postgres import Postgres
from myhealth.profiles.services import create_user

READER = "reader"
OWN = """insert into checkups (patient_id, record_id, checkup_type, checkup_report, disease, taken_at, results)
select (select id from users where username = 'reader'), null, checkup_type, checkup_report, disease, taken_at, results
from checkups order by id limit 50"""
PAGES = 200
COLOURS = {"first sync": "#1b6ca8", "verify": "#b3541e"}


def server_s(*servers: Postgres | Mongo) -> float:
    """Processor time of the servers so far, and of what they started and has ended."""
    total = 0.0
    for server in servers:
        process = psutil.Process(server.pid())
        for each in [process, *process.children()]:
            times = each.cpu_times()
            total += times.user + times.system + (times.children_user + times.children_system) * (each == process)
    return total


class Growth:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.memory_mb: dict[str, float] = {}

    def cost(self, *words: str, times: int = 1) -> float:
        """Seconds of processor time of a command, the mean of so many."""
        before = server_s(self.bench.postgres, self.bench.mongo) + children_s()
        for _ in range(times):
            _, memory, _ = self.bench.run(*words)
            self.memory_mb[words[0]] = max(memory, self.memory_mb.get(words[0], 0))
        return (server_s(self.bench.postgres, self.bench.mongo) + children_s() - before) / times

    def page_costs(self) -> tuple[float, float]:
        """Milliseconds of processor time of a page of reports and of a trend."""
        with running_apis(self.bench.settings) as (upload, browse):
            body = json.dumps({"username": READER, "password": PASSWORD}).encode()
            login = urllib.request.Request(f"{upload}/login/", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(login) as answer:
                token = json.load(answer)["token"]
            return tuple(self._page_cost(f"{browse}{path}", token) for path in PATHS)  # type: ignore[return-value]

    def _page_cost(self, url: str, token: str) -> float:
        def ask() -> None:
            with urllib.request.urlopen(
                urllib.request.Request(url, None, {"Authorization": f"Bearer {token}"})
            ) as answer:
                assert len(answer.read()) > 1000

        def spent() -> float:
            workers = [each.cpu_times() for each in psutil.Process().children(recursive=True)]
            return sum(each.user + each.system for each in workers) + server_s(self.bench.mongo)

        ask()
        before = spent()
        for _ in range(PAGES):
            ask()
        return 1000 * (spent() - before) / PAGES

    def step(self, rows: int) -> dict[str, float]:
        self.bench.fill(rows)
        self.bench.empty_store()
        costs = {"first sync": self.cost("sync", "--once"), "verify": self.cost("verify")}
        costs["empty pass"] = self.cost("sync", "--once", times=5)
        self.bench.sql(
            "update checkups set disease = 'BP2' where id in (select id from checkups order by id desc limit 1000)"
        )
        costs["1,000 more"] = self.cost("sync", "--once")
        costs["page"], costs["trend"] = self.page_costs()
        return costs


PATHS = ("/reports/?limit=20", f"/users/{READER}/trends/?code=8480-6")


def children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def picture(found: dict[int, dict[str, float]]) -> str:
    """An SVG of the two costs that grow, over the number of check-ups."""
    width, height, left, bottom = 640, 320, 56, 40
    most_rows, most_s = max(found), max(max(each[name] for name in COLOURS) for each in found.values())

    def place(rows: float, seconds: float) -> tuple[float, float]:
        return left + rows / most_rows * (width - left - 90), height - bottom - seconds / most_s * (
            height - bottom - 16
        )

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
             f'<rect width="{width}" height="{height}" fill="#fff"/>']  # fmt: skip
    for rows in (0, *found):
        x, y = place(rows, 0)
        parts.append(f'<text x="{x:.0f}" y="{y + 18:.0f}" text-anchor="middle">{rows / 1e6:g}</text>')
    for seconds in (0, most_s / 2, most_s):
        x, y = place(0, seconds)
        parts.append(f'<path d="M{x:.0f} {y:.0f}H{width - 90}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 6:.0f}" y="{y + 4:.0f}" text-anchor="end">{seconds:.0f} s</text>')
    parts.append(f'<text x="{(width - 34) / 2:.0f}" y="{height - 6}" text-anchor="middle">million check-ups</text>')
    for name, colour in COLOURS.items():
        points = [place(rows, costs[name]) for rows, costs in found.items()]
        line = " ".join(f"{x:.0f},{y:.0f}" for x, y in [place(0, 0), *points])
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3" fill="{colour}"/>' for x, y in points]
        parts.append(f'<text x="{points[-1][0] + 8:.0f}" y="{points[-1][1] + 4:.0f}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default="500000,1000000,2500000,5000000")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="myhealth-bench-"))
    folder.chmod(0o711)
    bench = Bench(folder, "")
    growth, found = Growth(bench), {}
    try:
        bench.fill(1000)
        with stores.opened_database(bench.settings):
            create_user(READER, password=PASSWORD)
        bench.sql(OWN)
        print("| check-ups | first sync | a million | verify | a million | empty pass | 1,000 changed | page | trend |")
        print("| ---: " * 9 + "|", flush=True)
        for rows in map(int, options.steps.split(",")):
            costs = found[rows] = growth.step(rows)
            first, verify, empty, more, page, trend = costs.values()
            print(
                f"| {rows:,} | {first:.1f} s | {1e6 * first / rows:.1f} s | {verify:.1f} s | {1e6 * verify / rows:.1f} s"
                f" | {empty:.2f} s | {more:.2f} s | {page:.1f} ms | {trend:.1f} ms |",
                flush=True,
            )
        print(f"memory: {', '.join(f'{name} {mb:.0f} MB' for name, mb in growth.memory_mb.items())}")
        if options.picture:
            options.picture.write_text(picture(found))
    finally:
        bench.mongo.stop()
        bench.postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

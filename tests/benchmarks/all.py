"""All benchmarks against their floors and peers, as one table for a README, in less than 20 minutes on a quiet machine.

    .venv/bin/python tests/benchmarks/all.py [--quick] [--eve PYTHON] [--only start,intake,sync,browse]

Each part is a script of its own, which says how it measures; --quick: one round over little data, to see that all work.
A line on stderr has the load of the machine before each part: ratios hold on a busy machine, speeds do not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from myhealth.embedded.postgres import Postgres

HERE = Path(__file__).parent
SIZES = {
    "intake": ["--rows", "100000", "--large", "500000", "--rounds", "3"],
    "sync": ["--rows", "200000", "--rounds", "5"],
    "browse": ["--reports", "200000", "--people", "4000", "--rounds", "5", "--seconds", "2"],
}
QUICK = {
    "intake": ["--rows", "2000", "--large", "4000", "--rounds", "1"],
    "sync": ["--rows", "5000", "--rounds", "1"],
    "browse": ["--reports", "20000", "--people", "2100", "--rounds", "1", "--seconds", "1"],
}
STARTS = ("--help", "--version", "users --help", "import-machine --help", "sync --help", "users list")


def start_lines(rounds: int) -> list[str]:
    """How long a command takes to start and to end, turn and turn about with an empty program."""
    programs = {"python -c pass": ["-c", "pass"]}
    programs |= {f"myhealth {words}": ["-m", "cli", *words.split()] for words in STARTS}
    took: dict[str, list[float]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL may run as another user
        environ = {**os.environ, "MYHEALTH_DATA_DIR": name}
        run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
        run([sys.executable, "-m", "cli", "users", "list"], env=environ)  # makes the database
        environ["MYHEALTH_DATABASE_URL"] = Postgres(folder).url
        try:
            for _ in range(rounds):
                for program, words in programs.items():
                    begun = time.perf_counter()
                    run([sys.executable, *words], env=environ)
                    took[program].append(1000 * (time.perf_counter() - begun))
        finally:
            Postgres(folder).stop()
    return [f"{name}  {statistics.median(each):.0f} ms" for name, each in took.items()]


def table_rows(lines: list[str]) -> Iterator[str]:
    """Yield a script's lines as rows: what a line is about ends with a colon or with two blanks. Indented ones belong to
    the line above; those that have no figure are headings, or single rounds."""
    heading = ""
    for line in filter(None, lines):
        what, _, figure = line.strip().replace(": ", "  ", 1).partition("  ")
        if line[0] != " ":
            heading = what
        if figure:
            yield f"| {what if line[0] != ' ' else f'{heading}: {what}'} | {figure.strip()} |"


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--eve", help="a Python that has eve 2.3 and gunicorn")
    parser.add_argument("--only", default="start,intake,sync,browse")
    options = parser.parse_args()
    for part in options.only.split(","):
        print(f"{part}: load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        if part == "start":
            lines = start_lines(1 if options.quick else 9)
        else:
            words = (QUICK if options.quick else SIZES)[part]
            eve = ["--eve", options.eve] if options.eve and part == "browse" else []
            done = subprocess.run(
                [sys.executable, str(HERE / f"bench_{part}.py"), *words, *eve],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            lines = done.stdout.splitlines()
        print(f"\n| {part} | measured |\n| --- | --- |")
        print("\n".join(table_rows(lines)), flush=True)


if __name__ == "__main__":
    main()

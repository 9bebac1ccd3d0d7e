"""Which part may import which: myhealth/README.md has the picture."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

# A folder of the domain may import itself and the folders of its "needs:" line.
OUTSIDE = {"myhealth": {"click", "bottle", "cli", "wsgi"}, "cli": {"bottle", "wsgi"}, "wsgi": {"click", "cli"}}
FEATURES = {
    "common",
    "clinical",
    "audit",
    "profiles",
    "machines",
    "checkups",
    "intake",
    "reports",
    "sync",
    "privacy",
    "mllp",
}
FILES = [path for package in OUTSIDE for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def needs(folder: str) -> set[str]:
    text = (ROOT / "myhealth" / folder / "__init__.py").read_text()
    line = re.search(r"needs: (.*)", text)
    assert line, f"myhealth/{folder}/__init__.py does not say what it needs"
    return set(re.findall(r"\w+", line.group(1))) & FEATURES


@pytest.mark.parametrize("package", OUTSIDE)
def test_a_layer_imports_none_of_the_layers_above_it(package: str) -> None:
    found = {path.relative_to(ROOT).as_posix(): imports(path) for path in sorted((ROOT / package).rglob("*.py"))}
    used = {path: {name.split(".")[0] for name in names} & OUTSIDE[package] for path, names in found.items()}
    assert {path: names for path, names in used.items() if names} == {}


def test_a_feature_imports_only_what_it_says_it_needs() -> None:
    found = {}
    for folder in FEATURES:
        for path in sorted((ROOT / "myhealth" / folder).rglob("*.py")):
            used = {name.split(".")[1] for name in imports(path) if name.startswith("myhealth.")}
            found[path.relative_to(ROOT).as_posix()] = used - needs(folder) - {folder}
    assert {path: names for path, names in found.items() if names} == {}


def test_no_feature_needs_itself_by_way_of_others() -> None:
    graph = {folder: needs(folder) - {folder} for folder in FEATURES}
    while leaves := {folder for folder, needed in graph.items() if not needed & graph.keys()}:
        graph = {folder: needed for folder, needed in graph.items() if folder not in leaves}
    assert graph == {}, "a circle"


def test_only_the_report_store_knows_pymongo() -> None:
    knowing = {path for path in FILES if {name.split(".")[0] for name in imports(path)} & {"pymongo", "bson"}}
    assert {path.parent for path in knowing} == {ROOT / "myhealth/reports"}


def test_only_settings_reads_the_environment() -> None:
    readers = {
        path.relative_to(ROOT).as_posix() for path in FILES if re.search(r"os\.(environ|getenv)", path.read_text())
    }
    assert readers == {"myhealth/common/settings.py"}


def test_no_file_is_named_like_one_of_the_standard_library() -> None:
    assert not {path.stem for path in FILES} & (set(sys.stdlib_module_names) - {"__future__"}) - {
        "__init__",
        "__main__",
    }


def test_files_stay_small() -> None:
    long = {str(path.relative_to(ROOT)): n for path in FILES if (n := path.read_text().count("\n")) > 400}
    assert not long


def test_no_test_imports_another() -> None:
    """Helpers belong in tests/support/, fixtures in conftest.py."""
    found = {path.name: imports(path) for path in (ROOT / "tests").rglob("*.py")}
    wrong = {name: {each for each in names if each.startswith(("test_", "conftest"))} for name, names in found.items()}
    assert {name: names for name, names in wrong.items() if names} == {}


def test_importing_everything_opens_nothing() -> None:
    """No socket, no file written, no process: shown by an audit hook in a fresh interpreter."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in FILES
        if path.name not in ("__init__.py", "__main__.py") and "migrations" not in path.parts
    ]
    program = f"""
import sys
def watch(event, args):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.mkdir"):
        raise SystemExit(f"{{event}} {{args}}")
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+") and not str(args[0]).endswith(".pyc"):
        if "__pycache__" not in str(args[0]):
            raise SystemExit(f"writes {{args[0]}}")
sys.addaudithook(watch)
sys.dont_write_bytecode = True
for module in {modules!r}:
    __import__(module)
print("quiet")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "quiet\n", done.stderr


READERS = "myhealth.intake.formats.{}.reader"
LATER = {
    "wsgi.upload": [
        *map(READERS.format, ("fhir", "hl7v2", "tables")),
        "myhealth.reports.writer",
        "myhealth.sync.targets",
    ],
    "wsgi.browse": ["myhealth.clinical.series", "myhealth.reports.newest", "myhealth.reports.kept_trends"],
    "myhealth.mllp.server": [READERS.format("hl7v2")],
}


@pytest.mark.parametrize("program", LATER)
def test_a_server_loads_at_its_start_what_only_some_requests_need(program: str) -> None:
    """Else code that is replaced under a running server breaks the first such request."""
    code = f"import {program}, sys; print([name for name in {LATER[program]} if name not in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr

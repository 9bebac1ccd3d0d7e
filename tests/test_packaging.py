"""The wheel carries everything: installed elsewhere, away from the source, it works."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.paths import ROOT

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git tracks, as a fresh clone would be, in which gunicorn or the tests have run since."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                             capture_output=True, text=True, check=True).stdout.split("\0")  # fmt: skip
    for name in filter(None, tracked):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            path.write_bytes((ROOT / name).read_bytes())
    leavings = source / "examples" / "__pycache__" / "gunicorn-upload.conf.pyc"
    leavings.parent.mkdir()
    leavings.write_bytes(b"x")
    words = [sys.executable, "-m", "build", "--wheel", "--outdir", str(target), str(source)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


def test_it_holds_migrations_templates_and_examples(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for folder, pattern in (("myhealth/migrations", "*.py"), ("wsgi/templates", "*"), ("wsgi/static", "*")):
        for path in (ROOT / folder).glob(pattern):
            if path.is_file() and not path.name.startswith("."):
                assert f"{folder}/{path.name}" in names
    examples = {name.rpartition("/")[2] for name in names if "share/myhealth/examples/" in name}
    assert examples == {path.name for path in (ROOT / "examples").iterdir() if path.is_file()}
    assert not [name for name in names if name.startswith(("tests/", "examples/", ".ci"))]


@pytest.mark.long
def test_installed_elsewhere_it_works(wheel: Path, tmp_path: Path, settings) -> None:
    site = tmp_path / "site"
    words = ["pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True)
    program = (
        "import cli.main, wsgi.upload, sys; from myhealth.examples import example;"
        "from myhealth import stores;"
        f"assert cli.main.__file__.startswith({str(site)!r}), cli.main.__file__;"
        f"assert str(example('machine-dump.json')).startswith({str(site)!r});"
        "assert stores._names()"
    )
    environ = {**os.environ, "PYTHONPATH": str(site), "MYHEALTH_DATA_DIR": settings.data_dir}
    done = subprocess.run([sys.executable, "-c", program], env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    script = site / "bin" / "myhealth"
    for words in ([sys.executable, str(script)], [sys.executable, "-m", "cli"]):
        done = subprocess.run([*words, "demo"], env=environ, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

"""The Postman collection in examples/ is made from the APIs' descriptions, and passes against both."""

import json
import shutil
import subprocess

import pytest
from support.factories import PASSWORD, record, take
from support.paths import ROOT
from support.postman import collection
from support.servers import running_apis

from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from wsgi import browse, upload

FILE = ROOT / "examples" / "myhealth.postman_collection.json"


def test_the_collection_is_the_descriptions() -> None:
    documents = {name: app.PAGES["/openapi.json"].described for name, app in (("upload", upload), ("browse", browse))}
    made = collection(documents)
    assert json.loads(FILE.read_text()) == made, "make it anew: PYTHONPATH=tests python -m support.postman"
    requests = sum(len(folder["item"]) for folder in made["item"])
    assert requests == sum(len(verbs) for said in documents.values() for verbs in said["paths"].values()) - 2


@pytest.mark.process
@pytest.mark.long
def test_the_collection_passes_with_newman(people, db, settings, reports, tmp_path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: the Postman collection is not run")
    (tmp_path / "package.json").write_text("{}")
    words = [npm, "install", "--no-audit", "--no-fund", "--silent", "newman@6"]
    installed = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    if installed.returncode:
        pytest.skip(f"newman cannot be installed: the Postman collection is not run: {installed.stderr[-300:]}")
    take(record(1))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    with running_apis(settings) as (upload_url, browse_url):
        values = {"upload_url": upload_url, "browse_url": browse_url, "username": "bholanath", "password": PASSWORD}
        options = [word for name, value in values.items() for word in ("--global-var", f"{name}={value}")]
        options += [word for name, value in values.items() for word in ("--env-var", f"{name}={value}")]
        done = subprocess.run(
            [tmp_path / "node_modules/.bin/newman", "run", FILE, *options], capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stdout
    assert "the answer is a known one" in done.stdout

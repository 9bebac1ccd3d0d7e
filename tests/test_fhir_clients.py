"""Public FHIR clients work with the FHIR API: fhirpy, fhirclient and fhir-kit-client list, search, page and read."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.factories import record, take

from myhealth.profiles.services import get_user
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass

REPORTS = 25
pytestmark = [pytest.mark.long, pytest.mark.process]


@pytest.fixture
def served_fhir(people, settings, reports, served, log_in) -> tuple[str, str, str]:
    """Return the address of the FHIR API, a token of Bholanath's, and his id; he has 25 reports, Savita one."""
    days = [record(i, taken_at=f"2026-11-{i:02}T09:00:00Z") for i in range(1, REPORTS + 1)]
    take(*days, record(99, patient="savita"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    return f"{served[1]}/fhir", log_in("bholanath"), str(get_user("bholanath").subject)


def test_fhirpy(served_fhir: tuple[str, str, str]) -> None:
    client_module = pytest.importorskip("fhirpy", reason="the extra fhir is not installed")
    url, token, own = served_fhir
    client = client_module.SyncFHIRClient(url, authorization=f"Bearer {token}")
    assert [each["id"] for each in client.resources("Patient").fetch()] == [own]
    observations = client.resources("Observation").search(patient=own, code="http://loinc.org|8480-6")
    assert len(observations.limit(10).fetch_all()) == REPORTS, "by pages"
    assert len(observations.search(date__ge="2026-11-20").fetch()) == 6
    assert observations.count() == REPORTS
    first = observations.sort("date").limit(1).first()
    assert client.reference("Observation", first["id"]).to_resource()["effectiveDateTime"] == "2026-11-01T09:00:00Z"
    reports = client.resources("DiagnosticReport").include("DiagnosticReport", "result").limit(2).fetch_raw()
    assert [each.resource["resourceType"] for each in reports["entry"]] == ["DiagnosticReport"] * 2 + [
        "Observation"
    ] * 2
    everything = client.execute(f"Patient/{own}/$everything", method="get")
    assert everything["entry"][0]["resource"]["id"] == own
    with pytest.raises(client_module.base.exceptions.ResourceNotFound):
        client.reference("Observation", "26-1").to_resource()


def test_fhirclient(served_fhir: tuple[str, str, str]) -> None:
    client_module = pytest.importorskip("fhirclient.client", reason="the extra fhir is not installed")
    from fhirclient.models.diagnosticreport import DiagnosticReport
    from fhirclient.models.observation import Observation
    from fhirclient.models.patient import Patient

    url, token, own = served_fhir
    client = client_module.FHIRClient(settings={"app_id": "test", "api_base": url})
    client.server.session.headers["Authorization"] = f"Bearer {token}"
    assert Patient.read(own, client.server).identifier[0].value == "bholanath"
    search = Observation.where({"patient": own, "_count": "10"})
    pages = list(search.perform_iter(client.server))
    assert [len(bundle.entry) for bundle in pages] == [10, 10, REPORTS - 20]
    days = [each.effectiveDateTime.isostring for each in search.perform_resources_iter(client.server)]
    assert (len(days), days) == (REPORTS, sorted(days, reverse=True))
    (found,) = DiagnosticReport.where({"_id": "1"}).perform_resources_iter(client.server)
    assert found.result[0].reference == "Observation/1-1"
    assert Observation.read("1-1", client.server).valueQuantity.value == 128
    everything = client.server.request_json(f"Patient/{own}/$everything")
    assert everything["resourceType"] == "Bundle"


SCRIPT = """
const [module, url, token, own] = process.argv.slice(2);
const { Client } = await import(module);
const client = new Client({ baseUrl: url, bearerToken: token });
const said = await client.capabilityStatement();
const patient = await client.read({ resourceType: 'Patient', id: own });
let page = await client.search({ resourceType: 'Observation', searchParams: { patient: own, _count: 10 } });
let seen = 0, pages = 0;
while (page) { seen += page.entry.length; pages += 1; page = await client.nextPage({ bundle: page }); }
const options = { postSearch: true }, searchParams = { code: '8480-6' };
const posted = await client.search({ resourceType: 'Observation', searchParams, options });
const all = await client.operation({ name: '$everything', resourceType: 'Patient', id: own, method: 'GET' });
console.log([said.fhirVersion, patient.id === own, seen, pages, posted.entry.length, all.entry.length].join(' '));
"""


def test_fhir_kit_client(served_fhir: tuple[str, str, str], tmp_path: Path) -> None:
    """Where NODE_PATH has it: `npm install fhir-kit-client`, then NODE_PATH=…/node_modules."""
    module = Path(os.environ.get("NODE_PATH", "/nowhere")) / "fhir-kit-client" / "dist" / "index.js"
    node = shutil.which("node")
    if node is None or not module.exists():
        pytest.skip("fhir-kit-client is not in NODE_PATH")
    script = tmp_path / "ask.mjs"
    script.write_text(SCRIPT)
    done = subprocess.run([node, script, module, *served_fhir], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["4.0.1", "true", str(REPORTS), "3", str(REPORTS), "50"], done.stderr

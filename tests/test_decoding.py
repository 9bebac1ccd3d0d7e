"""What threads decode was worked out while its module was imported: msgspec crashes if two threads work out one type."""

import subprocess
import sys

import pytest

WORKED_OUT = """
import sys
found = set()
def profile(frame, event, argument):
    called = event == "call" and frame.f_code.co_name == "get_class_annotations"
    if called and not frame.f_back.f_code.co_filename.endswith("inspect.py"):  # which explains faults, in Python
        found.add(frame.f_locals["obj"].__name__)
import msgspec
{first}
sys.setprofile(profile)
{then}
sys.setprofile(None)
print(sorted(found))
"""
RECORD = (
    '{"checkup_for": "a", "checkup_type": "b", "checkup_report": "c", "disease": "d", "patient": {"name": "x"},'
    ' "details": {"notes": [{"text": "n"}]}, "results": [{"name": "n", "value": 1, "specimen": {"text": "s"}}]}'
)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("from myhealth.intake.validation import validate_record", f"validate_record(msgspec.json.decode('{RECORD}'))"),
        ("from myhealth.intake.formats.tables.layout import parse_layout", "parse_layout('kind = \"long\"')"),
        (
            "from myhealth.sync.checkpoint import *; mark = dict.fromkeys(Checkpoint.__struct_fields__)",
            "from_document(mark)",
        ),
        (
            "from wsgi.browse_api.sync_endpoints import CALLS",
            "for call in CALLS.values():\n    msgspec.json.Decoder(call.arguments), msgspec.json.Decoder(call.result)",
        ),
        ("from wsgi.upload_api import fhir", "msgspec.json.Decoder(fhir.Bundle)"),
        ("from wsgi.upload_api import fhir", "msgspec.json.Decoder(fhir.RequestEntry)"),
        (
            "from wsgi.upload_api import rejections as r",
            "msgspec.json.Decoder(r.Retry), msgspec.json.Decoder(r.Discard)",
        ),
    ],
)
def test_types_are_worked_out_by_imports(first: str, then: str) -> None:
    program = WORKED_OUT.format(first=first, then=then)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"

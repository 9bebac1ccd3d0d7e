"""Reading FHIR R4: every fact beside name and value comes into its field."""

import json
from typing import Any

import pytest
from support.fhir import KOLKATA, PATIENT, bundle, concept, named, observation, quantity, read, read_text, record_of, report
from support.paths import DATA

from myhealth.intake.formats.fhir.reader import FHIR, read_fhir
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.json_reader import JsonBuffer
from myhealth.intake.validation import validate_record

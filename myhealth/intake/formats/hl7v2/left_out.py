"""Find the parts that are not results of a patient: quality control, calibration, training, run settings, images of
distributions, a device's data about itself, and the patient's age.

Sources: HL7 v2.8, tables 0065 (OBR-11), 0103 (MSH-11) and 0369 (SPM-11); Mindray, HL7 interfaces of its BC and BS
analyzers (MSH-11 Q, MSH-16 1 and 2, codes 99MRC); IEEE 11073-10101 (MDC_ATTR… and the containment of a device).
"""

import re

from myhealth.intake.formats.controls import CALIBRATION, CONTROL, kind_of_measurement
from myhealth.intake.formats.hl7v2.coded import label_of
from myhealth.intake.formats.hl7v2.encoding import Encoding
from myhealth.intake.formats.hl7v2.segments import Segment

TRAINING, AGE_KIND = "training", "patient's age"
PROCESSING = {"Q": CONTROL, **dict.fromkeys("TN", TRAINING), "D": "debugging"}
RUN_KINDS = {"1": CALIBRATION, "2": CONTROL}
SPECIMEN_ROLES = {**dict.fromkeys("BEFOQ", CONTROL), **dict.fromkeys("CV", CALIBRATION)}

AGES = ("30525-0", "21612-7", "29553-5", "35659-2", "21611-9")
AGE = re.compile(r"(?:patient(?:'s)? )?age", re.IGNORECASE)
ABOUT_PATIENT = ("46098-0", "76689-9", "21112-8", "54125-0")  # sex, birth date, name
ABOUT_PATIENT_WORDS = re.compile(
    r"(?:patient(?:'s)? ?)?(?:sex|gender|birth ?da(?:te|y)|date of birth|dob)"
    r"|patient(?:'s)? ?(?:name|id|type|number|no\.?)",
    re.IGNORECASE,
)
HISTOGRAM = re.compile(r".*(?:histogram|scatter ?(?:gram|plot)|diff-?gram)\b.*", re.IGNORECASE)
SETTING = re.compile(
    r"(?:take|test|blood|analysis|sampl(?:e|ing|er)|aspiration|work(?:ing)?|measur\w+|run|count(?:ing)?|operation|probe)"
    r" ?mode|ref(?:erence)?\.? ?group"
    r"|(?:shelf|rack|tube|cup|carrier|sampler|tray)(?: ?(?:no\.?|number|id|position|pos\.?))?"
    r"|sample ?(?:no\.?|number|id|pos(?:ition|\.)?)|analysis ?(?:date|time)|recheck ?flag|department"
    r"|(?:(?:referring|attending|ordering) )?(?:doctor|physician)(?: ?(?:name|id))?"
    r"|operator(?: ?(?:name|id))?|charge ?type|test ?count|serial ?(?:number|no\.?)"
    r"|(?:reagent|calibrator|cartridge|strip) ?(?:lot|batch|expir)\w*.*|project type|(?:analy[sz]er|instrument|device)"
    r" ?(?:mode|status|state|serial.*)|(?:soft|firm)ware version|battery.*",
    re.IGNORECASE,
)
DEVICE = re.compile(r"MDC_(?:ATTR|TIME|REG|DEV|EVT|TZ|BATT|AVAIL|ID)_\w+|MDC_\w+_(?:MDS|VMD|CHAN)")


def kind_of_message(head: Segment, include_training: bool) -> str:
    """Return what a message is, by its MSH segment, if it has no results of patients, else ""."""
    kind = PROCESSING.get(head.text(11).upper(), "") or RUN_KINDS.get(head.text(16), "")
    return "" if include_training and kind in (TRAINING, "debugging") else kind


def kind_of_result(text: str, encoding: Encoding) -> str:
    """Return what an OBX segment is, by its OBX-3, if it is not a result of a patient, else ""."""
    label, code = label_of(text, encoding), encoding.parts(text)[0]
    if kind := kind_of_measurement(label):
        return kind
    if code in AGES or AGE.fullmatch(label):
        return AGE_KIND
    if code in ABOUT_PATIENT or ABOUT_PATIENT_WORDS.fullmatch(label):
        return "patient's data"
    if HISTOGRAM.fullmatch(label):
        return "histogram"
    if SETTING.fullmatch(label):
        return "run setting"
    return "device's own data" if DEVICE.fullmatch(label) or DEVICE.fullmatch(code) else ""

"""What a message over MLLP is answered: acknowledgement codes, places of errors, enhanced mode, machines by sender."""

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hl7 import MSH, OBR, OBX, PID, SAMPLE
from support.mllp import code, message, segments

from myhealth import stores
from myhealth.common.errors import BadInput, Unavailable
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.retry import retry_rejection
from myhealth.mllp.protocol import PROBLEMS_MAX, Frames, FrameTooLong, Problem, Verdict, acknowledge, read_head
from myhealth.mllp.receiver import Receiver, Senders
from myhealth.profiles.services import create_user

ADDRESS = "10.1.2.3"
STORED = "select record_id, serial, results from checkups join machines on machines.id = machine_id order by record_id"


def ask(data: bytes, receiver: Receiver | None = None) -> list[dict[str, list[list[str]]]]:
    """Return the segments of the answers to a message."""
    return [segments(each) for each in (receiver or Receiver()).answer(data, ADDRESS)[1]]


def lines(*parts: str) -> bytes:
    return "".join(f"{part}\r" for part in parts).encode()


def taken(*chunks: bytes, frame_max: int = 1000) -> tuple[list[bytes], Frames]:
    frames, found = Frames(frame_max), []
    for chunk in chunks:
        frames.feed(chunk)
        while (each := frames.take()) is not None:
            found.append(each)
    return found, frames


@pytest.mark.parametrize(
    ("data", "messages", "stray"),
    [
        (b"\x0ba\x1c\r", [b"a"], 0),
        (b"\x0ba\x1c\x0bb\x1c", [b"a", b"b"], 0),
        (b"\x0ba\x1c\r\n\r\n\x0bb\x1c\r", [b"a", b"b"], 0),
        (b"junk\x0ba\x1c\rmore\x0bb\x1c\r", [b"a", b"b"], 8),
        (b"\x0bcut\x0ba\x1c\r", [b"a"], 3),
        (b"\x0b\x1c\r", [b""], 0),
        (b"\x1c\r\x1c\r\x0ba\x1c\r", [b"a"], 3),
        (b"MSH|no frame at all\r", [], 19),
        (b"\0\0 \x0ba\0b\x1c", [b"a\0b"], 0),
        (b"\x0bopen", [], 0),
    ],
    ids=["one", "without CR", "more ends", "garbage", "begun anew", "empty", "ends", "no frame", "NUL", "open"],
)
def test_frames_are_found_however_they_come_in(data: bytes, messages: list[bytes], stray: int) -> None:
    for size in (1, 2, 3, len(data)):
        found, frames = taken(*(data[i : i + size] for i in range(0, len(data), size)))
        assert found == messages
        assert frames.stray == stray or size < len(data)  # blanks within garbage count if they come with it
    assert frames.is_open == data.endswith(b"open")


def test_a_frame_that_does_not_end_is_too_long_and_garbage_takes_no_room() -> None:
    with pytest.raises(FrameTooLong) as found:
        taken(b"\x0bMSH", *[b"x" * 100] * 10)
    assert found.value.start.startswith(b"MSHxxx")
    with pytest.raises(FrameTooLong):
        taken(b"\x0b" + b"x" * 1001 + b"\x1c\r")
    assert len(taken(*[b"x" * 100] * 1000)[1]) == 0


def test_a_message_is_stored_and_acknowledged_once_it_is_committed(db, people) -> None:
    (answer,) = ask(message(7))
    msh = answer["MSH"][0]
    assert (msh[2], msh[3:7], msh[9]) == ("^~\\&", ["", "", "HC9000", "PUNE"], "ACK^R01^ACK")
    assert re.fullmatch(r"20\d{12}\+0000", msh[7])
    assert (msh[11:13], answer["MSA"]) == (["P", "2.5.1"], [["MSA", "AA", "MSG7"]])
    assert answer.keys() == {"MSH", "MSA"}
    assert ask(message(7))[0]["MSA"] == [["MSA", "AA", "MSG7"]]
    ((number, serial, results),) = db(STORED)
    assert (number, serial, results[0]["value"]) == ("F7^LAB", "HC9000@PUNE", 5.1)
    events = db("select actor, address, details->>'accepted' from audit_events where action = 'upload' order by id")
    assert events == [("HC9000@PUNE over MLLP", ADDRESS, "1"), ("HC9000@PUNE over MLLP", ADDRESS, "0")]


def test_a_record_has_the_number_that_an_import_gives_it(db, people) -> None:
    for data in (message(7), SAMPLE.read_bytes(), message(8, "nobody")):
        ask(data)
        done = FileImport(io.BytesIO(data), "the same", ImportOptions())
        assert [[result.effect for _, result in batch] for batch in done] == [["none"]]
    assert db("select count(*), sum(times) from rejections") == [(2, 4)]
    assert db("select count(*) from checkups") == [(1,)]


SECOND = OBR.replace("F1", "F2").replace("P1", "P2")


@pytest.mark.parametrize(
    ("sent", "place", "error"),
    [
        (lines(MSH, PID.replace("M100^^^HOSP^MR", "nobody"), OBR, OBX), "PID^1^3", "204"),
        (lines(MSH, PID.replace("M100^^^HOSP^MR", ""), OBR, OBX), "PID^1^3", "101"),
        (lines(MSH, PID.replace("M100^^^HOSP^MR", "bholanath"), "OBR|1|P1|F1|", "OBX|1|NM|||5"), "OBR^1^4", "101"),
        (lines(MSH, PID.replace("M100^^^HOSP^MR", "bholanath"), OBR, OBX, OBX, SECOND, OBX, f"{OBX}|||x"), "OBX^4^14", ""),
        (lines(MSH, PID.replace("M100^^^HOSP^MR", "bholanath"), OBR, OBX, SECOND.replace("20261120090000", "x"), OBX[:60]), "OBR^2^7", "102"),
        (lines(MSH, PID.replace("M100^^^HOSP^MR", "bholanath"), OBR, OBX, "12"), "", "207"),
    ],
    ids=["unknown patient", "no patient", "no name of the test", "a moment is only warned of", "the second order's moment", "no segment"],
)  # fmt: skip
def test_an_error_names_its_place_in_the_message(db, people, sent: bytes, place: str, error: str) -> None:
    (answer,) = ask(sent)
    rejected = db("select id from rejections")
    codes = {(each[2], each[3].split("^")[0], each[4]) for each in answer["ERR"]}
    if not error:
        assert (answer["MSA"][0][1], codes, rejected) == ("AA", {(place, "0", "W")}, [])
        return
    assert answer["MSA"][0][:3] == ["MSA", "AE", "MSG1"]
    assert (place, error, "E") in codes
    assert all(each[8].endswith(f"; kept as rejection {rejected[0][0]}") for each in answer["ERR"])
    assert all(each[1] == "" for each in answer["ERR"])


def test_of_a_message_with_two_orders_the_good_one_is_stored(db, people) -> None:
    bad = f"{OBX}|||x"
    (answer,) = ask(lines(MSH, PID.replace("M100^^^HOSP^MR", "bholanath"), OBR, OBX, SECOND, bad))
    assert answer["MSA"][0][1:] == ["AE", "MSG1", "1 of 2 rejected: is not a date and time: 'x'"]
    assert [each[2] for each in answer["ERR"]] == ["OBX^2^14"]
    assert [row[0] for row in db(STORED)] == ["F1^LAB"]


def test_a_sender_before_2_5_is_told_the_place_in_err_1_and_no_warnings(db, people) -> None:
    old = MSH.replace("2.5.1", "2.3")
    (answer,) = ask(message(1, "nobody", msh=old))
    assert answer["ERR"][0][1] == "PID^1^3^204&Unknown key identifier&HL70357"
    assert answer["MSH"][0][12] == "2.3"
    late = "OBX|2|NM|2571-8^Trig^LN||1|mmol/L|||||F|||x"
    warned = lines(MSH, PID.replace("M100^^^HOSP^MR", "bholanath"), OBR, OBX, late)
    assert [each[4] for each in ask(warned)[0]["ERR"]] == ["W"]
    assert "ERR" not in ask(warned.replace(b"2.5.1", b"2.3.1"))[0]


@pytest.mark.parametrize(
    ("sent", "place", "error"),
    [
        (b"", "MSH^1^1", "100"),
        (b"hello", "MSH^1^1", "100"),
        (b"\0\0\0", "MSH^1^1", "100"),
        (b"\x1f\x8b\x08", "MSH^1^1", "100"),
        (b"MSH", "MSH^1^1", "100"),
        (b"MSH|", "MSH^1^1", "100"),
        (b"MSH||||", "MSH^1^1", "100"),
        (b"MSH|^^^^|a", "MSH^1^1", "100"),
        (b"MSH|^~\\&", "MSH^1^9", "101"),
        (b"MSH|^~\\&|A|B", "MSH^1^9", "101"),
        (lines(MSH.replace("ORU^R01^ORU_R01", "ADT^A01"), PID), "MSH^1^9", "200"),
        (lines(MSH.replace("ORU^R01^ORU_R01", "QRY^Q02")), "MSH^1^9", "200"),
        (message(1, msh=MSH.replace("|P|", "|T|")), "MSH^1^11", "202"),
        (message(1, msh=MSH.replace("|P|", "|D|")), "MSH^1^11", "202"),
        (message(1) + message(2), "MSH^1^2", "100"),
    ],
)  # fmt: skip
def test_what_is_not_taken_is_refused_and_nothing_is_stored(db, people, sent: bytes, place: str, error: str) -> None:
    (answer,) = ask(sent)
    assert answer["MSA"][0][1] == "AR"
    assert [(each[2], each[3].split("^")[0]) for each in answer["ERR"]] == [(place, error)]
    assert db("select (select count(*) from checkups) + (select count(*) from rejections)") == [(0,)]


def test_training_is_taken_if_wanted_and_quality_control_is_passed_over(db, people) -> None:
    training = message(1, msh=MSH.replace("|P|", "|T|"))
    assert ask(training, Receiver(include_training=True))[0]["MSA"][0][1] == "AA"
    (answer,) = ask(message(2, msh=MSH.replace("|P|", "|Q|")))
    assert answer["MSA"][0][1:] == ["AA", "MSG2", "passed over, nothing to store: quality control"]
    assert [row[0] for row in db(STORED)] == ["F1^LAB"]


def test_an_acknowledgement_is_never_answered(db, people) -> None:
    for kind in ("ACK", "ACK^R01^ACK", "MCF"):
        assert ask(lines(MSH.replace("ORU^R01^ORU_R01", kind), "MSA|AA|1")) == []


@pytest.mark.parametrize(
    ("accept", "application", "good", "bad", "refused"),
    [
        ("", "", ["AA"], ["AE"], ["AR"]),
        ("AL", "", ["CA"], ["CA"], ["CR"]),
        ("AL", "NE", ["CA"], ["CA"], ["CR"]),
        ("AL", "AL", ["CA", "AA"], ["CA", "AE"], ["CR", "AR"]),
        ("NE", "AL", ["AA"], ["AE"], ["AR"]),
        ("", "AL", ["AA"], ["AE"], ["AR"]),
        ("NE", "ER", [], ["AE"], ["AR"]),
        ("ER", "SU", ["AA"], [], ["CR"]),
        ("SU", "ER", ["CA"], ["CA", "AE"], ["AR"]),
        ("NE", "NE", [], [], []),
        ("", "0", ["AA"], ["AE"], ["AR"]),
    ],
)  # fmt: skip
def test_the_enhanced_mode_answers_what_is_asked_for(db, people, accept, application, good, bad, refused) -> None:
    msh = f"{MSH}|||{accept}|{application}"

    def answered(data: bytes) -> list[str]:
        return [each["MSA"][0][1] for each in ask(data)]

    assert answered(message(1, msh=msh)) == good
    assert answered(message(2, "nobody", msh=msh)) == bad
    assert answered(lines(msh.replace("ORU^R01^ORU_R01", "ADT^A01"), PID)) == refused
    assert [row[0] for row in db(STORED)] == ["F1^LAB"], "it is stored whatever the answer"


def test_what_is_not_kept_is_no_commit_accept() -> None:
    head = read_head(f"{MSH}|||AL|NE".encode())
    lost = Verdict("AE", "an error", [Problem("207", "an error")], is_safe=False)
    assert [code(each) for each in acknowledge(head, lost)] == ["CE"]


def test_an_answer_has_the_senders_delimiters_and_character_set(db, people) -> None:
    other = "MSH#*!?%#Lab#Süd#we#here#20261120##ORU*R01#ä#P#2.5######8859/1\rPID###nobody*#\rOBR#1##F#T*a%b\rOBX#1#NM#T*T*L##5######F\r"
    (raw,) = Receiver().answer(other.encode("latin-1"), ADDRESS)[1]
    text = raw.decode("latin-1")
    msh, msa, err, *_ = text.split("\r")
    assert msh.startswith("MSH#*!?%#we#here#Lab#Süd#20")
    assert msh.endswith("#P#2.5######8859/1")
    assert msa.startswith("MSA#AE#ä#1 of 1 rejected: ")
    assert err.startswith("ERR##PID*1*3#204*Unknown key identifier*HL70357#E####")
    escaped = acknowledge(read_head(b"MSH|^~\\&|"), Verdict("AE", "a|b^c&d~e\\f\rg"))[0]
    assert b"|a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f\\E\\rg\r" in escaped
    assert b"|a b c\r" in acknowledge(read_head(b"MSH|^~|"), Verdict("AE", "a|b^c"))[0]


@pytest.mark.parametrize("charset", ["", "UNICODE UTF-8", "8859/1", "GB18030", "ISO IR87", "no such one"])
def test_bytes_that_are_not_of_the_character_set_are_rejected_and_the_control_id_echoed(db, people, charset) -> None:
    data = (
        message(1, "bholanath").replace(b"MSG1", b"\xff\xe4\x81").replace(b"2.5.1", b"2.5.1||||||" + charset.encode())
    )
    (raw,) = Receiver().answer(data.replace(b"Cholesterol", b"Ch\xff\xe4lesterol"), ADDRESS)[1]
    assert raw.split(b"\r")[1].split(b"|")[2] == b"\xff\xe4\x81"
    assert code(raw) == ("AA" if charset == "8859/1" else "AE")


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"MSH", b"MSH|^~\\&|", b"MSH|^~\\&|A|B|C|D|2026||ORU^R01|1|P|2.5||||||"]),
)
def test_any_bytes_are_answered(data: bytes, start: bytes) -> None:
    for verdict in (Verdict("AA"), Verdict("AE", "ü|^", [Problem("204", "日本|\r^", ("PID", "1", "3"))])):
        for answer in acknowledge(read_head(start + data), verdict):
            assert answer.startswith(b"MSH")
            assert answer.count(b"\r") == 2 + len(verdict.problems)
            assert not {0x0A, 0x0B, 0x1C} & set(answer) - set(start + data)


def test_hostile_messages_are_answered_and_kept_whole(db, people) -> None:
    many = message(1) + (OBX.encode() + b"\r") * 10_000
    assert ask(many)[0]["MSA"][0][1] in ("AA", "AE")
    nul = message(2).replace(b"Cholesterol", b"Chol\0esterol")
    for data in (nul, nul.replace(b"bholanath", b"1^^^HOSP\0A"), nul.replace(b"bholanath", b"bh\0^^^HOSP&1.2\0&ISO")):
        assert "kept as rejection" in ask(data)[0]["ERR"][0][8]
    orders = lines(
        MSH,
        PID.replace("M100^^^HOSP^MR", "nobody"),
        *[f"OBR|{n}|P{n}|F{n}|T\rOBX|1|NM|T^T^L||{n}||||||F" for n in range(100)],
    )
    (answer,) = ask(orders)
    assert len(answer["ERR"]) == PROBLEMS_MAX
    assert db("select count(*) from rejections where source = 'MLLP from 10.1.2.3'") >= [(103,)]


def test_an_error_of_ours_is_no_acceptance_and_logs_no_data(db, people, caplog) -> None:
    db("alter table checkups rename column disease to other_name")
    try:
        (answer,) = ask(message(1, value="73191"))
    finally:
        db("alter table checkups rename column other_name to disease")
    assert answer["MSA"][0][1] == "AE"
    assert answer["ERR"][0][3].startswith("207^")
    assert "a message met" in caplog.text
    assert "73191" not in caplog.text
    assert "bholanath" not in caplog.text
    assert ask(message(1, value="73191"))[0]["MSA"][0][1] == "AA"


def test_the_options_say_which_machine_sends(db, people) -> None:
    senders = Senders(["HC9000=HC-1", "10.1.0.0/16=HC-2", "OTHER@PUNE=HC-3", "2001:db8::/32=HC-4", "HC-9"])
    assert senders.serial("10.2.2.2", "HC9000", "PUNE") == "HC-1"
    assert senders.serial("10.2.2.2", "OTHER", "PUNE") == "HC-3"
    assert senders.serial(ADDRESS, "OTHER", "DELHI") == "HC-2"
    assert senders.serial("2001:db8::7", "", "") == "HC-4"
    assert senders.serial("10.2.2.2", "OTHER", "DELHI") == "HC-9"
    assert Senders().serial(ADDRESS, "HC9000", "PUNE") == ""
    named = Receiver(Senders(["HC9000=HC-1", "10.2.0.0/16=HC-2"]))
    ask(message(1), named)
    ask(message(2, "nobody"), named)
    ask(message(3, "bholanath").replace(b"20261120090000", b"x"), named)
    assert [row[:2] for row in db(STORED)] == [("F1^LAB", "HC-1")]
    assert db("select distinct context->>'machine' from rejections") == [("HC-1",)]
    assert db("select actor, details->>'machine' from audit_events where action = 'upload' order by id limit 1") == [
        ("HC-1 over MLLP", "HC-1")
    ]


def test_an_address_speaks_for_its_machine_alone_whatever_it_calls_itself(db, people) -> None:
    bound = Receiver(Senders([f"{ADDRESS}=HC-2", "10.1.9.9=HC-3", "HC9000=HC-1"]))
    assert bound.senders.serial(ADDRESS, "HC9000", "PUNE") == "HC-2"
    ask(message(1), bound)
    assert [row[1] for row in db(STORED)] == ["HC-2"]
    claimed = OBX + "|||||||HC-3"
    for obx, msh in ((claimed, MSH), (OBX, MSH.replace("HC9000|PUNE", "HC-3|"))):
        answer = ask(message(2, msh=msh, obx=obx), Receiver(Senders(["10.1.9.9=HC-3"])))[0]
        assert (answer["MSA"][0][1], answer["MSA"][0][3]) == (
            "AR",
            "it names a machine that sends from another address",
        )
    assert db("select count(*) from checkups union all select count(*) from rejections") == [(1,), (0,)]
    assert ask(message(2, obx=claimed), Receiver(Senders([f"{ADDRESS}=HC-3"])))[0]["MSA"][0][1] == "AA"


def test_a_rejection_stays_with_its_mapped_machine_when_it_is_retried(db, people) -> None:
    mapped = Receiver(Senders(["HC9000=HC-1"]))
    ask(message(2, "late"), mapped)
    create_user("late")
    ((rejection,),) = db("select id from rejections")
    assert retry_rejection(rejection).status == "accepted"
    assert [row[:2] for row in db(STORED)] == [("F2^LAB", "HC-1")]
    assert ask(message(2, "late"), mapped)[0]["MSA"][0][1] == "AA"
    assert db("select count(*) from checkups") == [(1,)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["HC9000="], "'HC9000=': a machine's serial is needed"),
        (["A=HC/1"], "'A=HC/1': the serial begins or ends with a space, or contains a /"),
        (["A=1", "A=1", "A=2"], "'A=2': the sender has another machine already"),
        (["1", "2"], "'2': the sender has another machine already"),
    ],
)  # fmt: skip
def test_wrong_machines_are_told(given: list[str], said: str) -> None:
    with pytest.raises(BadInput) as found:
        Senders(given)
    assert found.value.message == said


def test_a_database_that_is_away_is_no_answer(settings) -> None:
    stores.bind_database(replace(settings, database_url="postgresql://127.0.0.1:1/x"), is_served=True)
    try:
        with pytest.raises(Unavailable):
            Receiver().answer(message(1), ADDRESS)
    finally:
        stores.close_database()

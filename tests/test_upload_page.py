"""The page for manual uploads, in a real browser, on the real upload API."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import browser
from support.factories import PASSWORD, dump, record
from support.paths import DATA, ROOT

from myhealth.profiles.services import create_user, revoke_tokens

pytestmark = pytest.mark.long


@pytest.fixture
def url(served: tuple[str, str], people: dict[str, int]) -> str:
    return served[0]


@pytest.fixture
def enter(page: Any, url: str) -> Callable[..., None]:
    """Opens the page and logs in."""

    def log_in(name: str = "tara", password: str = PASSWORD) -> None:
        page.goto(url)
        sign_in(page, name, password)

    return log_in


def sign_in(page: Any, name: str = "tara", password: str = PASSWORD) -> None:
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def choose(page: Any, *files: tuple[str, bytes] | Path) -> None:
    """Chooses files, given by path or as name and content."""
    page.locator("#file").wait_for(state="attached")
    page.get_by_role("button", name="Log out").wait_for()
    page.locator("#file").set_input_files(
        [str(f) if isinstance(f, Path) else {"name": f[0], "mimeType": "", "buffer": f[1]} for f in files]
    )


def outcome(page: Any, name: str) -> Any:
    """The part of the page that tells of that file."""
    return page.get_by_role("region", name=name, exact=True)


def counts(box: Any) -> dict[str, str]:
    box.locator(".counts").wait_for()
    return {kind: box.locator(f".counts .{kind} strong").inner_text() for kind in ("accepted", "duplicate", "rejected")}


def message(box: Any) -> str:
    box.locator(".message").wait_for()
    return str(box.locator(".message p").inner_text())


def login_message(page: Any) -> str:
    page.locator("#login-message").wait_for()
    return str(page.locator("#login-message").inner_text())


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))


def test_a_wrong_password_a_wrong_role_and_nothing_typed_are_told(page: Any, enter: Callable[..., None]) -> None:
    enter(password="wrong-horse")
    assert login_message(page) == "The username or the password is wrong."
    assert focused(page) == "password"
    assert page.get_by_label("Username").input_value() == "tara"
    assert page.get_by_label("Password").input_value() == ""
    browser.check_accessible(page)
    browser.shoot(page, "login-wrong")
    page.get_by_role("button", name="Log in").click()
    assert login_message(page) == "Type your password."
    sign_in(page, "bholanath")
    page.get_by_text("has the role patient").wait_for()
    assert "Uploads are for doctors and technicians" in login_message(page)
    assert not page.locator("#upload").is_visible()


def test_a_server_that_is_away_is_told_at_the_login(page: Any, url: str) -> None:
    page.goto(url)
    browser.check_accessible(page)
    browser.shoot(page, "login")
    page.context.set_offline(True)
    sign_in(page)
    assert login_message(page) == "The server cannot be reached. Check the network and try again."
    page.context.set_offline(False)
    sign_in(page)
    page.get_by_role("button", name="Log out").wait_for()
    assert focused(page) == "file"
    assert browser.fits(page)
    assert browser.too_small(page) == []
    browser.check_accessible(page)
    browser.shoot(page, "ready")


def test_a_good_dump_goes_in_and_is_known_again(page: Any, enter: Callable[..., None], db: Any) -> None:
    enter("dr.ayush")
    choose(page, ("good.json", dump([record(n) for n in (1, 2, 3)])))
    box = outcome(page, "good.json")
    assert counts(box) == {"accepted": "3", "duplicate": "0", "rejected": "0"}
    assert box.locator("tbody tr").count() == 3
    assert box.get_by_text("Download the rejected records").is_hidden()
    assert focused(page) == "file-0"
    assert page.locator("#announce").inner_text() == "good.json: 3 accepted, 0 duplicate, 0 rejected"
    shown = [row.split("\t")[2] for row in box.locator("tbody").inner_text().splitlines()]
    assert shown == [str(row[0]) for row in db("select id from checkups order by id")]
    browser.check_accessible(page)
    browser.shoot(page, "good")
    choose(page, ("good.json", dump([record(n) for n in (1, 2, 3)])))
    again = outcome(page, "good.json").first
    again.get_by_text("= duplicate").first.wait_for()
    assert counts(again) == {"accepted": "0", "duplicate": "3", "rejected": "0"}
    assert db("select count(*) from checkups") == [(3,)]


def test_what_is_told_names_no_option_of_a_command(page: Any, enter: Callable[..., None]) -> None:
    enter()
    table = b"patient,taken_at,name,value,unit\nbholanath,01/02/2026,Glucose,5,mmol/L\n"
    choose(page, ("table.csv", table))
    assert message(outcome(page, "table.csv")).endswith("month first; choose the Order of dates under Upload a table")


def test_refused_records_are_told_and_can_be_downloaded_and_corrected(
    page: Any, enter: Callable[..., None], db: Any, tmp_path: Path
) -> None:
    enter()
    choose(page, ROOT / "examples" / "machine-dump-with-faults.json")
    box = outcome(page, "machine-dump-with-faults.json")
    found = counts(box)
    sent = json.loads((ROOT / "examples" / "machine-dump-with-faults.json").read_text())["records"]
    refused = int(found["rejected"])
    assert refused
    assert [(refused,)] == db("select count(*) from rejections where source like '% machine-dump-with-faults.json'")
    assert db("select count(*) from checkups") == [(len(sent) - refused,)]
    assert box.locator("tbody tr").count() == refused, "the refused ones alone are shown at first"
    for row in box.locator("tbody tr").all():
        assert row.locator("td").nth(1).inner_text() == "✗ rejected"
        assert row.locator("td").nth(3).inner_text() != ""
    assert browser.fits(page)
    browser.check_accessible(page)
    browser.shoot(page, "refused")
    box.get_by_label("all", exact=True).check()
    assert box.locator("tbody tr").count() == len(sent)
    with page.expect_download() as saved:
        box.get_by_text("Download the rejected records").click()
    assert saved.value.suggested_filename == "rejected-machine-dump-with-faults.json"
    kept = json.loads(Path(saved.value.path()).read_text())
    assert len(kept["records"]) == refused
    assert [each for each in sent if each in kept["records"]] == kept["records"]
    corrected = {**kept, "records": [{**record(f"c{n}"), "checkup_report": "Corrected."} for n in range(refused)]}
    choose(page, ("corrected.json", json.dumps(corrected).encode()))
    assert counts(outcome(page, "corrected.json"))["accepted"] == str(refused)


def test_a_refused_record_is_found_in_the_file_and_nothing_refused_is_no_alarm(
    page: Any, enter: Callable[..., None], db: Any
) -> None:
    enter()
    lines = [record(f"A-{n}", "nobody.knows" if n == 1 else "bholanath") for n in range(1500)]
    choose(page, ("some.ndjson", b"\n".join(json.dumps(each).encode() for each in lines)))
    box = outcome(page, "some.ndjson")
    assert counts(box) == {"accepted": "1,499", "duplicate": "0", "rejected": "1"}
    (remark,) = box.locator("tbody tr td:nth-child(4)").all_inner_texts()
    assert remark.startswith("Line 2, record_id A-1\n")
    assert "nobody.knows" in remark
    said = page.locator("#announce").inner_text()
    assert said == "some.ndjson: 1,499 accepted, 0 duplicate, 1 rejected"
    heading, state = box.locator("h2"), box.locator(".state")
    page.keyboard.press("Tab")  # whoever uses the keyboard sees where the focus is
    style, frame = heading.evaluate("""e => {
        e.focus();
        const shown = getComputedStyle(e);
        return [shown.outlineStyle, parseFloat(shown.outlineWidth) + parseFloat(shown.outlineOffset)];
    }""")
    assert style == "solid"
    place, below = heading.bounding_box(), state.bounding_box()
    assert place["y"] + place["height"] + frame <= below["y"]
    browser.shoot(page, "one-refused")
    choose(page, ("good.json", dump([record(1)])))
    good = outcome(page, "good.json")
    counts(good)
    colours = [
        each.locator(".counts .rejected").evaluate("e => getComputedStyle(e).borderTopColor") for each in (box, good)
    ]
    assert colours[0] != colours[1]


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"This is not JSON.", "JSON"), (b"", "empty"), (b"[{", "cut short"), (b"\x1f\x8bnot gzip", "gzip")],
    ids=["no-json", "empty", "cut-short", "damaged-gzip"],
)
def test_a_file_that_is_none_is_told(page: Any, enter: Callable[..., None], db: Any, content: bytes, told: str) -> None:
    enter()
    choose(page, ("bad.json", content))
    box = outcome(page, "bad.json")
    assert told in message(box)
    assert box.get_by_role("button", name="Send again").is_hidden(), "sending it again cannot help"
    assert page.locator("#announce").inner_text().startswith("bad.json: Not uploaded.")
    browser.check_accessible(page)
    assert db("select count(*) from checkups") == [(0,)]


def test_a_file_that_is_too_large_is_not_sent(page: Any, enter: Callable[..., None], tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    enter()
    (tmp_path / "small.json").write_bytes(dump([record()]))
    choose(page, large, tmp_path / "small.json")
    assert "at most 64 MB can be sent" in message(outcome(page, "large.json"))
    assert counts(outcome(page, "small.json"))["accepted"] == "1"
    browser.shoot(page, "too-large")


def test_several_files_of_several_formats_go_in_one_after_the_other(
    page: Any, enter: Callable[..., None], db: Any, tmp_path: Path
) -> None:
    names = ["hl7v2/oru_r01_glucose.hl7", "fhir-r4/Bundle-lipids.json", "fhir-r4/Observation-blood-pressure.json"]
    enter()
    good = tmp_path / "good.json"
    good.write_bytes(dump([record()]))
    choose(page, *[DATA / name for name in names], good)
    total = 0
    for name in names:
        found = counts(outcome(page, name.split("/")[1]))
        total += sum(map(int, found.values()))
        assert found["duplicate"] == "0"
        assert sum(map(int, found.values())), f"{name} has records, and each is told"
    assert counts(outcome(page, "good.json"))["accepted"] == "1"
    assert db("select (select count(*) from checkups) + (select count(*) from rejections)") == [(total + 1,)]
    assert browser.fits(page)
    browser.check_accessible(page)
    browser.shoot(page, "formats")


def test_what_became_of_results_and_what_was_left_out_is_told(page: Any, enter: Callable[..., None], db: Any) -> None:
    create_user("chandra", password=PASSWORD)
    enter()
    for name, status in (("first", "preliminary"), ("second", "final"), ("third", "entered-in-error")):
        sent = record(
            "k", "chandra", status=status, results=[{"name": "Potassium", "value": 6.9 if name == "first" else 5.1}]
        )
        choose(page, (name, json.dumps(sent).encode()))
        outcome(page, name).locator(".counts").wait_for()
    assert "✓ replaced an earlier version" in outcome(page, "second").locator("tbody").inner_text()
    assert "Of the accepted, 1 replaced an earlier version." in outcome(page, "second").inner_text()
    withdrawn = outcome(page, "third")
    assert "✓ withdrawn: not shown any more" in withdrawn.locator("tbody").inner_text()
    assert "withdrawn by its source" in withdrawn.locator("tbody").inner_text()
    assert "replaced" not in outcome(page, "first").inner_text()
    choose(page, DATA / "faults" / "A1-qc-mindray-bc5380.hl7", DATA / "faults" / "11a-page-1-of-3.fhir.json")
    control = outcome(page, "A1-qc-mindray-bc5380.hl7")
    control.locator(".counts").wait_for()
    assert "Not results, passed over: 1 quality control." in control.inner_text()
    paged = outcome(page, "11a-page-1-of-3.fhir.json")
    paged.locator(".counts").wait_for()
    assert "Please note: the Bundle has 1 of 3 entries; 2 are missing" in paged.inner_text()
    assert "all well" not in control.inner_text() + paged.inner_text()
    browser.check_accessible(page)
    browser.shoot(page, "upload-effects")


def test_a_thousand_records_stay_usable(page: Any, enter: Callable[..., None], db: Any) -> None:
    records = [record(n, "nobody.knows" if n % 100 == 7 else "bholanath") for n in range(1000)]
    enter()
    page.get_by_role("button", name="Log out").wait_for()
    slow = {"offline": False, "latency": 20, "downloadThroughput": 1_000_000, "uploadThroughput": 10_000}
    network = page.context.new_cdp_session(page)
    network.send("Network.emulateNetworkConditions", slow)
    choose(page, ("thousand.json", dump(records)))
    box = outcome(page, "thousand.json")
    box.get_by_text(re.compile(r"Sending: [1-9]\d* %")).wait_for()
    browser.check_accessible(page)
    assert box.get_by_role("progressbar", name="Sending thousand.json").get_attribute("value"), "it is still being sent"
    browser.shoot(page, "sending")
    network.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    assert counts(box) == {"accepted": "990", "duplicate": "0", "rejected": "10"}
    assert box.locator("tbody tr").count() == 10
    box.get_by_label("all", exact=True).check()
    assert box.locator("tbody tr").count() == 200
    for shown in (400, 600, 800, 1000):
        box.get_by_role("button", name="more of").press("Enter")
        assert box.locator("tbody tr").count() == shown
        assert focused(page).startswith(str(shown - 199)), "the focus is on the first new row"
    assert box.get_by_role("button", name="more of").is_hidden()
    assert box.locator("tbody tr td:first-child").all_inner_texts() == [str(n + 1) for n in range(1000)]
    assert db("select count(*) from checkups") == [(990,)]


def test_a_broken_network_loses_and_doubles_nothing(page: Any, enter: Callable[..., None], db: Any) -> None:
    enter()
    page.get_by_role("button", name="Log out").wait_for()
    page.context.set_offline(True)
    choose(page, ("away.json", dump([record(None), record(None)])))
    box = outcome(page, "away.json")
    assert "The server cannot be reached" in message(box)
    assert focused(page) == "file-0"
    browser.check_accessible(page)
    browser.shoot(page, "away")
    page.context.set_offline(False)

    def lose_the_answer(route: Any) -> None:
        route.fetch()
        route.abort()

    page.route("**/checkups/*", lose_the_answer, times=1)
    box.get_by_role("button", name="Send again").press("Enter")
    page.get_by_role("button", name="Send again").wait_for()
    assert db("select count(*) from checkups") == [(2,)], "it was stored; the page cannot know"
    box.get_by_role("button", name="Send again").press("Enter")
    assert counts(box) == {"accepted": "2", "duplicate": "0", "rejected": "0"}
    assert box.locator(".message").is_hidden()
    assert db("select count(*) from checkups") == [(2,)]


@pytest.mark.parametrize(
    ("status", "told", "again"),
    [(502, "cannot answer right now (502)", True), (413, "too large for a server on the way", False)],
)
def test_what_a_proxy_on_the_way_says_is_told(
    page: Any, enter: Callable[..., None], db: Any, status: int, told: str, again: bool
) -> None:
    page.route("**/checkups/*", lambda route: route.fulfill(status=status, body="<h1>nginx</h1>"), times=1)
    enter()
    choose(page, ("good.json", dump([record()])))
    box = outcome(page, "good.json")
    assert told in message(box)
    assert box.get_by_role("button", name="Send again").is_visible() == again
    if again:
        box.get_by_role("button", name="Send again").click()
        assert counts(box)["accepted"] == "1"


def test_a_login_that_has_ended_is_made_again_and_the_file_goes_on(
    page: Any, enter: Callable[..., None], people: dict[str, int], db: Any
) -> None:
    enter()
    choose(page, ("first.json", dump([record(1)])))
    assert counts(outcome(page, "first.json"))["accepted"] == "1"
    revoke_tokens(people["tara"])
    choose(page, ("second.json", dump([record(2)])))
    assert login_message(page).startswith("Your login has ended.")
    assert focused(page) == "password"
    assert not outcome(page, "first.json").is_visible()
    browser.check_accessible(page)
    browser.shoot(page, "ended")
    page.wait_for_timeout(1000)  # a token is older than an end in the same second
    sign_in(page)
    assert counts(outcome(page, "second.json"))["accepted"] == "1"
    assert counts(outcome(page, "first.json"))["accepted"] == "1"
    assert db("select count(*) from checkups") == [(2,)]


def test_another_person_sees_nothing_of_the_one_before(
    page: Any, enter: Callable[..., None], people: dict[str, int], db: Any
) -> None:
    enter()
    page.get_by_role("button", name="Log out").wait_for()
    revoke_tokens(people["tara"])
    choose(page, ("hers.json", dump([record(1)])))
    login_message(page)
    sign_in(page, "dr.ayush")
    page.get_by_role("button", name="Log out").wait_for()
    assert page.get_by_text("hers.json").count() == 0
    choose(page, ("his.json", dump([record(2)])))
    assert counts(outcome(page, "his.json"))["accepted"] == "1"
    assert db("select record_id from checkups") == [("2",)], "her file was not sent in his name"


def test_logging_out_ends_the_token_and_leaves_nothing(page: Any, enter: Callable[..., None], db: Any) -> None:
    tokens = []
    page.on("request", lambda sent: tokens.append(sent.headers.get("authorization")))
    enter()
    choose(page, ("good.json", dump([record()])))
    counts(outcome(page, "good.json"))
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    with page.expect_response("**/logout/") as ended:
        page.get_by_role("button", name="Log out").click()
    assert ended.value.status == 204
    assert page.get_by_label("Username").input_value() == ""
    assert focused(page) == "username"
    assert page.get_by_text("good.json").count() == 0
    answer = page.request.get(page.url + "users/tara/", headers={"Authorization": tokens[-1]})
    assert answer.status == 401


def choose_by_key(page: Any, choosers: list[Any]) -> Any:
    """The file chooser that Enter opens; Chromium passes over a key that comes before it has drawn the page."""
    for _ in range(30):
        page.keyboard.press("Enter")
        for _ in range(10):
            page.wait_for_timeout(100)
            if choosers:
                return choosers[0]
    raise AssertionError("Enter opened no file chooser")


def test_it_is_done_by_keyboard_alone(page: Any, url: str, db: Any) -> None:
    # listened for from the start: a chooser that opens before the browser was told to hand it over stays open, unseen
    choosers: list[Any] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.goto(url)
    page.keyboard.press("Tab")
    assert focused(page) == "To the content"
    page.keyboard.press("Tab")
    page.keyboard.type("tara")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Log out").wait_for()
    assert focused(page) == "file"
    content = dump([record(1), record(2, "nobody.knows")])
    choose_by_key(page, choosers).set_files({"name": "mixed.json", "mimeType": "", "buffer": content})
    assert counts(outcome(page, "mixed.json"))["rejected"] == "1"
    assert focused(page) == "file-0"
    page.keyboard.press("Tab")
    assert focused(page) == "Download the rejected records"
    with page.expect_download():
        page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert focused(page) == "Rejected records"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    assert outcome(page, "mixed.json").locator("tbody tr").count() == 2
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Outcome of every record of mixed.json"
    for _ in range(5):
        page.keyboard.press("Shift+Tab")
    assert focused(page) == "logout"
    page.keyboard.press("Enter")
    page.get_by_label("Username").wait_for()


def test_files_are_dropped_and_names_are_text(page: Any, enter: Callable[..., None], db: Any) -> None:
    name = '<img src="x" onerror="alert(1)">.json'
    create_user("savita.2", password=PASSWORD, role="patient", rounds=4)
    enter()
    page.get_by_role("button", name="Log out").wait_for()
    page.evaluate(
        """([name, content]) => {
            const data = new DataTransfer();
            data.items.add(new File([content], name));
            for (const kind of ["dragenter", "dragover", "drop"])
                document.querySelector("#drop").dispatchEvent(
                    new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [name, dump([record(1, "savita.2"), record(2, "<b>nobody</b>")]).decode()],
    )
    box = page.locator(".outcome")
    assert counts(box)["accepted"] == "1"
    assert box.locator("h2").inner_text() == name
    assert box.locator("img, b").count() == 0
    assert "over" not in (page.locator("#drop").get_attribute("class") or "").split()


def test_a_table_is_previewed_and_stored_on_its_page(page: Any, url: str, db: Any) -> None:
    page.goto(url)
    page.get_by_role("link", name="Upload a table").click()
    browser.check_accessible(page)
    browser.shoot(page, "table")
    page.get_by_label("Username", exact=True).fill("tara")
    page.get_by_label("Password").fill(PASSWORD)
    text = "patient,date,Glucose (mg/dL)\nbholanath,2026-11-20 07:30,105\nnobody,2026-11-20,99\n"
    file = {"name": "sugar.csv", "mimeType": "text/csv", "buffer": text.encode()}
    page.get_by_label("File").set_input_files([file])
    page.get_by_label("Machine's serial").fill("GL-1")
    page.get_by_label("Layout").select_option("wide")
    page.get_by_label("Time zone").fill("Asia/Kolkata")
    page.get_by_role("button", name="Preview").click()
    page.get_by_text("Preview: nothing is stored yet").wait_for()
    assert "Glucose 105 mg/dL" in page.locator("tbody").inner_text()
    assert page.get_by_label("Layout").input_value() == "wide"
    assert browser.fits(page)
    assert browser.too_small(page) == []
    browser.check_accessible(page)
    browser.shoot(page, "table-preview")
    page.get_by_role("button", name="Store").click()
    page.get_by_role("heading", name="Stored").wait_for()
    assert db("select serial, layout from machines") == [("GL-1", '{"kind":"wide","zone":"Asia/Kolkata"}')]
    assert db("select (select count(*) from checkups), (select count(*) from rejections)") == [(1, 1)]

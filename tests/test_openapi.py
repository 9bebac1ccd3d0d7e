"""The APIs describe themselves as they are: the routes and the document are one set, and answers are as it says."""

import base64
import html
import re
import shlex
from typing import Any

import jsonschema
import pytest
from support.clients import Caller
from support.factories import record
from support.upload_access import SPECIFICATION, ask, filled

from myhealth.profiles.services import set_password
from wsgi import browse as browse_module
from wsgi import upload as upload_module
from wsgi.common.shared_views import NEW_WORDS as EXAMPLE_PASSWORD

# Pages and their files, and the description itself.
FOR_PEOPLE = ("/my", "/static/", "/docs", "/openapi.json")
MODULES = {"browse": browse_module, "upload": upload_module}


def routes_of(application: Any) -> set[tuple[str, str]]:
    """(method, path) of everything that is routed, the path without its closing slash and its filters."""
    return {
        (route.method.lower(), plain(re.sub(r"<(\w+)(:\w+)?>", r"{\1}", route.rule))) for route in application.routes
    }


def plain(path: str) -> str:
    return path.rstrip("/") or "/"


@pytest.mark.parametrize("name", MODULES)
def test_the_routes_and_the_document_are_the_same_set(request, name: str) -> None:
    caller = request.getfixturevalue(name)
    document = caller("GET", "/openapi.json").json
    described = {(verb, plain(path)) for path, verbs in document["paths"].items() for verb in verbs}
    routed = {(verb, path) for verb, path in routes_of(caller.application) if not path.startswith(FOR_PEOPLE)}
    assert described == {(verb, path) for verb, path in routed if path not in ("/", "/csv", "/refused", "/type-in")}


@pytest.mark.parametrize("name", MODULES)
def test_the_document_is_sound(request, name: str) -> None:
    document = request.getfixturevalue(name)("GET", "/openapi.json").json
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    named = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert named <= set(document["components"]["schemas"])
    ids = [said["operationId"] for verbs in document["paths"].values() for said in verbs.values()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", ["/reports/", "/reports/1/", "/users/", "/users/bholanath/", "/users/bholanath/reports/",
                                  "/users/bholanath/trends/", "/users/bholanath/trends/?code=8480-6",
                                  "/users/bholanath/access-log/", "/healthz", "/reports/?x=1", "/reports/9/", "/users/x/"])  # fmt: skip
@pytest.mark.parametrize("caller", ["bholanath", "dr.ayush", ""])
def test_an_answer_is_as_the_document_says(browse: Caller, log_in, path: str, caller: str) -> None:
    document = browse("GET", "/openapi.json").json
    route = path.partition("?")[0]
    (template,) = [each for each in document["paths"] if re.fullmatch(re.sub(r"{\w+}", "[^/]+", each), route)]
    check(document, "GET", template, browse("GET", path, token=log_in(caller) if caller else ""))


# Headers that any answer may have, of which a program need not be told.
USUAL = {
    "x-request-id",
    "content-type",
    "content-length",
    "content-encoding",
    "cache-control",
    "vary",
    "x-content-type-options",
}


def check(document: dict[str, Any], method: str, template: str, answer: Any) -> None:
    """The answer is one that the document tells of."""
    said = document["paths"][template][method.lower()]["responses"][str(answer.status_code)]
    sent = {name.lower() for name, _ in answer.headers} - USUAL
    assert sent <= {name.lower() for name in said.get("headers", {})}
    if "content" not in said:
        assert answer.data == b""
        return
    schema = said["content"][answer.mimetype]["schema"]
    told = answer.json if answer.mimetype.endswith("json") else answer.text
    whole = {**schema, "components": document["components"]}
    jsonschema.validate(told, whole, format_checker=jsonschema.FormatChecker())


SENDS = {
    "upload": [("get", "/users/", 200, ["Link"]), ("get", "/machines/", 200, []), ("post", "/logout/", 204, ["Tokens-Valid-After"]),
               ("put", "/users/{username}/", 200, ["Tokens-Valid-After"]), ("post", "/checkups/", 201, ["Idempotent-Replayed"]),
               ("post", "/checkups/", 401, ["WWW-Authenticate"]), ("get", "/login/", 429, ["Retry-After"])],
    "browse": [("get", "/reports/", 200, ["Link", "ETag"]), ("get", "/reports/", 304, ["Link", "ETag"]), ("get", "/reports/{report_id}/", 200, ["ETag"]),
               ("get", "/reports/", 503, ["Retry-After"]), ("get", "/reports/", 406, []), ("post", "/sync/call/{method}/", 200, [])],
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_headers_are_told_where_they_are_sent(request, name: str) -> None:
    document = request.getfixturevalue(name)("GET", "/openapi.json").json
    for method, path, status, sent in SENDS[name]:
        answer = document["paths"][path][method]["responses"][str(status)]
        assert list(answer.get("headers", {})) == sent, (method, path, status)


@pytest.mark.usefixtures("two_checkups")
@pytest.mark.parametrize(("method", "path"), SPECIFICATION, ids=" ".join)
def test_every_answer_of_the_upload_api_is_as_the_document_says(upload: Caller, log_in, method: str, path: str) -> None:
    document = upload("GET", "/openapi.json").json
    template = re.sub(r"<(\w+)(:\w+)?>", r"{\1}", path)
    for number, caller in enumerate(SPECIFICATION[method, path], 100):
        token = log_in(caller) if caller else ""
        check(document, method, template, ask(upload, method, path, token, number))
        if method in ("POST", "PUT"):
            for body in (b"{", [], {}, [record(number, disease=5), record(1, disease="other"), record(number)]):
                check(document, method, template, upload(method, filled(path), body, token=token))


@pytest.mark.parametrize("name", MODULES)
def test_the_page_shows_every_call_and_loads_nothing_from_elsewhere(request, name: str) -> None:
    caller = request.getfixturevalue(name)
    page = caller("GET", "/docs")
    assert page.status_code == 200
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    document = caller("GET", "/openapi.json").json
    for path, verbs in document["paths"].items():
        for verb, said in verbs.items():
            assert f"<b>{verb.upper()}</b> <code>{path}</code>" in page.text
            assert f'id="{said["operationId"]}"' in page.text
    assert page.text.count("A server error") == 1, "what every call may answer stands once"
    usual = page.text.partition('id="errors"')[2].partition("</dl>")[0]
    assert "<dt>500" in usual
    assert "<dt>409" not in usual, "what few of the calls with a 409 mean is not what it usually means"
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert set(loaded) == {"/", "/docs/docs.css", "/openapi.json"}
    assert "<script" not in page.text
    assert "`" not in page.text
    assert "<code>X-Request-ID</code>" in page.text
    style = caller("GET", "/docs/docs.css")
    assert style.mimetype == "text/css"
    assert "url(" not in style.text
    assert "@import" not in style.text


@pytest.mark.parametrize("name", MODULES)
def test_a_person_understands_what_the_document_says(name: str) -> None:
    """Sentences say what they are about, and the calls of a login stand together."""
    document = MODULES[name].PAGES["/openapi.json"].described
    said = [each for verbs in document["paths"].values() for each in verbs.values()]
    summaries = [each["summary"] for each in said]
    answers = [answer["description"] for each in said for answer in each["responses"].values()]
    assert not [text for text in summaries if re.match(r"(One|A|All|The|Whether|What) (?!public)", text)], (
        "a verb first"
    )
    assert not [text for text in answers if re.match(r"(They|It does|Not|Nobody|Refused)\b", text)]
    tags = {path: each["tags"] for path, verbs in document["paths"].items() for each in verbs.values()}
    login = {path for path, tag in tags.items() if tag == ["logging in"]}
    assert login >= {path for path in tags if path in ("/login/", "/invitations/", "/welcome/")}


def examples(page: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """The curl commands of /docs as (method, path, what the caller sends); deletions come last, the least first."""
    found = []
    for text in re.findall(r"<pre[^>]*>(curl .*?)</pre>", page.text, re.DOTALL):
        words = shlex.split(html.unescape(text))
        sent: dict[str, Any] = {"token": ""} if "Authorization: Bearer TOKEN" in words else {}
        method = words[words.index("--request") + 1] if "--request" in words else "GET"
        for option, kind in (("--json", "application/json"), ("--data", "application/x-www-form-urlencoded")):
            if option in words:
                method = "POST" if method == "GET" else method
                sent |= {"body": words[words.index(option) + 1].encode(), "headers": {"Content-Type": kind}}
        if "--user" in words:
            credentials = base64.b64encode(f"bholanath:{EXAMPLE_PASSWORD}".encode()).decode()
            sent["headers"] = {"Authorization": f"Basic {credentials}"}
        found.append((method, re.sub("^https?://[^/]+", "", words[-1]), sent))
    return sorted(found, key=lambda each: (each[0] == "DELETE", each[0] == "DELETE" and -len(each[1])))


@pytest.mark.usefixtures("two_checkups")
def test_every_example_of_the_upload_api_does_what_it_says(upload: Caller, log_in) -> None:
    set_password("bholanath", EXAMPLE_PASSWORD, rounds=4)
    calls = examples(upload("GET", "/docs"))
    document = upload("GET", "/openapi.json").json
    assert len(calls) == sum(len(verbs) for verbs in document["paths"].values())
    for method, path, sent in calls:
        answers = [try_example(upload, log_in, method, path, sent, who) for who in ("root", "dr.ayush", "tara")]
        expected = {"/welcome/": 401, "/rejections/1/discard/": 409}.get(path)  # a wrong code; it has just been stored
        assert expected in answers if expected else min(answers) < 300, (method, path, answers)


def test_every_example_of_the_browse_api_does_what_it_says(application, upload: Caller, browse: Caller, log_in) -> None:
    set_password("bholanath", EXAMPLE_PASSWORD, rounds=4)
    calls = examples(browse("GET", "/docs"))
    assert len(calls) == sum(len(verbs) for verbs in browse("GET", "/openapi.json").json["paths"].values()) - 2
    caller = Caller(application)
    for method, path, sent in calls:
        answer = try_example(caller, log_in, method, path, sent, "bholanath")
        missing = path.startswith(("/fhir/Patient/1", "/fhir/Observation/1")) or method == "DELETE"
        assert answer < 300 or (missing and answer in (403, 404)), (method, path, answer)


def try_example(api: Caller, log_in: Any, method: str, path: str, sent: dict[str, Any], who: str) -> int:
    token = {"token": log_in(who)} if "token" in sent else {}
    given = {name: value for name, value in sent.items() if name not in ("token", "body")}
    return int(api(method, path, sent.get("body"), **given, **token).status_code)

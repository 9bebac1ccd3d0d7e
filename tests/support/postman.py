"""Generate a Postman collection of both APIs from their OpenAPI descriptions.

`PYTHONPATH=tests python -m support.postman > examples/myhealth.postman_collection.json` writes the file; a test compares it.
Source: schema.getpostman.com, "Collection Format v2.1.0".
"""

import json
import re
import sys
from typing import Any

from wsgi import browse, upload
from wsgi.common.openapi import JSON

SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
VARIABLES = {
    "upload_url": "http://127.0.0.1:5000",
    "browse_url": "http://127.0.0.1:5001",
    "username": "bholanath",
    "password": "",
    "token": "",
    "report_id": "1",
    "resource_id": "1",
    "checkup_id": "1",
    "rejection_id": "1",
    "serial": "HC-2031-0007",
}
CREDENTIALS = '{"username": "{{username}}", "password": "{{password}}"}'
REMEMBER = "if (pm.response.code === 200) pm.collectionVariables.set('token', pm.response.json().token);"
# The request that revokes the token comes last; requests that create or change are sent empty, for users to fill in.
LAST = "/logout/"


def collection(documents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the collection of {"upload": OpenAPI document, "browse": …}: a folder each, a request for each operation.

    Each request tests that the description lists the response's status, and that it is below 500.
    """
    folders = [{"name": said["info"]["title"], "item": _items(name, said)} for name, said in documents.items()]
    return {
        "info": {"name": "MyHealth", "schema": SCHEMA, "description": "Made from both APIs' /openapi.json."},
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{token}}", "type": "string"}]},
        "variable": [{"key": key, "value": value} for key, value in VARIABLES.items()],
        "item": folders,
    }


def _items(name: str, document: dict[str, Any]) -> list[dict[str, Any]]:
    found = [
        _item(name, path, verb, said)
        for path, verbs in document["paths"].items()
        for verb, said in verbs.items()
        if not (verb == "delete" and path == "/users/{username}/")  # not by running a collection
    ]
    return sorted(found, key=lambda item: (LAST in item["request"]["url"], "/login/" not in item["request"]["url"]))


def _item(name: str, path: str, verb: str, said: dict[str, Any]) -> dict[str, Any]:
    url = f"{{{{{name}_url}}}}" + re.sub(r"{(\w+)}", r"{{\1}}", path)
    request: dict[str, Any] = {"method": verb.upper(), "url": url, "description": said.get("description", "")}
    if "requestBody" in said:
        body = CREDENTIALS if path in ("/login/", "/registration/") else "{}"
        request["body"] = {"mode": "raw", "raw": body}
        content = said["requestBody"]["content"]
        kind = JSON if JSON in content else next(iter(content))
        request["header"] = [{"key": "Content-Type", "value": kind}]
    if "basic" in str(said.get("security")):
        pairs = [{"key": key, "value": f"{{{{{key}}}}}", "type": "string"} for key in ("username", "password")]
        request["auth"] = {"type": "basic", "basic": pairs}
    return {"name": said["summary"], "request": request, "event": [{"listen": "test", "script": _script(path, said)}]}


def _script(path: str, said: dict[str, Any]) -> dict[str, Any]:
    known = [int(status) for status in said["responses"] if int(status) < 500]
    lines = [f"pm.test('the answer is a known one', () => pm.expect(pm.response.code).to.be.oneOf({known}));"]
    if path == "/login/":
        lines += ["pm.test('logged in', () => pm.response.to.have.status(200));", REMEMBER]
    return {"type": "text/javascript", "exec": lines}


def main() -> None:
    documents = {name: app.PAGES["/openapi.json"].described for name, app in (("upload", upload), ("browse", browse))}
    json.dump(collection(documents), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()

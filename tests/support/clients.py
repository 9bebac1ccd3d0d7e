"""Clients of the WSGI applications."""

from __future__ import annotations

import base64
import json
from typing import Any

from werkzeug.test import Client, TestResponse


class Caller:
    """Call a WSGI application as a client does, with a token if `token` is set."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.client = Client(application)
        self.token = ""

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> TestResponse:
        """Send a request; bytes are sent as they are, other bodies as JSON. `options`: headers, token, query_string."""
        headers = {"X-Request-ID": "of-a-test", **options.pop("headers", {})}
        token = options.pop("token", self.token)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        answer = self.client.open(path, method=method, data=body, headers=headers, **options)
        if answer.mimetype == "application/json" and answer.status_code >= 400:
            check_error_shape(answer.json)
            assert answer.headers["Cache-Control"] == "no-store"
        return answer


def check_error_shape(body: Any) -> None:
    """Check the error shape of both APIs; a bulk answer that refuses every record has items instead."""
    assert isinstance(body["details"], str)
    assert body["details"]
    if "items" in body:
        return
    assert set(body) == {"details", "code", "errors"}
    assert isinstance(body["code"], str)
    for error in body["errors"]:
        assert set(error) == {"index", "field", "message"}


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}

"""Logging in: the upload API decides."""

from __future__ import annotations

from typing import Any

from myhealth.profiles.login import ask_upload_api
from wsgi.browse_api.context import BrowseContext
from wsgi.common.application import json_error
from wsgi.common.openapi import Operation
from wsgi.common.requests import basic_credentials, client_address, read_json
from wsgi.common.views import View, json_response

CREDENTIALS_MAX_BYTES = 16 * 1024
TOKEN = {200: ("The upload API's token, and when it ends.", "Token")}
WRONG = {
    401: "The username or the password is wrong.",
    429: "Too many attempts; `Retry-After` says when to try again.",
    502: "The upload API is not well.",
    503: "The upload API is away; `Retry-After` says when to try again.",
    504: "The upload API takes too long.",
}


class LoginView(View):
    """GET with HTTP Basic, or POST with `{"username", "password"}`: the upload API's token, or its 401."""

    spec = {
        "get": Operation("Log in with HTTP Basic", TOKEN, errors=WRONG, security=("basic",)),
        "post": Operation("Log in", TOKEN, body="Credentials", errors=WRONG),
    }
    context: BrowseContext

    def get(self) -> Any:
        return self._answer(*(basic_credentials() or (None, None)))

    def post(self) -> Any:
        body = read_json(CREDENTIALS_MAX_BYTES, "username", "password")
        return self._answer(body.get("username"), body.get("password"))

    def _answer(self, username: Any, password: Any) -> Any:
        address = client_address(self.context.settings.trusted_proxies)
        token = ask_upload_api(self.context.settings.auth_url, username, password, address)
        if token is None:
            challenge = 'Basic realm="MyHealth", charset="UTF-8"'
            return json_error(401, WRONG[401], "wrong_credentials", WWW_Authenticate=challenge)
        return json_response(token)

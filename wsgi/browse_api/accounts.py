"""Logging in: the upload API decides."""

from __future__ import annotations

from typing import Any

from myhealth.profiles.login import ask_upload_api
from wsgi.browse_api.context import BrowseContext
from wsgi.common.application import json_error
from wsgi.common.requests import basic_credentials, client_address, read_json
from wsgi.common.views import View, json_response

CREDENTIALS_MAX_BYTES = 16 * 1024


class LoginView(View):
    """GET with HTTP Basic, or POST with `{"username", "password"}`: the upload API's token, or its 401."""

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
            message = "The username or the password is wrong."
            return json_error(401, message, "wrong_credentials", WWW_Authenticate=challenge)
        return json_response(token)

"""Login and logout, which the upload API decides."""

from typing import Any

import bottle

from wsgi.browse_api.context import ApiView, BrowseContext
from wsgi.browse_api.schemas import refusals
from wsgi.common.application import json_error
from wsgi.common.openapi import Operation
from wsgi.common.requests import BASIC, bearer_token, client_address
from wsgi.common.views import LoginView, json_response

TOKEN_ANSWER = {200: ("The upload API's token, and when it ends.", "Token")}
LOGIN_ERRORS = {
    401: "The username or the password is wrong.",
    429: "Too many attempts; `Retry-After` says when to try again.",
    502: "The upload API is not well.",
    503: "The upload API is away or takes too long; `Retry-After` says when to try again.",
}


class BrowseLogin(LoginView):
    """Answers with the upload API's token, or its 401."""

    spec = {
        "get": Operation("Log in with HTTP Basic", TOKEN_ANSWER, errors=LOGIN_ERRORS, security=("basic",)),
        "post": Operation("Log in", TOKEN_ANSWER, body="Credentials", errors=LOGIN_ERRORS),
    }
    context: BrowseContext

    def log_in(self, username: Any, password: Any) -> Any:
        address = client_address(self.context.settings.trusted_proxies)
        token = self.context.upload_api.log_in(username, password, address)
        if token is None:
            return json_error(401, LOGIN_ERRORS[401], "wrong_credentials", WWW_Authenticate=BASIC)
        token.pop("previous_login_at", None)  # the pages' own
        return json_response(token)


class ForwardedLogoutView(ApiView):
    """Revoke all tokens of the caller, at the upload API and here at once."""

    spec = {
        "post": Operation(
            "Log out everywhere",
            {204: ("Every token given out so far has ended.", None)},
            "everybody",
            errors=refusals(400),
        )
    }

    def post(self) -> Any:
        token = bearer_token()
        self.context.end_tokens(token, self.context.upload_api.log_out(token))
        return bottle.HTTPResponse(status=204)

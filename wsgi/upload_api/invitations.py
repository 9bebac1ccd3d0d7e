"""Invitations: an admin makes a code for a patient, who sets a password with it and is logged in."""

from typing import Any

from myhealth.common.errors import BadInput
from myhealth.end_logins import end_logins
from myhealth.profiles.invitations import accept, invite
from myhealth.profiles.passwords import check_acceptable
from myhealth.profiles.services import get_user
from wsgi.common.openapi import Operation
from wsgi.common.requests import CREDENTIALS_MAX_BYTES, note_login, read_json
from wsgi.common.views import json_response
from wsgi.upload_api.accounts import BEFORE, TOKEN, LoginWith
from wsgi.upload_api.context import UploadView

WRONG = "The username or the code is wrong. A code works once, for 14 days, and until there is a newer one."


class InvitationsView(UploadView):
    spec = {
        "post": Operation(
            "Make a code with which a patient sets a password; an earlier code ends",
            {201: ("The code, which is shown this once.", "Invitation")},
            ("admin",),
            body="NewInvitation",
            errors={404: "No user has that name.", 409: "Not a patient's, disabled, or not linked to a person."},
        )
    }

    def post(self) -> Any:
        username = read_json(CREDENTIALS_MAX_BYTES, "username").get("username")
        if not isinstance(username, str):
            raise BadInput("A username is needed, as text.")
        made = invite(username)
        return json_response({"username": made.username, "code": made.code, "expires_at": made.expires_at}, 201)


class WelcomeView(LoginWith):
    wrong = WRONG
    noted = {"with": "invitation"}
    spec = {
        "post": Operation(
            "Set one's password with the code of an invitation, and log in; logins before it end",
            TOKEN,
            body="Welcome",
            errors={401: WRONG, 429: "Too many attempts; `Retry-After` says when to try again."},
            sends=(BEFORE,),
        )
    }

    def post(self) -> Any:
        note_login()
        body = read_json(CREDENTIALS_MAX_BYTES, "username", "code", "password")
        if not all(isinstance(body.get(name), str) for name in ("username", "code", "password")):
            raise BadInput("A username, a code and the new password are needed, each as text.")
        check_acceptable(body["password"])
        settings = self.context.settings
        answer = self.log_in_if(body["username"], lambda: accept(**body, rounds=settings.bcrypt_rounds))
        if answer.status_code == 200:
            end_logins(settings, get_user(body["username"]))
        return answer

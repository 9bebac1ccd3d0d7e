"""Login, logout, registration, invitations, and the public key."""

from collections.abc import Callable
from typing import Any

import bottle

from myhealth.audit.events import Actor, find_last_login, record_event, record_refusal
from myhealth.common.errors import BadInput, Busy, Conflict, NotAllowed, TooManyAttempts
from myhealth.common.request_context import note_caller
from myhealth.common.text import fold_name
from myhealth.end_logins import end_logins
from myhealth.profiles.invitations import accept, invite
from myhealth.profiles.login_throttle import attempt, count_registration
from myhealth.profiles.passwords import check_acceptable
from myhealth.profiles.services import Login, check_login, create_user, get_user, revoke_tokens
from myhealth.profiles.upload_client import PREVIOUS_LOGIN
from wsgi.common.application import json_error
from wsgi.common.metrics import LOGINS
from wsgi.common.openapi import Operation
from wsgi.common.requests import BASIC, CREDENTIALS_MAX_BYTES, note_login, read_json
from wsgi.common.views import LoginView, View, json_response
from wsgi.upload_api.context import ENDED, UploadContext, UploadView, ended_header

WRONG = {401: "The username or the password is wrong.", 429: "Too many attempts; `Retry-After` says when to try again."}
TOKEN = {200: ("A token, and when it expires.", "Token")}
BEFORE = (
    PREVIOUS_LOGIN,
    {"type": "string", "format": "date-time"},
    "When the user's previous login was; absent if that is not known.",
)


class LoginWith(UploadView):
    """Gives a token for something that only the user knows; guesses are throttled. `wrong`: the answer to a wrong one.
    `noted`: details of the audit events."""

    login_required = False
    wrong: str = WRONG[401]
    noted: dict[str, Any] = {}

    def log_in_if(self, username: Any, check: Callable[[], Login | None]) -> Any:
        outcome = "failed"
        try:
            answer = self._log_in(username, check)
            outcome = "done" if answer.status_code == 200 else "wrong"
            return answer
        except TooManyAttempts:
            outcome = "throttled"
            raise
        except Busy:
            outcome = "busy"
            raise
        finally:
            LOGINS.labels(outcome).inc()

    def _log_in(self, username: Any, check: Callable[[], Login | None]) -> bottle.HTTPResponse:
        named = username.strip() if isinstance(username, str) else ""
        unknown = Actor(None, None, self.address)  # who tries that name is not known
        try:
            with attempt(named, self.address) as made:
                login = check()
                made.succeeded = login is not None
        except TooManyAttempts:
            record_refusal(
                "login",
                fold_name(named),
                kind="429",
                actor=unknown,
                subject=named,
                reason="too many attempts",
                **self.noted,
            )
            raise
        if login is None:
            record_event("login", outcome="refused", actor=unknown, subject=named, **self.noted)
            return json_error(401, self.wrong, "wrong_credentials", WWW_Authenticate=BASIC)
        since = find_last_login(login.user.id)
        note_caller(login.user.id, login.user.role)
        record_event("login", actor=Actor(login.user.id, login.user.username, self.address), **self.noted)
        service = login.user.role == "service"
        token, expires_at = self.context.signer.sign(login.user.subject, login.at.timestamp(), service=service)
        before = since.pop("previous_login_at", None)
        headers = {PREVIOUS_LOGIN: before.isoformat()} if before else {}
        return json_response({"token": token, "expires_at": expires_at, **since}, headers=headers)


class UploadLogin(LoginView, LoginWith):
    spec = {
        "get": Operation("Log in with HTTP Basic", TOKEN, errors=WRONG, security=("basic",), sends=(BEFORE,)),
        "post": Operation("Log in", TOKEN, body="Credentials", errors=WRONG, sends=(BEFORE,)),
    }

    def log_in(self, username: Any, password: Any) -> Any:
        rounds = self.context.settings.bcrypt_rounds
        return self.log_in_if(username, lambda: check_login(username, password, rounds=rounds))


class LogoutView(UploadView):
    @Operation(
        "Log out everywhere", {204: ("All tokens issued so far are revoked.", None)}, "everybody", sends=(ENDED,)
    )
    def post(self) -> Any:
        return bottle.HTTPResponse(status=204, headers=ended_header(revoke_tokens(self.user.id)))


class RegistrationView(UploadView):
    """Create a patient's account without a login. It is not linked to a person, so records for it are rejected."""

    login_required = False

    @Operation(
        "Create an account of a patient; it receives no records until an admin links it",
        {201: ("New user created", "Details")},
        body="NewAccount",
        errors={403: "Registration is closed.", 429: "Too many accounts were created from this network."},
    )
    def post(self) -> Any:
        if not self.context.settings.registration_open:
            record_refusal("register")
            raise NotAllowed("Registration is closed; ask for an account.", code="registration_closed")
        body = read_json(CREDENTIALS_MAX_BYTES, "username", "password")
        username, password = body.get("username"), body.get("password")
        if not isinstance(username, str) or not isinstance(password, str):
            raise BadInput("A username and a password are needed, both as text.")
        count_registration(self.address)
        try:
            create_user(username, password=password, rounds=self.context.settings.bcrypt_rounds, self_registered=True)
        except Conflict:  # taken or erased: the answer is the same
            return json_error(400, "User with same information is already exists.", "user_exists")
        return json_response({"details": "New user created"}, 201)


class JwksView(View):
    """The public key that tokens are verified with."""

    context: UploadContext

    @Operation("The public key that tokens are verified with", {200: ("A JSON Web Key Set (RFC 7517).", "Jwks")})
    def get(self) -> Any:
        return json_response(self.context.signer.jwks(), headers={"Cache-Control": "public, max-age=300"})


WRONG_CODE = "The username or the code is wrong. A code works once, for 14 days, and until there is a newer one."


class InvitationsView(UploadView):
    @Operation(
        "Create a code with which a patient sets a password; an earlier code stops working",
        {201: ("The code; it is shown only once.", "Invitation")},
        ("admin",),
        body="NewInvitation",
        errors={
            404: "No user has that name.",
            409: "The account is not a patient's, is disabled, or is not linked to a person.",
        },
    )
    def post(self) -> Any:
        username = read_json(CREDENTIALS_MAX_BYTES, "username").get("username")
        if not isinstance(username, str):
            raise BadInput("A username is needed, as text.")
        made = invite(username)
        return json_response({"username": made.username, "code": made.code, "expires_at": made.expires_at}, 201)


class WelcomeView(LoginWith):
    wrong = WRONG_CODE
    noted = {"with": "invitation"}

    @Operation(
        "Set a password with the code of an invitation, and log in; earlier logins end",
        TOKEN,
        body="Welcome",
        errors={**WRONG, 401: WRONG_CODE},
        sends=(BEFORE,),
    )
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

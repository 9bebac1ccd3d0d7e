"""Accounts: login, logout, registration, invitations and the public key; users, whom admins create, change and delete,
doctors read, and who read themselves."""

from collections.abc import Callable
from typing import Any

import bottle
from msgspec.structs import replace

from myhealth.audit.events import Actor, acting_as, current_actor, find_last_login, record_event, record_refusal
from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, Busy, Conflict, NotAllowed, TooManyAttempts
from myhealth.common.request_context import note_caller
from myhealth.common.text import fold_name
from myhealth.end_logins import end_logins
from myhealth.intake.retry import count_waiting, link_patient, store_waiting
from myhealth.privacy.erasure import erase_user
from myhealth.profiles import identifiers, services
from myhealth.profiles.invitations import accept, invite
from myhealth.profiles.login_throttle import attempt, count_registration
from myhealth.profiles.models import User
from myhealth.profiles.passwords import check_acceptable, password_matches
from myhealth.profiles.upload_client import PREVIOUS_LOGIN
from wsgi.common.application import json_error
from wsgi.common.metrics import LOGINS
from wsgi.common.openapi import Operation, after_parameter
from wsgi.common.requests import BASIC, CREDENTIALS_MAX_BYTES, address_with_proxy, note_login, read_json
from wsgi.common.views import LoginView, View, json_response, list_response, page_limit
from wsgi.upload_api.context import ENDED, UploadContext, UploadView, ended_header, record_shown
from wsgi.upload_api.schemas import LIMIT_QUERY

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

    def log_in_if(self, username: Any, check: Callable[[], services.Login | None]) -> Any:
        outcome = "failed"
        try:
            answer = self._log_in(username, check)
            outcome = "done" if answer.status_code == 200 else "wrong"
            return answer
        except (TooManyAttempts, Busy) as error:
            outcome = "busy" if isinstance(error, Busy) else "throttled"
            raise
        finally:
            LOGINS.labels(outcome).inc()

    def _log_in(self, username: Any, check: Callable[[], services.Login | None]) -> bottle.HTTPResponse:
        named = username.strip() if isinstance(username, str) else ""
        unknown = Actor(None, None, self.address)  # who tries that name is not known
        try:
            with attempt(named, self.address) as made:
                login = check()
                made.succeeded = login is not None
        except TooManyAttempts:
            facts: dict[str, Any] = {"subject": named, "reason": "too many attempts", **self.noted}
            record_refusal("login", fold_name(named), kind="429", actor=unknown, **facts)
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
        return self.log_in_if(username, lambda: services.check_login(username, password, rounds=rounds))


class LogoutView(UploadView):
    @Operation(
        "Log out everywhere", {204: ("All tokens issued so far are revoked.", None)}, "everybody", sends=(ENDED,)
    )
    def post(self) -> Any:
        return bottle.HTTPResponse(status=204, headers=ended_header(services.revoke_tokens(self.user.id)))


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
            services.create_user(
                username, password=password, rounds=self.context.settings.bcrypt_rounds, self_registered=True
            )
        except Conflict:  # taken or erased: the answer is the same
            return json_error(400, "User with same information is already exists.", "user_exists")
        return json_response({"details": "New user created"}, 201)


class JwksView(View):
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
            end_logins(settings, services.get_user(body["username"]))
        return answer


AFTER_QUERY = after_parameter(type="string", minLength=1, pattern=r"^[^\x00]*$")
TO_REVIEW_QUERY = (
    "to_review", {"type": "boolean"}, "Only accounts to be linked to a person, with how many records are `waiting`.",
)  # fmt: skip
ADMIN = ("admin",)
SAME_USER = "User with same information is already exists."
UNKNOWN = {404: "No user has that name, or the caller may not see that user."}
NEW_USER_FIELDS = ("username", "password", "role", "full_name", "birth_date", "sex", "reuse_erased_name")
CHANGES: dict[str, Any] = {
    "username": str, "full_name": str, "password": str, "current_password": str, "role": str, "active": bool,
    "birth_date": str | None, "sex": str | None, "identifiers": list,
}  # fmt: skip
FOR_ADMINS = ("birth_date", "sex", "identifiers")  # they decide whose records are stored for whom
KINDS = {bool: "true or false", list: "a list", str: "text"}


def user_json(user: User) -> dict[str, Any]:
    names = ("id", "username", "role", "full_name", "birth_date", "sex", "active", "linked_at", "created_at")
    return {name: getattr(user, name) for name in (*names, "updated_at")}


def whole_user_json(user: User) -> dict[str, Any]:
    numbers = [{"system": system, "value": value} for system, value in identifiers.list_identifiers(user)]
    return {**user_json(user), "identifiers": numbers}


class UsersView(UploadView):
    @Operation(
        "List users by name",
        {200: ("Users; callers who are neither doctor nor admin see only themselves.", ["User"])},
        "everybody",
        query=(LIMIT_QUERY, AFTER_QUERY, TO_REVIEW_QUERY),
        errors={400: "`limit`, `after` or `to_review` is wrong.", 403: "`to_review` is for admins only."},
    )  # fmt: skip
    def get(self) -> Any:
        limit, after, to_review = page_limit(self.parameters), self.parameters.get("after", ""), self.flag("to_review")
        if "\0" in after:  # PostgreSQL cannot compare it with a name
            raise BadInput("after must be the value that a Link header gave.")
        if self.user.role not in ("doctor", "admin"):
            return json_response([user_json(self.user)] if self.user.folded_name > fold_name(after) else [])
        query = {}
        if to_review:
            self.require("admin")
            query["to_review"] = "true"
        found = services.list_users(after=after, limit=limit + 1, to_review=to_review)
        record_event("read", what="people")
        record_shown(user for user in found[:limit] if user.id != self.user.id)
        waiting = count_waiting() if to_review else {}
        users = [user_json(user) | ({"waiting": waiting[user.folded_name]} if to_review else {}) for user in found]
        return list_response(users, limit, "username", **query)

    @Operation(
        "Create a user", {201: ("The user.", "User")}, ADMIN, body="NewUser",
        errors={409: "The name is taken, or was an erased user's."},
    )  # fmt: skip
    def post(self) -> Any:
        body = read_json(CREDENTIALS_MAX_BYTES, *NEW_USER_FIELDS)
        password = body.get("password")
        if not isinstance(body.get("username"), str) or not isinstance(password, (str, type(None))):
            raise BadInput("A username is needed, as text; a password, if there is one, too.")
        if not isinstance(body.get("reuse_erased_name", False), bool):
            raise BadInput("reuse_erased_name must be true or false.")
        values = {name: body[name] for name in NEW_USER_FIELDS[2:] if name in body}
        rounds = self.context.settings.bcrypt_rounds
        try:
            user = services.create_user(body["username"], password=password, rounds=rounds, **values)
        except Conflict as error:
            raise Conflict(SAME_USER, code=error.code) from error
        return json_response(whole_user_json(user), 201)


class LinkView(UploadView):
    @Operation(
        "Link an account that registered itself to its person, and store the records that waited for that",
        {200: ("The account is linked.", "Linked")}, ADMIN, errors=UNKNOWN,
    )  # fmt: skip
    def post(self, username: str) -> Any:
        authorities = self.context.settings.intake.folded_authorities
        return json_response({"details": "The account is linked.", **link_patient(username, authorities)})


class UserView(UploadView):
    @Operation("Show a user", {200: ("The user.", "User")}, "the user, doctor, admin", errors=UNKNOWN)
    def get(self, username: str) -> Any:
        user = self.person(username, "doctor", "admin")
        self.record_read(user, "profile")
        return json_response(whole_user_json(user))

    @Operation(
        "Change a user",
        {200: ("The user.", "User")},
        "the user (full_name; password with current_password), admin",
        body="UserChanges",
        sends=(ENDED,),
        errors={
            **UNKNOWN,
            403: "`username`, `birth_date`, `sex` and `identifiers` are for admins; `role` and `active` are for"
            " admins, of other users.",
            409: "The name, or an identifier, is taken.",
            429: "Too many wrong passwords; `Retry-After` says when to try again.",
        },
    )  # fmt: skip
    def put(self, username: str) -> Any:
        user = self.person(username, "admin")
        body = read_json(CREDENTIALS_MAX_BYTES, *CHANGES)
        self._check_changes(user, body)
        try:
            with transaction():  # all changes or none of them
                name = self._change(user, body)
        except Conflict as error:
            raise Conflict(error.message if error.code == "identifier_taken" else SAME_USER, code=error.code) from error
        if "identifiers" in body:
            store_waiting(user, self.context.settings.intake.folded_authorities)
        changed = services.get_user(name)
        if changed.revision == user.revision:  # nothing was changed, but the user is shown
            self.record_read(user, "profile")
        if any(getattr(changed, name) != getattr(user, name) for name in ("tokens_valid_after", "role", "active")):
            end_logins(self.context.settings, changed)
        return json_response(whole_user_json(changed), headers=ended_header(changed.tokens_valid_after))

    @Operation(
        "Delete a user and all of his or her check-ups", {204: ("The user is deleted.", None)}, ADMIN,
        errors={**UNKNOWN, 403: "For admins only, and not for oneself."},
    )  # fmt: skip
    def delete(self, username: str) -> Any:
        user = self.person(username, "admin")
        if user.id == self.user.id:
            self.refuse(user, "Users cannot delete themselves; another admin can.")
        with acting_as(replace(current_actor(), address=address_with_proxy(self.address))):
            erase_user(user.username)
        end_logins(self.context.settings, user)
        return bottle.HTTPResponse(status=204)

    def _check_changes(self, user: User, body: dict[str, Any]) -> None:
        wrong = [name for name, value in body.items() if not isinstance(value, CHANGES[name])]
        if wrong:
            message = f"must be {KINDS.get(CHANGES[wrong[0]], 'text or null')}"
            raise BadInput("The user was not changed.", errors=[{"index": None, "field": wrong[0], "message": message}])
        is_admin, oneself = self.user.role == "admin", user.id == self.user.id
        renamed = "username" in body and fold_name(body["username"]) != fold_name(user.username)
        if renamed and not is_admin:
            self.refuse(user, "Only an admin changes a username.")
        if not is_admin and not body.keys().isdisjoint(FOR_ADMINS):
            self.refuse(user, "Only an admin changes a birth date, a sex or identifiers.")
        if oneself and ("role" in body or "active" in body):
            self.refuse(user, "Users cannot change their own role or disable themselves.")
        if oneself and "password" in body and not self._knows_password(user, body):
            self.refuse(user, "The current password is needed to set a new one.", code="current_password_wrong")

    def _knows_password(self, user: User, body: dict[str, Any]) -> bool:
        """Check the current password. Guesses count as login attempts, and are throttled like them."""
        rounds = self.context.settings.bcrypt_rounds
        try:
            with attempt(user.username, self.address) as made:
                made.succeeded = password_matches(body.get("current_password", ""), user.password_hash, rounds)
        except TooManyAttempts:
            self.record_refusal(user, kind="429")
            raise
        return made.succeeded

    def _change(self, user: User, body: dict[str, Any]) -> str:
        """Make the changes; return the user's name after them."""
        if "role" in body:
            services.set_role(user.username, body["role"])
        if "full_name" in body:
            services.set_full_name(user.username, body["full_name"])
        services.set_person(user.username, **{name: body[name] for name in ("birth_date", "sex") if name in body})
        if "identifiers" in body:
            identifiers.set_identifiers(user.username, body["identifiers"])
        if "password" in body:
            services.set_password(user.username, body["password"], rounds=self.context.settings.bcrypt_rounds)
        if "active" in body:
            services.set_active(user.username, body["active"])
        if "username" in body and self.user.role == "admin":
            return services.rename_user(user.username, body["username"])
        return user.username

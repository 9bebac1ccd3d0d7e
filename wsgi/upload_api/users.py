"""Users: admins create, change and delete them, doctors read them, and every user reads himself or herself."""

from typing import Any

import bottle
from msgspec.structs import replace

from myhealth.audit.events import acting_as, current_actor, record_event
from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, Conflict, NotAllowed, TooManyAttempts
from myhealth.common.text import fold_name
from myhealth.end_logins import end_logins
from myhealth.intake.retry import count_waiting, link_patient, store_waiting
from myhealth.privacy.erasure import erase_user
from myhealth.profiles import identifiers, services
from myhealth.profiles.login_throttle import attempt
from myhealth.profiles.models import User
from myhealth.profiles.passwords import password_matches
from wsgi.common.openapi import Operation, after_parameter, limit_parameter
from wsgi.common.requests import address_with_proxy, read_json
from wsgi.common.views import LIMIT, LIMIT_MAX, json_response, list_response, page_limit
from wsgi.upload_api.context import ENDED, UploadView, ended_header, record_shown

BODY_MAX_BYTES = 16 * 1024
LIMIT_QUERY = limit_parameter(LIMIT_MAX, LIMIT)
WRONG_PAGE = {400: "`limit` or `after` is wrong."}
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


def _after() -> str:
    """Return the name after which the page begins. Raises BadInput if PostgreSQL cannot compare it with a name."""
    after: str | None = bottle.request.query.getunicode("after")
    if "after" in bottle.request.query and (after is None or "\0" in after):
        raise BadInput("after must be the value that a Link header gave.")
    return after or ""


class UsersView(UploadView):
    @Operation(
        "List users by name",
        {200: ("Users; callers who are neither doctor nor admin see only themselves.", ["User"])},
        "everybody",
        query=(LIMIT_QUERY, AFTER_QUERY, TO_REVIEW_QUERY),
        errors={400: "`limit`, `after` or `to_review` is wrong.", 403: "`to_review` is for admins only."},
    )  # fmt: skip
    def get(self) -> Any:
        limit, after, to_review = page_limit(bottle.request.query), _after(), self.flag("to_review")
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
        return list_response(users, limit, lambda user: str(user["username"]), **query)

    @Operation(
        "Create a user", {201: ("The user.", "User")}, ADMIN, body="NewUser",
        errors={409: "The name is taken, or was an erased user's."},
    )  # fmt: skip
    def post(self) -> Any:
        body = read_json(BODY_MAX_BYTES, *NEW_USER_FIELDS)
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
        body = read_json(BODY_MAX_BYTES, *CHANGES)
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
            self.record_refusal(user)
            raise NotAllowed("Users cannot delete themselves; another admin can.")
        with acting_as(replace(current_actor(), address=address_with_proxy(self.address))):
            erase_user(user.username)
        end_logins(self.context.settings, user)
        return bottle.HTTPResponse(status=204)

    def _check_changes(self, user: User, body: dict[str, Any]) -> None:
        wrong = [name for name, value in body.items() if not isinstance(value, CHANGES[name])]
        if wrong:
            message = f"must be {KINDS.get(CHANGES[wrong[0]], 'text or null')}"
            raise BadInput("The user was not changed.", errors=[{"index": None, "field": wrong[0], "message": message}])
        renamed = "username" in body and fold_name(body["username"]) != fold_name(user.username)
        if renamed and self.user.role != "admin":
            self.record_refusal(user)
            raise NotAllowed("Only an admin changes a username.")
        if self.user.role != "admin" and not body.keys().isdisjoint(FOR_ADMINS):
            self.record_refusal(user)
            raise NotAllowed("Only an admin changes a birth date, a sex or identifiers.")
        oneself = user.id == self.user.id
        if oneself and ("role" in body or "active" in body):
            self.record_refusal(user)
            raise NotAllowed("Users cannot change their own role or disable themselves.")
        if oneself and "password" in body and not self._knows_password(user, body):
            self.record_refusal(user)
            raise NotAllowed("The current password is needed to set a new one.", code="current_password_wrong")

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

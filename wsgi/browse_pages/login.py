"""The login, the logout, and the forms that set a password; the upload API checks and stores it.

A cookie holds the session.
"""

import contextlib
from datetime import UTC, datetime
from typing import Any

import bottle

from myhealth.common.errors import BadInput, MyHealthError, NotLoggedIn, TooManyAttempts, Unavailable
from myhealth.common.request_context import client_address
from myhealth.profiles.passwords import MIN_CHARACTERS, check_acceptable
from wsgi.browse_api.context import STAFF
from wsgi.browse_pages import session
from wsgi.browse_pages.base import LoggedInPage, Page, redirect
from wsgi.browse_pages.navigation import link
from wsgi.common.requests import note_login

FIRST = "Please log in to see that page."
ENDED = "Your session has ended. Please log in again."
WRONG = "The username or the password is not right. Please check both; capitals matter in the password."
UNAVAILABLE = "Logging in is not possible right now. Nothing of yours is lost; please try again in a few minutes."
NO_COOKIE = (
    "Your browser did not send back the cookie that logging in needs. Please try again; if this comes again, allow"
    " cookies for this site, and make sure that its address begins with https://."
)
# Messages for redirects to the login page, by the value of the query parameter `said`.
MESSAGES = {
    "password": "Your password is changed. Please log in with the new one.",
    "out": "You are logged out, here and on your other devices.",
    "out-here": "You are logged out in this browser. Your other devices could not be reached; to log them out too,"
    " log in and out once more in a few minutes.",
}
WRONG_CODE = (
    "The username or the code is not right. A code works once, for 14 days, and only until you get a newer one. Please"
    " check both, or ask for a new code where you had your check-up."
)
NOT_SET = "The password cannot be set right now. Your code still works; please try again in a few minutes."
WRONG_PASSWORD = "The current password is not right. Nothing was changed; please try again."  # noqa: S105
DIFFERENT = "The new password was typed in two different ways. Nothing was changed; please type it twice alike."
SAME = "That is the password that you have already. Please choose another one."
UNACCEPTABLE = "This password cannot be used: {}. Nothing was changed; please choose another one."
NOT_CHANGED = "The password cannot be changed right now. Please try again in a few minutes."
UNSURE = (
    "It took too long, so it is not known whether the password was changed. Please try to log in with the new one, and"
    " if that fails with the old one."
)


class VisitorPage(Page):
    """A page with a form for a visitor who has no session yet. `template`: of the page; `shown`: the fields that stay
    filled in after a failure; `unavailable`, `unsure`: what it says if the upload API does not answer, or too late."""

    template: str
    shown: tuple[str, ...]
    unavailable: str
    unsure: str

    def post(self) -> Any:
        note_login()
        form = session.read_form()
        try:
            session.require_form_key(form, session.presented_visitor())
            return self.log_in(form, client_address())
        except MyHealthError as error:
            unavailable = self.unsure if error.status == 504 else self.unavailable
            texts: dict[type[MyHealthError], str] = {session.CsrfError: NO_COOKIE, TooManyAttempts: error.message}
            answer = self.form(form, texts.get(type(error), unavailable), error.status)
            if isinstance(error, Unavailable):
                answer.set_header("Retry-After", str(error.retry_after_s))
            return answer

    def log_in(self, form: dict[str, str], address: str) -> bottle.HTTPResponse:
        """Ask the upload API; return the redirect to the first page, or the form with the reason of a failure."""
        raise NotImplementedError

    def form(self, form: dict[str, str], message: str = "", status: int = 200, **more: Any) -> bottle.HTTPResponse:
        """Return the page with the form."""
        visitor = session.visitor()
        more |= {name: form.get(name, "")[:200] for name in self.shown}
        answer = self.render(self.template, status, message=message, login_key=session.form_key(visitor), **more)
        session.set_cookie(answer, session.VISITOR, visitor, None)
        if status == 401:
            answer.set_header("WWW-Authenticate", 'Bearer realm="MyHealth"')
        return answer

    def logged_in(self, token: dict[str, str], target: str = session.HOME) -> bottle.HTTPResponse:
        """Return the redirect to the page `target`, with the cookies of the session. Staff start with the patients, not
        with their own reports."""
        if target == session.HOME:
            with contextlib.suppress(NotLoggedIn, Unavailable):  # that page shows the error
                target = link("patients") if self.context.user_of_token(token["token"])[0]["role"] in STAFF else target
        answer = redirect(target)
        ttl_s = seconds_until(token["expires_at"])
        session.keep_session(answer, token["token"], ttl_s)
        if "previous_login_at" in token:
            session.set_cookie(answer, session.SINCE, token["previous_login_at"], ttl_s)
        if "password_reset_at" in token:
            session.set_cookie(answer, session.NOTICE, session.SET_BY_ANOTHER, None)
        elif session.cookie(session.NOTICE):  # another user's, who has not seen it
            session.set_cookie(answer, session.NOTICE, "", 0)
        return answer


class LoginPage(VisitorPage):
    """GET shows the form. POST logs in at the upload API, and redirects or shows the reason of a failure."""

    template, shown, unavailable, unsure = "login", ("username",), UNAVAILABLE, UNAVAILABLE

    def get(self) -> Any:
        said, target = bottle.request.query.get("said", ""), bottle.request.query.get("next", "")
        message = MESSAGES.get(said, "")
        if session.cookie(session.SESSION):
            try:
                self.context.user_of_token(session.cookie(session.SESSION))
                return redirect(session.safe_target(target))
            except NotLoggedIn:
                message = ENDED
            except Unavailable as error:
                return self.failed(error)
        elif not message and session.safe_target(target) != session.HOME:
            message = FIRST
        answer = self.form({"next": target}, message, tone="info")
        if session.cookie(session.SESSION):
            session.end_session(answer)
        return answer

    def log_in(self, form: dict[str, str], address: str) -> bottle.HTTPResponse:
        token = self.context.upload_api.log_in(form.get("username", ""), form.get("password", ""), address)
        if token is None:
            return self.form(form, WRONG, 401)
        return self.logged_in(token, session.safe_target(form.get("next", "")))

    def form(self, form: dict[str, str], message: str = "", status: int = 200, **more: Any) -> bottle.HTTPResponse:
        target = session.safe_target(form.get("next", ""))
        return super().form(form, message, status, **{"tone": "bad", "target": target, **more})


class WelcomePage(VisitorPage):
    """GET shows the form with which an invited person sets a password. POST sets it and logs in, or shows the reason of
    a failure."""

    template, shown, unavailable, unsure = "welcome", ("username", "code"), NOT_SET, UNSURE

    def get(self) -> Any:
        return self.form({})

    def log_in(self, form: dict[str, str], address: str) -> bottle.HTTPResponse:
        username, code, new = (form.get(name, "") for name in ("username", "code", "new"))
        if error_text := check_new(new, form.get("again", "")):
            return self.form(form, error_text, 400)
        token = self.context.upload_api.accept_invitation(username, code, new, address)
        return self.form(form, WRONG_CODE, 401) if token is None else self.logged_in(token)

    def form(self, form: dict[str, str], message: str = "", status: int = 200, **more: Any) -> bottle.HTTPResponse:
        return super().form(form, message, status, fewest=MIN_CHARACTERS)


class LogoutPage(Page):
    """Ends the session in this browser and, through the upload API, on all devices."""

    def post(self) -> Any:
        token = session.cookie(session.SESSION)
        if not token:
            return redirect("/my/login")
        session.require_form_key(session.read_form(), token)
        try:
            self.context.end_tokens(token, self.context.upload_api.log_out(token))
            message = "out"
        except Unavailable:
            message = "out-here"
        answer = redirect(f"/my/login?said={message}")
        session.end_session(answer)
        answer.set_header("Clear-Site-Data", '"cache"')
        return answer

    def get(self) -> Any:
        return redirect(session.HOME)


class PasswordPage(LoggedInPage):
    """GET shows the form. POST changes the password and ends all sessions, or shows the reason of a failure."""

    def get(self) -> Any:
        return self._form()

    def post(self) -> Any:
        token = session.cookie(session.SESSION)
        form = session.read_form()
        session.require_form_key(form, token)
        current, new = form.get("current", ""), form.get("new", "")
        error_text = SAME if new == current else check_new(new, form.get("again", ""))
        if error_text:
            return self._form(error_text, 400)
        try:
            valid_after = self.context.upload_api.change_password(
                self.user["username"], token, current, new, self.address
            )
        except TooManyAttempts as error:
            return self._form(error.message, error.status, error.retry_after_s)
        except Unavailable as error:
            return self._form(UNSURE if error.status == 504 else NOT_CHANGED, error.status, error.retry_after_s)
        except NotLoggedIn:
            raise
        except MyHealthError as error:
            wrong = error.code == "current_password_wrong"
            return self._form(WRONG_PASSWORD if wrong else NOT_CHANGED, 400 if wrong else 502)
        with contextlib.suppress(Unavailable):  # the sync ends the old sessions later
            self.context.end_tokens(token, valid_after)
        answer = redirect("/my/login?said=password")
        session.end_session(answer)
        return answer

    def _form(self, message: str = "", status: int = 200, retry_after_s: int = 0) -> bottle.HTTPResponse:
        answer = self.render("password", status, message=message, username=self.user["username"], fewest=MIN_CHARACTERS)
        if retry_after_s:
            answer.set_header("Retry-After", str(retry_after_s))
        return answer


def seconds_until(moment: str) -> int | None:
    """Return the seconds from now to a moment in the upload API's response; None if it is not a moment, so that the
    session lasts until the browser is closed."""
    try:
        return max(0, int((datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()))
    except (ValueError, TypeError):
        return None


def check_new(new: str, again: str) -> str:
    """Return the error of a new password that a page finds without the upload API, or ""."""
    if new != again:
        return DIFFERENT
    try:
        check_acceptable(new)
    except BadInput as error:
        return UNACCEPTABLE.format(error.message)
    return ""

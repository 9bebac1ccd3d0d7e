"""The login and the logout; a cookie holds the session."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import bottle

from myhealth.common.errors import MyHealthError, NotLoggedIn, TooManyAttempts, Unavailable
from wsgi.browse_api.context import STAFF
from wsgi.browse_pages import session
from wsgi.browse_pages.base import Page, redirect
from wsgi.browse_pages.navigation import link
from wsgi.common.requests import client_address, note_login

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


def seconds_until(moment: str) -> int | None:
    """Return the seconds from now to a moment in the upload API's response; None if it is not a moment, so that the
    session lasts until the browser is closed."""
    try:
        return max(0, int((datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()))
    except (ValueError, TypeError):
        return None


class LoginPage(Page):
    """GET shows the form. POST logs in at the upload API, and redirects or shows the reason of a failure."""

    def get(self) -> Any:
        message, tone = MESSAGES.get(bottle.request.query.get("said", ""), ""), "info"
        if session.session_token():
            try:
                self.context.user_of_token(session.session_token())
                return redirect(session.safe_target(bottle.request.query.get("next", "")))
            except NotLoggedIn:
                message = ENDED
            except Unavailable as error:
                return self.failed(error)
        elif not message and session.safe_target(bottle.request.query.get("next", "")) != session.HOME:
            message = FIRST
        answer = self._form(message, tone, bottle.request.query.get("next", ""))
        if session.session_token():
            session.end_session(answer)
        return answer

    def post(self) -> Any:
        note_login()
        form = session.read_form()
        username, password = form.get("username", ""), form.get("password", "")
        try:
            session.require_form_key(form, session.presented_visitor())
            address = client_address(self.context.settings.trusted_proxies)
            token = self.context.upload_api.log_in(username, password, address)
        except MyHealthError as error:
            return self._refused(error, form)
        if token is None:
            return self._form(WRONG, "bad", form.get("next", ""), 401, username)
        return self.logged_in(token, session.safe_target(form.get("next", "")))

    def logged_in(self, token: dict[str, str], target: str = session.HOME) -> bottle.HTTPResponse:
        """Return the redirect to the first page, with the cookies of the session."""
        answer = redirect(self._target(token["token"], target))
        ttl_s = seconds_until(token["expires_at"])
        session.keep_session(answer, token["token"], ttl_s)
        if "previous_login_at" in token:
            session.keep_previous_login(answer, token["previous_login_at"], ttl_s)
        if "password_reset_at" in token:
            session.keep_notice(answer)
        return answer

    def _target(self, token: str, target: str) -> str:
        """Return the page after the login. Staff start with the patients, not with their own reports."""
        if target != session.HOME:
            return target
        try:
            return link("patients") if self.context.user_of_token(token)["role"] in STAFF else target
        except (NotLoggedIn, Unavailable):
            return target  # that page shows the error

    def _refused(self, error: MyHealthError, form: dict[str, str]) -> bottle.HTTPResponse:
        texts: dict[type[MyHealthError], str] = {session.CsrfError: NO_COOKIE, TooManyAttempts: error.message}
        message = texts.get(type(error), UNAVAILABLE)
        answer = self._form(message, "bad", form.get("next", ""), error.status, form.get("username", ""))
        if isinstance(error, Unavailable):
            answer.set_header("Retry-After", str(error.retry_after_s))
        return answer

    def _form(self, message: str, tone: str, target: str, status: int = 200, username: str = "") -> bottle.HTTPResponse:
        visitor = session.visitor()
        answer = self.render(
            "login",
            status,
            message=message,
            tone=tone,
            target=session.safe_target(target),
            username=username[:200],
            login_key=session.form_key(visitor),
        )
        session.keep_visitor(answer, visitor)
        if status == 401:
            answer.set_header("WWW-Authenticate", 'Bearer realm="MyHealth"')
        return answer


class LogoutPage(Page):
    """Ends the session in this browser and, through the upload API, on all devices."""

    def post(self) -> Any:
        token = session.session_token()
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

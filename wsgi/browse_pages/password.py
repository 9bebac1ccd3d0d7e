"""A new password of one's own; the upload API decides."""

from __future__ import annotations

import contextlib
from typing import Any

import bottle

from myhealth.common.errors import BadInput, NotLoggedIn, TooManyAttempts, Unavailable
from myhealth.profiles.passwords import MIN_CHARACTERS, check_acceptable
from wsgi.browse_pages import session
from wsgi.browse_pages.base import LoggedInPage, redirect

WRONG = "The current password is not right. Nothing was changed; please try again."
TWO = "The new password was typed in two different ways. Nothing was changed; please type it twice alike."
SAME = "That is the password that you have already. Please choose another one."
REFUSED = "This password cannot be used: {}. Nothing was changed; please choose another one."
AWAY = "The password cannot be changed right now. Please try again in a few minutes."
UNSURE = (
    "It took too long, so it is not known whether the password was changed. Please try to log in with the new one, and"
    " if that fails with the old one."
)


class PasswordPage(LoggedInPage):
    """GET shows the form; POST changes the password and ends all logins, or says why not."""

    def get(self) -> Any:
        return self._form()

    def post(self) -> Any:
        token = session.session_token()
        form = session.read_form()
        session.require_form_key(form, token)
        current, new = form.get("current", ""), form.get("new", "")
        fault = self._fault(current, new, form.get("again", ""))
        if fault:
            return self._form(fault, 400)
        try:
            status, said, valid_after = self.context.upload_api.change_password(
                self.user["username"], token, current, new, self.address
            )
        except TooManyAttempts as error:
            return self._form(error.message, error.status, error.retry_after_s)
        except Unavailable as error:
            return self._form(UNSURE if error.status == 504 else AWAY, error.status, error.retry_after_s)
        if status == 401:
            raise NotLoggedIn("The login has ended; log in again.")
        if status != 200:
            wrong = said.get("code") == "current_password_wrong"
            return self._form(WRONG if wrong else AWAY, 400 if wrong else 502)
        with contextlib.suppress(Unavailable):  # then the sync ends the old logins
            self.context.end_tokens(token, valid_after)
        answer = redirect("/my/login?said=password")
        session.end_session(answer)
        return answer

    def _fault(self, current: str, new: str, again: str) -> str:
        """What can be said without asking anybody; "" where nothing is wrong."""
        if new != again:
            return TWO
        if new == current:
            return SAME
        try:
            check_acceptable(new)
        except BadInput as error:
            return REFUSED.format(error.message)
        return ""

    def _form(self, message: str = "", status: int = 200, retry_after_s: int = 0) -> bottle.HTTPResponse:
        answer = self.render("password", status, message=message, username=self.user["username"], fewest=MIN_CHARACTERS)
        if retry_after_s:
            answer.set_header("Retry-After", str(retry_after_s))
        return answer

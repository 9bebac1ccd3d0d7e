"""The form to change the user's own password; the upload API checks and stores it."""

from __future__ import annotations

import contextlib
from typing import Any

import bottle

from myhealth.common.errors import BadInput, MyHealthError, NotLoggedIn, TooManyAttempts, Unavailable
from myhealth.profiles.passwords import MIN_CHARACTERS, check_acceptable
from wsgi.browse_pages import session
from wsgi.browse_pages.base import LoggedInPage, redirect

WRONG = "The current password is not right. Nothing was changed; please try again."
DIFFERENT = "The new password was typed in two different ways. Nothing was changed; please type it twice alike."
SAME = "That is the password that you have already. Please choose another one."
UNACCEPTABLE = "This password cannot be used: {}. Nothing was changed; please choose another one."
UNAVAILABLE = "The password cannot be changed right now. Please try again in a few minutes."
UNSURE = (
    "It took too long, so it is not known whether the password was changed. Please try to log in with the new one, and"
    " if that fails with the old one."
)


def check_new(new: str, again: str) -> str:
    """Return the error of a new password that a page finds without the upload API, or ""."""
    if new != again:
        return DIFFERENT
    try:
        check_acceptable(new)
    except BadInput as error:
        return UNACCEPTABLE.format(error.message)
    return ""


class PasswordPage(LoggedInPage):
    """GET shows the form. POST changes the password and ends all sessions, or shows the reason of a failure."""

    def get(self) -> Any:
        return self._form()

    def post(self) -> Any:
        token = session.session_token()
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
            return self._form(UNSURE if error.status == 504 else UNAVAILABLE, error.status, error.retry_after_s)
        except NotLoggedIn:
            raise
        except MyHealthError as error:
            wrong = error.code == "current_password_wrong"
            return self._form(WRONG if wrong else UNAVAILABLE, 400 if wrong else 502)
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

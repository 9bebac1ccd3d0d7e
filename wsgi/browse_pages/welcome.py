"""The form with which an invited person sets a password; the upload API checks the code and stores the password."""

from __future__ import annotations

from typing import Any

import bottle

from myhealth.common.errors import MyHealthError, TooManyAttempts, Unavailable
from myhealth.profiles.passwords import MIN_CHARACTERS
from wsgi.browse_pages import session
from wsgi.browse_pages.login import NO_COOKIE, LoginPage
from wsgi.browse_pages.password import UNSURE, check_new
from wsgi.common.requests import client_address, note_login

WRONG = (
    "The username or the code is not right. A code works once, for 14 days, and only until you get a newer one. Please"
    " check both, or ask for a new code where you had your check-up."
)
UNAVAILABLE = "The password cannot be set right now. Your code still works; please try again in a few minutes."


class WelcomePage(LoginPage):
    """GET shows the form. POST sets the password and logs in, or shows the reason of a failure."""

    def get(self) -> Any:
        return self._welcome({})

    def post(self) -> Any:
        note_login()
        form = session.read_form()
        username, code, new = (form.get(name, "") for name in ("username", "code", "new"))
        try:
            session.require_form_key(form, session.presented_visitor())
            if error_text := check_new(new, form.get("again", "")):
                return self._welcome(form, error_text, 400)
            address = client_address(self.context.settings.trusted_proxies)
            token = self.context.upload_api.accept_invitation(username, code, new, address)
        except MyHealthError as error:
            unavailable = UNSURE if error.status == 504 else UNAVAILABLE
            texts: dict[type[MyHealthError], str] = {session.CsrfError: NO_COOKIE, TooManyAttempts: error.message}
            answer = self._welcome(form, texts.get(type(error), unavailable), error.status)
            if isinstance(error, Unavailable):
                answer.set_header("Retry-After", str(error.retry_after_s))
            return answer
        return self._welcome(form, WRONG, 401) if token is None else self.logged_in(token)

    def _welcome(self, form: dict[str, str], message: str = "", status: int = 200) -> bottle.HTTPResponse:
        visitor = session.visitor()
        typed = {name: form.get(name, "")[:200] for name in ("username", "code")}
        key = session.form_key(visitor)
        answer = self.render("welcome", status, message=message, fewest=MIN_CHARACTERS, login_key=key, **typed)
        session.keep_visitor(answer, visitor)
        if status == 401:
            answer.set_header("WWW-Authenticate", 'Bearer realm="MyHealth"')
        return answer

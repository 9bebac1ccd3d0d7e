"""The accounts that registered themselves, for admins to link to persons; the upload API does it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import bottle

from myhealth.common.errors import NotFound
from wsgi.browse_pages import session
from wsgi.browse_pages.base import LoggedInPage
from wsgi.browse_pages.navigation import link
from wsgi.browse_pages.person_view import person_view

PAGE = 20
GONE = "There is no account {} any more. Nothing was changed."
LINKED = "The account {} is linked. {}"
NONE_WAITED = "Records that come from now on are stored."


class AccountsPage(LoggedInPage):
    """GET lists accounts that are not linked to a person; POST links one. For others than admins it does not exist."""

    parameters = ("after",)

    def prepare(self) -> None:
        super().prepare()
        if not self.is_admin:
            raise NotFound("There is nothing at this address.")

    def get(self) -> Any:
        return self._list()

    def post(self) -> Any:
        form = session.read_form()
        session.require_form_key(form, self.token)
        username = form.get("username", "")
        try:
            done = self.context.upload_api.link_user(username, self.token, self.address)
        except NotFound:
            return self._list(GONE.format(username), 404)
        return self._list(LINKED.format(username, account_outcome(done)))

    def _list(self, message: str = "", status: int = 200) -> bottle.HTTPResponse:
        after = bottle.request.query.getunicode("after", "")
        found = self.context.upload_api.list_accounts_to_review(self.token, after, PAGE + 1, self.address)
        accounts = [
            (
                person_view(each),
                each["username"],
                self.dates.day(datetime.fromisoformat(each["created_at"])),
                waiting_words(each["waiting"]),
            )
            for each in found[:PAGE]
        ]
        more = link("accounts", after=found[PAGE - 1]["username"]) if len(found) > PAGE else ""
        return self.render(
            "accounts", status, accounts=accounts, more=more, first=after and link("accounts"), message=message,
            tone="bad" if status != 200 else "", here="accounts",
        )  # fmt: skip


def waiting_words(count: int) -> str:
    """Say how many rejected records wait for an account."""
    return f"{count:,} record{'s'[: count != 1]} waiting" if count else "no record waiting"


def account_outcome(done: dict[str, Any]) -> str:
    """Say what became of the records that waited for an account."""
    counts = [(done["accepted"], "stored"), (done["duplicate"], "duplicate"), (done["rejected"], "still rejected")]
    told = ", ".join(f"{count:,} {what}" for count, what in counts if count)
    return f"Of the records that waited: {told}." if told else NONE_WAITED

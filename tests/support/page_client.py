"""A browser without scripts for the pages: it keeps cookies, follows forms and reads their keys."""

import html
import re

from werkzeug.test import Client

from support.factories import PASSWORD

HOST = "http://localhost"


class Browser:
    """A browser without JavaScript: keeps cookies, follows links and sends forms with what they hold."""

    def __init__(self, application, base_url: str = HOST) -> None:
        self.client = Client(application)
        self.base_url = base_url

    def get(self, path: str, **options):
        headers = {"X-Request-ID": "of-a-test", **(options.pop("headers", None) or {})}
        return self.client.get(path, base_url=self.base_url, headers=headers, **options)

    def submit(self, page, action: str, address: str = "", **fields):
        """Send the page's form with that action, with these fields changed."""
        form = re.search(rf'<form[^>]*action="{re.escape(action)}".*?</form>', page.text, re.DOTALL).group()
        held = dict(re.findall(r'<input[^>]*name="(\w+)"[^>]*value="([^"]*)"', form))
        return self.post(
            action, address=address, **{name: html.unescape(value) for name, value in held.items()} | fields
        )

    def post(self, path: str, headers=None, address: str = "", **fields):
        environ = {"REMOTE_ADDR": address} if address else {}
        return self.client.post(path, data=fields, base_url=self.base_url, headers=headers, environ_overrides=environ)

    def log_in(self, username: str, password: str = PASSWORD):
        return self.submit(self.get("/my/login"), "/my/login", username=username, password=password)

    def cookie(self, name: str = "myhealth_session"):
        return self.client.get_cookie(name, domain=self.base_url.partition("//")[2].partition(":")[0])


def pages_of(browser: Browser) -> list[str]:
    """Return the addresses of all pages of the user."""
    number = re.search(r"/my/reports/(\d+)", browser.get("/my/").text).group(1)
    return ["/my/", f"/my/reports/{number}", "/my/trends", "/my/trends?code=8480-6", "/my/print", "/my/access-log", "/my/filter", "/my/download/csv",
            "/my/?abnormal=true&text=fine&from=2026-01-01&to=2026-12-31&type=BLOOD+PRESSURE&code=8480-6"]  # fmt: skip


def application_post(application, base_url: str, cookie: str, path: str = "/my/login", headers=None, **fields):
    client = Client(application, use_cookies=False)
    return client.post(path, base_url=base_url, data=fields, headers={"Cookie": cookie, **(headers or {})})


def plain(page) -> str:
    """Return the text of a page without its markup."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", page.text)))

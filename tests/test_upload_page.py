"""The page for uploads by hand, in a real browser."""

from __future__ import annotations

from typing import Any

import browser
import pytest

pytestmark = pytest.mark.long


def test_the_login_stands_there(page: Any, served: tuple[str, str]) -> None:
    page.goto(served[0])
    assert page.get_by_label("Username").is_visible()
    browser.check_accessible(page)
    assert browser.fits(page)
    browser.shoot(page, "upload-login")

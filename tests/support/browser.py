"""Pages in a real browser: Chromium, driven by Playwright, checked by axe-core.

A test that uses the fixtures `chromium` or `page` is marked long. SCREENSHOTS=FOLDER keeps the pictures of `shoot`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTHS_PX = (360, 768, 1280)
HEIGHT_PX = 800
SCHEMES = ("light", "dark")
TIMEOUT_MS = 15_000
FINGER_PX = 44  # WCAG 2.2, 2.5.5; links within a sentence are excepted there too


def find_chromium() -> str | None:
    """Return the browser's path, or None if it is not installed."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextlib.contextmanager
def running_chromium(path: str) -> Iterator[Any]:
    """Run Chromium without a window, as a Playwright browser."""
    from playwright.sync_api import sync_playwright

    # A container's /dev/shm is small, and root has no sandbox; the pages are our own.
    words = ["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server", "--disable-gpu"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=words)
        yield chromium
        chromium.close()


@contextlib.contextmanager
def open_page(browser: Any, **options: Any) -> Iterator[Any]:
    """Open a page with a new profile; fail at its end if a script raised or violated the content security policy."""
    context = browser.new_context(viewport={"width": WIDTHS_PX[-1], "height": HEIGHT_PX}, **options)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None)
    yield page
    context.close()
    assert faults == []


def check_accessible(page: Any) -> None:
    """Assert that axe-core reports no violation on this page, in light and in dark."""
    from axe_playwright_python.sync_playwright import Axe

    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found = Axe().run(page)
        assert found.violations_count == 0, f"{page.url}, {scheme}:\n{found.generate_report()}"


def shoot(page: Any, name: str) -> None:
    """Save the whole page in each width and scheme as NAME-WIDTH-SCHEME.png in $SCREENSHOTS, if it is set."""
    folder = os.environ.get("SCREENSHOTS")
    if not folder:
        return
    before = page.viewport_size
    for width in WIDTHS_PX:
        for scheme in SCHEMES:
            page.set_viewport_size({"width": width, "height": HEIGHT_PX})
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=Path(folder) / f"{name}-{width}-{scheme}.png", full_page=True)
    page.set_viewport_size(before)


def fits(page: Any, width_px: int = WIDTHS_PX[0]) -> bool:
    """Return whether the page needs no horizontal scrolling on a screen of that width."""
    before = page.viewport_size
    page.set_viewport_size({"width": width_px, "height": HEIGHT_PX})
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.set_viewport_size(before)
    return bool(wide <= width_px)


def too_small(page: Any, width_px: int = WIDTHS_PX[0]) -> list[str]:
    """Return the links and fields that are too low for a finger on a screen of that width."""
    page.wait_for_load_state()  # a page may be there before its style sheet is
    before = page.viewport_size
    page.set_viewport_size({"width": width_px, "height": HEIGHT_PX})
    found = page.evaluate(
        """least => [...document.querySelectorAll("main :is(a, button, input, select), footer a, header :is(a, button)")]
            .filter(each => each.checkVisibility() && each.parentNode.textContent.length - each.textContent.length < 25)
            .map(each => [each.textContent.trim() || each.name, (each.closest("label") ?? each).getBoundingClientRect()])
            .filter(([, box]) => box.height > 0 && box.height < least).map(([name, box]) => `${name}: ${box.height}`)""",
        FINGER_PX,
    )
    page.set_viewport_size(before)
    return list(found)

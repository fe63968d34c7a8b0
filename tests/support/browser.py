"""Debian's chromium, driven without a screen, and a page of it that notices what no page of ours may do."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP = {"viewport": {"width": 1280, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser; the test is skipped where there is none."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="the browser tests need playwright: pip install -e '.[dev]'"
    )
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("the browser tests need chromium, as in: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # which root cannot have
        yield browser
        browser.close()


@dataclass
class Watched:
    """A browser context whose pages are watched. `faults` are what a page of ours may not do."""

    context: Any
    origin: str
    allow_refusals: bool = False
    faults: list[str] = field(default_factory=list)

    def page(self, path: str = "") -> Any:
        """A new tab at the page."""
        page = self.context.new_page()
        page.set_default_timeout(8000)
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("request", lambda request: self._request(request.url))
        page.on("dialog", lambda dialog: self._dialog(dialog))
        page.goto(self.origin + path)
        page.wait_for_selector("#draft")
        return page

    def _console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not (self.allow_refusals and text.startswith("Failed to load resource")):
            self.faults.append(f"{kind}: {text}")

    def _request(self, url: str) -> None:
        if not url.startswith((self.origin, "blob:")):
            self.faults.append(f"request to {url}")

    def _dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()


def ask(page: Any, text: str) -> None:
    """Types a message and sends it by Enter."""
    page.fill("#draft", text)
    page.press("#draft", "Enter")


def eventually(page: Any, expression: str, seconds: float = 8) -> None:
    """Waits until it is true. Playwright's own wait_for_function needs eval, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(20)


def finished(page: Any) -> None:
    """Waits until no answer is under way."""
    page.wait_for_selector("#send[data-shows=send]")
    page.wait_for_selector(".turn.assistant[aria-busy=false]")


def answers(page: Any) -> list[str]:
    """The texts of the model's messages."""
    return [str(text) for text in page.locator(".turn.assistant .body").all_inner_texts()]


def questions(page: Any) -> list[str]:
    """The texts of the user's messages."""
    return [str(text) for text in page.locator(".turn.user .body").all_inner_texts()]


def said(page: Any, text: str) -> list[str]:
    """Asks, waits for the answer, and returns all answers so far."""
    before = len(answers(page))
    ask(page, text)
    eventually(page, f"document.querySelectorAll('.turn.assistant').length > {before}")
    finished(page)
    return answers(page)

"""A real Chromium, and what it says of a page: errors, requests to other hosts, broken policy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_core_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, expect

from devservices import browser
from devservices.processes import ServiceError
from tests.acceptance.processes import Server

expect.set_options(timeout=30_000)  # milliseconds: the machine may have other work

SERIOUS = ("serious", "critical")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser, or skip the test (on a developer's machine) or fail it (in CI)."""
    try:
        with browser.chromium() as found:
            yield found
    except ServiceError as fault:
        if os.environ.get("CI"):
            pytest.fail(f"needs chromium: {fault}", pytrace=False)
        pytest.skip(f"needs chromium: {fault}")


class Watch:
    """What went wrong in the pages of a context, and what they asked for."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.host = urlsplit(url).netloc
        self.wrong: list[str] = []
        self.asked: list[str] = []
        context.on("console", self._said)
        context.on("request", lambda request: self._asked(request.url))
        context.on("weberror", lambda error: self.wrong.append(str(error.error)))
        context.on("dialog", self._dialog)

    def _said(self, message: ConsoleMessage) -> None:
        # What is refused or unreachable is said by the page itself; the console repeats it.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.wrong.append(message.text)

    def _asked(self, url: str) -> None:
        self.asked.append(url)
        if urlsplit(url).netloc != self.host and not url.startswith("data:"):
            self.wrong.append(f"asked another host: {url}")

    def _dialog(self, dialog: Any) -> None:
        self.wrong.append(f"a dialog: {dialog.message}")
        dialog.dismiss()


class Contexts:
    """Makes contexts of the browser, each of which is watched until all are closed."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._made: list[tuple[BrowserContext, Watch]] = []

    def open(self, url: str, **look: Any) -> BrowserContext:
        """Make one, for the page of the server at `url`."""
        made = self._browser.new_context(**{"viewport": {"width": 1300, "height": 850}, **look})
        made.set_default_timeout(15_000)
        self._made.append((made, Watch(made, url)))
        return made

    def close(self) -> list[str]:
        """Close all of them; return what went wrong in any."""
        for made, _ in self._made:
            made.close()
        return [fault for _, watch in self._made for fault in watch.wrong]


def go(page: Page, url: str) -> None:
    """Open a page. Chromium gives a request up where a network of the machine comes or goes, as those of tasks do."""
    for _ in range(5):
        try:
            page.goto(url)
        except Error as error:
            if "ERR_NETWORK_CHANGED" not in error.message:
                raise
        else:
            return
    page.goto(url)


def at(server: Server, place: str = "") -> str:
    """Return the address of a place of the page."""
    return f"{server.url}/#/{place}"


def faults_of_access(page: Page) -> list[str]:
    """What axe finds that would keep people out."""
    found = Axe().run(page)
    return [
        f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in SERIOUS
    ]

"""A browser for tests of pages, and an eye on everything that goes wrong in it."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
FLAGS += ("--disable-sync", "--no-first-run")


@contextmanager
def chromium() -> Iterator[playwright.Browser]:
    """Debian's browser; the test is skipped where it is not installed."""
    if not CHROMIUM.exists():
        pytest.skip("needs Debian's chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield browser
        browser.close()


class Watched:
    """A page on which nothing may go wrong: no message in the console, no request that fails or leaves this machine."""

    def __init__(self, browser, url, **context) -> None:
        self.context = browser.new_context(base_url=url, reduced_motion="reduce", **context)
        self.page, self.host = self.context.new_page(), urlsplit(url).netloc
        self.wrong: list[str] = []
        self.responses: list[playwright.Response] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("requestfailed", self._fail)
        self.page.on("request", lambda request: self._check(request.url))
        self.page.on("response", self._note)

    def _check(self, url: str) -> None:
        if urlsplit(url).netloc != self.host:
            self.wrong.append(f"foreign: {url}")

    def _fail(self, request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page gave it up itself: another text was asked for meanwhile
            self.wrong.append(f"{request.failure}: {request.url}")

    def _note(self, response) -> None:
        self.responses.append(response)
        if response.status >= 400:
            self.wrong.append(f"{response.status}: {response.url}")

    def barriers(self) -> list[str]:
        """What axe-core finds on the page as it is: contrast, names, roles, order."""
        axe = pytest.importorskip("axe_playwright_python")
        script = (importlib.resources.files(axe) / "axe.min.js").read_text(encoding="utf-8")
        self.page.evaluate(f"() => {{ {script} }}")
        report: Any = self.page.evaluate("() => axe.run(document)")
        assert len(report["passes"]) > 10
        return [f"{found['id']}: {node['html']}" for found in report["violations"] for node in found["nodes"]]

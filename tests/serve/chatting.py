"""Words for tests that use Direct Chat in a browser."""

from __future__ import annotations

from typing import Any

from tests.serve.conftest import MODEL
from tests.serve.pages.watched import playwright

expect = playwright.expect

SHORT = {"temperature": 0, "max_tokens": 12}
ENDLESS = {"temperature": 1.5, "ignore_stop": True, "seed": 1}


def begin(page, **settings: Any) -> str:
    """A conversation with settings of its own, opened."""
    made = page.request.post("/api/conversations", data={"model": MODEL, "params": SHORT, **settings}).json()
    page.goto(f"/chat/{made['id']}")
    return made["id"]


def field(page):
    return page.get_by_label("Message", exact=True)


def messages(page):
    return page.locator("#messages article")


def bodies(page) -> list[str]:
    return [text.strip() for text in page.locator("#messages .body").all_inner_texts()]


def answered(page, n_messages: int) -> None:
    """Wait until there are so many messages and the last one is complete."""
    expect(messages(page)).to_have_count(n_messages)
    expect(page.locator("#chat:not([data-busy])")).to_be_attached(timeout=60_000)


def say(page, text: str, n_messages: int) -> None:
    field(page).fill(text)
    field(page).press("Enter")
    answered(page, n_messages)

"""The pages over the arena's own API: a battle from the question to what others see of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from camelid.arena.app import arena_app
from camelid.serve.models import Models
from tests.arena.live.conftest import MODELS, Arena
from tests.arena.pages.test_battle_page import ask, ready, vote
from tests.serve.conftest import serving
from tests.serve.pages.watched import Watched, playwright

expect = playwright.expect


@pytest.fixture
def url(tmp_path) -> Iterator[str]:
    arena = Arena(f"sqlite:///{tmp_path / 'arena.db'}")
    models = Models.none()
    app = arena_app(arena.config, models, arena.options, arena.fakes)
    with serving(app, models, arena.options) as it:
        yield it.url


def test_a_battle_and_what_others_see_of_it(browser: Any, url: str) -> None:
    it = Watched(browser, url, viewport={"width": 1280, "height": 800})
    page = it.page
    page.goto("/battle")
    page.get_by_role("button", name="I understand").click()
    ask(page, "Where do llamas live?")
    ready(page)
    page.reload()
    ready(page)
    page.keyboard.press("r")
    ready(page)
    assert not any(model.name in page.content() for model in MODELS)
    page.keyboard.press("s")
    page.get_by_role("button", name="Make a link").click()
    link = page.get_by_label("Link", exact=True)
    expect(link).to_be_visible()
    address = link.input_value()
    page.keyboard.press("Escape")
    other = Watched(browser, url)
    other.page.goto(address)
    expect(other.page.get_by_text("Nobody has voted yet")).to_be_visible()
    vote(page, "B is better").click()
    expect(page.locator("#reveal")).to_contain_text("Andes Lab · Apache-2.0")
    other.page.reload()
    expect(other.page.get_by_text("Whoever asked found B better.")).to_be_visible()
    page.goto("/chat")
    expect(page.get_by_role("heading", name="No model runs on this machine")).to_be_visible()
    assert it.wrong == other.wrong == []
    it.context.close()
    other.context.close()

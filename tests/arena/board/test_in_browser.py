"""The leaderboard in a browser: sorted, filtered, from a cell to votes and texts, by keyboard, at 390 px, for axe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from camelid.arena.board.alone import board_app
from camelid.arena.board.routes import PLOTS, board_routers
from camelid.arena.board.snapshots import Snapshots
from camelid.arena.board.source import Text
from camelid.arena.ratings import rate
from camelid.serve.options import ServeOptions
from tests.arena.board.conftest import serving
from tests.arena.board.voting import Growing, some_battles
from tests.serve.pages.watched import Watched, playwright

expect = playwright.expect
N = 400


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("arena")
    Snapshots(folder).keep(rate(some_battles(60)), 1_780_000_000.0)
    source = Growing(some_battles(N))
    said = [("user", "Why is the sky blue?"), ("assistant", "Rayleigh scattering. " * 40)]
    source.texts = {f"battle-{at}": Text(f"battle-{at}", "x", "y", said, said) for at in range(N)}
    options = ServeOptions(port=0, shutdown_seconds=2)
    with serving(board_app(board_routers(source, snapshots=folder), options), options) as it:
        yield it


@pytest.fixture
def watched(browser, url) -> Iterator[Watched]:
    it = Watched(browser, url, viewport={"width": 1280, "height": 800})
    yield it
    it.context.close()
    assert not it.wrong


def column(page: Any, number: int) -> list[str]:
    return page.locator(f".board-table tbody tr > :nth-child({number})").all_inner_texts()


def test_sorted_and_filtered_without_leaving_the_page(watched):
    page = watched.page
    page.goto("/leaderboard")
    page.evaluate("window.stays = true")
    best_first = column(page, 2)
    page.get_by_role("link", name="Score").click()
    expect(page.locator("th.board-score")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("link", name="Score").click()
    expect(page.locator("th.board-score")).to_have_attribute("aria-sort", "ascending")
    assert column(page, 2) == best_first[::-1]
    assert page.evaluate("document.activeElement.textContent").startswith("Score")
    page.get_by_label("Open models only").check()
    expect(page.locator(".board-table tbody tr")).to_have_count(3)
    page.get_by_label("Search").fill("7b")
    expect(page.locator(".board-table tbody tr")).to_have_count(1)
    assert "sort=score" in page.url
    page.get_by_label("Search").fill("")
    page.get_by_label("Open models only").uncheck()
    page.get_by_label("Category").select_option("english")
    expect(page.get_by_role("status")).to_contain_text("English: #models: 5")
    page.get_by_label("Style control").check()
    expect(page.get_by_role("heading", name="What style does to votes")).to_be_visible()
    assert page.evaluate("window.stays")
    kept = page.url
    page.goto(kept)  # the address says all that was chosen
    expect(page.get_by_label("Category")).to_have_value("english")
    expect(page.get_by_label("Style control")).to_be_checked()


def test_without_javascript(browser, url):
    it = Watched(browser, url, viewport={"width": 1280, "height": 800}, java_script_enabled=False)
    it.page.goto("/leaderboard")
    it.page.get_by_label("Category").select_option("english")
    it.page.get_by_label("Open models only").check()
    it.page.get_by_role("button", name="Show").click()
    expect(it.page.locator(".board-table tbody tr")).to_have_count(3)
    it.page.get_by_role("link", name="Votes").nth(1).click()
    assert "category=english" in it.page.url
    it.context.close()
    assert not it.wrong


def test_from_a_cell_to_the_texts(watched):
    page = watched.page
    page.goto("/leaderboard/plots/wins")
    page.locator(".board-heat a").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Votes on")
    page.locator("tbody th a").first.click()
    expect(page.get_by_text("Rayleigh scattering.").first).to_be_visible()
    page.get_by_role("link", name="Votes on").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Votes on")


def test_by_keyboard(watched):
    page = watched.page
    page.goto("/leaderboard")
    page.locator("th.board-model a").focus()
    page.keyboard.press("Enter")
    expect(page.locator("th.board-model")).to_have_attribute("aria-sort", "ascending")
    expect(page.locator("th.board-model a")).to_be_focused()
    page.locator(".board-table tbody td a").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Votes on")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_for_everyone(browser, url, scheme):
    it = Watched(browser, url, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    pages = [
        "/leaderboard",
        "/leaderboard?style=1&view=full",
        "/leaderboard?q=nothing",
        "/leaderboard/moves",
        "/leaderboard/influence",
    ]
    pages += [f"/leaderboard/plots/{name}" for name in PLOTS]
    pages += ["/leaderboard/votes?model_a=alpaca-13b", "/leaderboard/battles/battle-3"]
    for address in pages:
        it.page.goto(address)
        assert not it.barriers(), address
        assert it.page.evaluate("document.documentElement.scrollWidth") <= 390, address
    it.context.close()
    assert not it.wrong


def test_the_first_load_is_small(watched):
    watched.page.goto("/leaderboard", wait_until="networkidle")
    assert sum(len(response.body()) for response in watched.responses) < 100_000

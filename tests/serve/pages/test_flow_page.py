"""The Flow and Models pages in a real browser, on a real server: by mouse, by keyboard, on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.serve.pages.watched import Watched, playwright

expect = playwright.expect

FIRST_LOAD = 100_000  # bytes, uncompressed


@pytest.fixture
def watched(browser, server) -> Iterator[Watched]:
    it = Watched(browser, server.url, viewport={"width": 1440, "height": 1000})
    yield it
    it.context.close()
    assert not it.wrong


@pytest.fixture
def page(watched):
    """The Flow page, which has read its first text."""
    watched.page.goto("/flow")
    expect(watched.page.locator("#flow-rows tr")).to_have_count(12)
    return watched.page


def tokens(page):
    return page.locator("#flow-tokens li")


def follow(page, text: str, n_tokens: int) -> None:
    page.get_by_label("Text to go on from").fill(text)
    page.get_by_role("button", name="Follow it").click()
    expect(tokens(page)).to_have_count(n_tokens)


def test_a_text_becomes_tokens_layers_and_a_table(page, llama):
    follow(page, "The capital of France is", 5)
    expect(page.locator("#flow-status")).to_contain_text("5 tokens, 30 layers; the likeliest next token is ‹␣Paris›")
    expect(tokens(page).nth(3)).to_contain_text("␣France")
    expect(tokens(page).nth(3)).to_contain_text(str(llama.prompt_ids("The capital of France is")[3]))
    expect(page.locator("#flow-lens tbody tr")).to_have_count(30)
    expect(page.locator("#flow-lens tbody tr").last.locator("td").nth(4)).to_have_text("Paris")
    expect(page.locator("#flow-lens tbody tr").last.locator("td").first).not_to_be_empty()  # asked for afterwards
    first = page.locator("#flow-rows tr").first
    expect(first).to_contain_text("␣Paris")
    raw = float(re.search(r"([\d.]+)\s%", first.locator("td").nth(1).inner_text())[1])
    assert raw == pytest.approx(100 * llama.next("The capital of France is").tokens[0].probability, abs=4)


def test_layer_and_head_are_chosen_by_mouse(page):
    follow(page, "When Mary and John went to the store, John gave a drink to", 14)
    page.get_by_role("radio", name="head 4").click()
    expect(page.get_by_role("radio", name="head 4")).to_have_attribute("aria-checked", "true")
    page.locator('#flow-lens td[data-layer="20"][data-position="9"]').click()
    expect(page.locator("#flow-says")).to_contain_text("If layer 21 were the last, then after ‹␣John›")
    expect(page.locator("#flow-map")).to_have_attribute(
        "aria-label", re.compile("head 4 in layer 21; ‹␣John› looks at")
    )
    expect(page.locator("#flow-looks tr")).to_have_count(6)
    expect(page.locator("#flow-arcs path")).not_to_have_count(0)
    tokens(page).nth(2).get_by_role("button").click()
    expect(page.locator("#flow-says")).to_contain_text("after ‹␣and›")
    box = page.locator("#flow-map").bounding_box()
    page.mouse.move(box["x"] + 66, box["y"] + 66)
    expect(page.locator("#flow-reading")).to_have_text("‹When› looks at ‹When›: 100 %")


def test_sliders_show_what_each_step_removes(page):
    slider = page.get_by_label("Top-k")
    slider.fill("2")  # the third stop: three tokens
    expect(page.locator("#flow-rows .flow-fallen")).to_have_count(9)
    expect(page.locator("#flow-rows tr").nth(3)).to_contain_text("top-k")
    expect(page.locator("#flow-steps li").nth(2)).to_contain_text("−49,149")
    expect(slider).to_have_attribute("aria-valuetext", "3")
    page.get_by_label("Temperature").fill("0")
    expect(page.locator("#flow-rows .flow-fallen")).to_have_count(11)
    expect(page.locator("#flow-rows tr").nth(1)).to_contain_text("greedy")


def test_steps_picks_and_branches(page):
    tree = page.locator("#flow-tree")
    page.get_by_role("button", name="Likeliest", exact=True).click()
    expect(tokens(page)).to_have_count(10)
    expect(page.locator("#flow-status")).to_contain_text("Wrote ‹␣make›, the likeliest")
    page.get_by_role("button", name="Next token").click()
    expect(tokens(page)).to_have_count(11)
    expect(page.locator("#flow-status")).to_contain_text(", drawn, ")
    page.get_by_role("button", name="back to the prompt").click()
    expect(tokens(page)).to_have_count(9)
    page.get_by_role("button", name="write ‹␣improve›").click()
    expect(tokens(page).last).to_contain_text("␣improve")
    expect(page.locator("#flow-status")).to_contain_text("picked by hand")
    expect(tree.locator("li")).to_have_count(2)
    expect(page.locator("#flow-lens thead th").nth(10)).to_have_text("improve")
    page.get_by_role("button", name="back to after ‹␣make›").click()
    expect(tokens(page).last).to_contain_text("␣make")
    expect(tree.locator(".flow-on-path")).to_have_count(2)


def test_it_writes_on_until_stopped(page):
    page.get_by_role("button", name="Write on").click()
    expect(tokens(page)).to_have_count(12, timeout=60_000)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Write on")).to_have_attribute("aria-pressed", "false")


def test_by_keyboard_alone(page):
    page.get_by_label("Text to go on from").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("One two three")
    while page.evaluate("() => document.activeElement.textContent.trim()") != "Follow it":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(tokens(page)).to_have_count(3)
    page.locator("#flow-lens td[tabindex='0']").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#flow-says")).to_contain_text("If layer 2 were the last, then after ‹␣two›")
    expect(page.locator("#flow-lens td:focus")).to_have_attribute("aria-selected", "true")
    page.get_by_role("radio", checked=True).focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("[role=radio]:focus")).to_have_attribute("aria-checked", "true")
    page.locator("#flow-map").focus()
    page.keyboard.press("ArrowUp")
    expect(page.locator("#flow-reading")).to_have_text("‹One› looks at ‹One›: 100 %")
    page.locator("#flow-rows button").nth(1).focus()
    page.keyboard.press("Enter")
    expect(tokens(page)).to_have_count(4)


def test_mistakes_are_told_on_the_page(page, watched):
    page.get_by_label("Text to go on from").fill("word " * 300)
    page.get_by_role("button", name="Follow it").click()
    expect(page.locator("#flow-status")).to_contain_text("of this model the flow shows up to 256 at once")
    assert [text for text in watched.wrong if "400" not in text] == []
    watched.wrong.clear()  # the refusal itself


def test_on_a_phone_nothing_sticks_out(browser, server):
    watched = Watched(browser, server.url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    for path in ("/flow", "/models"):
        watched.page.goto(path)
        if path == "/flow":
            expect(watched.page.locator("#flow-rows tr")).to_have_count(12)
            watched.page.get_by_role("button", name="Next token").tap()
            expect(tokens(watched.page)).to_have_count(10)
        assert watched.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    watched.context.close()
    assert not watched.wrong


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_stands_in_anybodys_way(browser, server, scheme, width):
    watched = Watched(browser, server.url, viewport={"width": width, "height": 1000}, color_scheme=scheme)
    page = watched.page
    page.goto("/flow")
    expect(page.locator("#flow-rows tr")).to_have_count(12)
    page.get_by_role("button", name="Next token").click()
    expect(tokens(page)).to_have_count(10)
    page.wait_for_load_state("networkidle")
    assert watched.barriers() == []
    page.goto("/models")
    assert watched.barriers() == []
    watched.context.close()


@pytest.mark.parametrize("path", ["/flow", "/models"])
def test_the_first_load_is_light(watched, path):
    watched.page.goto(path, wait_until="networkidle")
    sizes = {urlsplit(it.url).path: len(it.body()) for it in watched.responses if "/api/" not in it.url}
    assert path in sizes
    assert any(name.endswith("style.css") for name in sizes)
    assert sum(sizes.values()) < FIRST_LOAD


def test_the_models_page_stays_fresh(watched):
    watched.page.goto("/models")
    card = watched.page.locator("[data-model=smollm2]")
    expect(card.locator("[data-live=written]")).to_have_text("0")
    watched.page.request.post("/v1/completions", data={"model": "smollm2", "prompt": "Hi", "max_tokens": 5})
    expect(card.locator("[data-live=written]")).not_to_have_text("0")

"""Direct Chat for everyone: by keyboard alone, on a phone, without scripts, in both themes, and light to load."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from tests.serve.chatting import ENDLESS, answered, begin, bodies, field, messages, say
from tests.serve.pages.watched import Watched, playwright

expect = playwright.expect

FIRST_LOAD = 100_000  # bytes, uncompressed


def press_until(page, key: str, condition: str) -> None:
    """Press a key until what has the focus fulfils a condition in JavaScript."""
    for _ in range(60):
        if page.evaluate(f"() => {condition}"):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{condition} was never reached by {key}")


def test_by_keyboard_alone(page):
    begin(page, params=ENDLESS)
    expect(field(page)).to_be_focused()
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    expect(messages(page).nth(1).locator(".note")).to_contain_text("tokens")
    page.keyboard.press("Escape")
    answered(page, 2)
    assert bodies(page)[0] == "One\ntwo"
    expect(field(page)).to_be_focused()
    press_until(page, "Shift+Tab", "document.activeElement.dataset.action === 'regenerate'")
    page.keyboard.press("Enter")
    expect(messages(page).last.locator(".place")).to_have_text("2/2")
    page.keyboard.press("Escape")
    answered(page, 2)
    press_until(page, "Shift+Tab", "document.activeElement.dataset.action === 'earlier'")
    page.keyboard.press("Enter")
    expect(messages(page).last.locator(".place")).to_have_text("1/2")
    press_until(page, "Shift+Tab", "document.activeElement.dataset.action === 'edit'")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.type("Three")
    page.keyboard.press("Enter")
    expect(messages(page).first.locator(".place")).to_have_text("2/2")
    page.keyboard.press("Escape")
    answered(page, 2)
    press_until(page, "Shift+Tab", "document.activeElement.dataset.opens === 'panel'")
    page.keyboard.press("Enter")
    expect(page.get_by_label("System prompt")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_label("System prompt")).to_be_hidden()
    expect(page.get_by_role("button", name="Settings", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    press_until(page, "Shift+Tab", "document.activeElement.dataset.closes === 'panel'")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Settings", exact=True)).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Shift")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(field(page)).to_be_focused()
    page.keyboard.press("Alt+n")
    expect(page).to_have_url(re.compile("/chat$"))


def test_the_skip_link_and_the_theme(page):
    begin(page)
    page.locator("body").press("Tab")
    page.evaluate("() => document.querySelector('.skip').focus()")
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    theme = page.get_by_role("button", name="Dark colours")
    paper = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    theme.click()
    expect(theme).to_have_attribute("aria-pressed", "true")
    dark = page.evaluate(paper)
    assert dark != light
    page.goto("/about")
    assert page.evaluate(paper) == dark


def test_on_a_phone(browser, server):
    watched = Watched(browser, server.url, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    page = watched.page
    begin(page, params={"temperature": 1, "max_tokens": 40, "seed": 3})
    say(page, f"A long word: {'x' * 300}", 2)
    fits = "() => document.documentElement.scrollWidth <= 390 && document.getElementById('log').scrollWidth <= 390"
    assert page.evaluate(fits)
    expect(page.locator("#side")).to_be_hidden()
    page.get_by_role("button", name="Conversations").tap()
    expect(page.locator("#side")).to_be_visible()
    assert page.evaluate(fits)
    page.get_by_role("button", name="Close conversations").tap()
    page.get_by_role("button", name="Settings", exact=True).tap()
    expect(page.get_by_label("System prompt")).to_be_visible()
    assert page.evaluate(fits)
    page.get_by_role("button", name="Close settings").tap()
    field(page).tap()
    assert page.evaluate("() => document.activeElement.id") == "question"
    watched.context.close()
    assert not watched.wrong


def test_without_scripts_conversations_can_be_read(browser, server, page):
    id = begin(page)
    say(page, "Remember this.", 2)
    plain = browser.new_context(base_url=server.url, java_script_enabled=False)
    reader = plain.new_page()
    reader.goto(f"/chat/{id}")
    expect(messages(reader).first).to_contain_text("Remember this.")
    plain.close()


def test_examples_are_sent(page):
    page.goto("/chat")
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_label("Max tokens").fill("5")
    page.get_by_role("button", name="haiku").click()
    answered(page, 2)
    assert "haiku" in bodies(page)[0]


def test_the_first_load_is_light(watched):
    watched.page.goto("/chat", wait_until="networkidle")
    sizes = {urlsplit(it.url).path: len(it.body()) for it in watched.responses}
    assert any(name.endswith("chat.js") for name in sizes)
    assert sum(sizes.values()) < FIRST_LOAD, sizes


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_stands_in_anybodys_way(browser, server, scheme, width):
    watched = Watched(browser, server.url, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = watched.page
    page.goto("/chat")
    assert watched.barriers() == []
    begin(page)
    say(page, "Hello.", 2)
    messages(page).last.get_by_role("button", name="Answer again").click()
    expect(messages(page).last.locator(".place")).to_have_text("2/2")
    answered(page, 2)
    page.get_by_role("button", name="Settings", exact=True).click()
    page.locator("#settings summary").click()
    assert watched.barriers() == []
    page.get_by_role("button", name="Close settings").click()
    if width == 390:
        page.get_by_role("button", name="Conversations").click()
    page.get_by_role("button", name="Keyboard").click()
    assert watched.barriers() == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Delete").click()
    assert watched.barriers() == []
    watched.context.close()
    assert not watched.wrong


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_coloured_code_can_be_read(browser, server, scheme):
    """Every class of Pygments that the stylesheet colours, on the ground of a block of code."""
    watched = Watched(browser, server.url, viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    begin(watched.page)
    classes = ["k", "s", "m", "nf", "c", "gi", "gd"]
    spans = " ".join(f'<span class="{name}">word</span>' for name in classes)
    watched.page.evaluate(
        "html => { document.getElementById('messages').innerHTML = html; }",
        f'<article class="message"><div class="body"><div><div class="code"><div class="code-head">x</div>'
        f"<pre><code>{spans}</code></pre></div></div></div></article>",
    )
    assert watched.barriers() == []
    watched.context.close()

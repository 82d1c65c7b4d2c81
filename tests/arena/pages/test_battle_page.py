"""A battle in a real browser: by mouse, by keyboard, on a phone; and what may go wrong in one."""

from __future__ import annotations

import re

import pytest

from tests.arena.pages.fake import MODELS
from tests.serve.pages.watched import playwright

expect = playwright.expect
FIRST_LOAD = 100_000  # bytes, uncompressed
NAMES = tuple(model.name for model in MODELS)
VOTES = ("A is better", "B is better", "Tie", "Both are bad")


@pytest.fixture(autouse=True)
def anew(arena):
    """Nothing is slow and nothing fails, unless a test says so."""
    arena.pause, arena.fails, arena.drops = 0.0, 0, 0
    arena.votes.clear()


def ask(page, text: str) -> None:
    page.get_by_label("Question to both models").fill(text)
    page.get_by_role("button", name="Send").click()


def vote(page, words: str):
    return page.get_by_role("button", name=words)


def answers(page):
    return page.locator("#turns .answer")


def ready(page) -> None:
    for words in VOTES:
        expect(vote(page, words)).to_be_enabled()


def test_by_mouse(open_page, arena):
    arena.pause = 0.05
    it = open_page("/battle")
    page = it.page
    expect(vote(page, "Tie")).to_be_hidden()
    ask(page, "Where do <b>llamas</b> live?")
    expect(answers(page).first).to_have_attribute("data-state", "streaming")
    for words in VOTES:
        expect(vote(page, words)).to_be_disabled()
    ready(page)
    assert page.locator("#turns .message .body").inner_text() == "Where do <b>llamas</b> live?"
    assert answers(page).first.locator("li").all_inner_texts() == ["Peru", "Bolivia"]
    assert "<script>alert(1)</script>" in answers(page).last.inner_text()
    assert not any(name in page.content() for name in NAMES)
    ask(page, "And what do they eat?")
    ready(page)
    expect(answers(page)).to_have_count(4)
    page.get_by_role("button", name="Answer again").click()
    ready(page)
    expect(answers(page)).to_have_count(4)
    vote(page, "B is better").click()
    expect(page.get_by_role("heading", name="You found B better: guanaco-2")).to_be_visible()
    assert arena.votes[-1][1] == "B"
    assert page.locator("#who").inner_text().split("\n") == [
        *("Model A", "vicuna-of-the-andes Andes Lab · Apache-2.0"),
        *("Model B", "guanaco-2 Pampas & Co · CC-BY-4.0"),
    ]
    expect(page.get_by_role("link", name="vicuna-of-the-andes")).to_have_attribute("href", "https://example.org/vicuna")
    expect(page.locator(".answer[data-won] .name")).to_have_text([re.compile("guanaco-2.*✓ better")] * 2)
    expect(page.get_by_label("Question to both models")).to_be_hidden()
    page.locator("#next-round").click()
    expect(answers(page)).to_have_count(0)
    expect(page.get_by_label("Question to both models")).to_be_focused()
    assert not any(name in page.content() for name in NAMES)


def test_by_keyboard(open_page, arena):
    page = open_page("/battle", read=False).page
    expect(page.get_by_role("button", name="I understand")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Question to both models")).to_be_focused()
    page.keyboard.type("1 + 1 =")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("4?")
    page.keyboard.press("Enter")
    ready(page)
    assert page.locator("#turns .message .body p").text_content() == "1 + 1 =\n4?"
    page.keyboard.press("/")
    page.keyboard.type("1")  # a question, no vote
    expect(page.get_by_label("Question to both models")).to_have_value("1")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    ready(page)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("2")  # behind a dialog nothing is voted
    page.keyboard.press("Escape")
    assert arena.votes == []
    page.keyboard.press("4")
    expect(page.get_by_role("heading", name="You found both bad")).to_be_visible()
    expect(page.locator("#reveal")).to_be_focused()
    assert [what for _, what in arena.votes] == ["BOTH_BAD"]
    page.keyboard.press("1")  # only one
    page.keyboard.press("n")
    expect(page.get_by_label("Question to both models")).to_be_focused()
    assert len(arena.votes) == 1


def test_single_keys_can_be_switched_off(open_page, arena):
    page = open_page("/battle").page
    ask(page, "Where do llamas live?")
    ready(page)
    page.keyboard.press("?")
    page.get_by_label("Single keys work").uncheck()
    page.keyboard.press("Escape")
    for key in ("1", "n", "r", "s"):
        page.keyboard.press(key)
    expect(answers(page)).to_have_count(2)
    assert arena.votes == []
    page.reload()
    ready(page)
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    assert arena.votes == []
    expect(page.locator("#votes kbd").first).to_be_hidden()


def test_answers_that_were_cut_off_when_the_page_was_left(open_page, arena):
    arena.pause = 0.3
    page = open_page("/battle").page
    ask(page, "Where do llamas live?")
    expect(answers(page).first).to_have_attribute("data-state", "streaming")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("cut off")
    arena.pause = 0
    page.get_by_role("button", name="Try again").click()
    ready(page)
    expect(answers(page)).to_have_count(2)


def test_on_a_phone(open_page, arena):
    it = open_page("/battle", 390, 844, has_touch=True)
    page = it.page
    ask(page, "Where do llamas live? " + "o" * 300)
    ready(page)
    first, second = (answers(page).nth(at).bounding_box() for at in (0, 1))
    assert first["x"] == second["x"]
    assert second["y"] >= first["y"] + first["height"]
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    for words in VOTES:
        box = vote(page, words).bounding_box()
        assert box["height"] >= 44
        assert box["y"] + box["height"] <= 844
    assert it.barriers() == []
    vote(page, "Tie").click()
    expect(page.get_by_role("heading", name="You found both as good")).to_be_in_viewport()
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    assert it.barriers() == []


def test_side_by_side(open_page, arena):
    page = open_page("/side-by-side?a=third-wheel&b=guanaco-2").page
    expect(page.get_by_label("A", exact=True)).to_have_value("third-wheel")
    page.get_by_label("B", exact=True).select_option("vicuna-of-the-andes")
    expect(page.get_by_text("votes here are kept apart")).to_be_visible()
    ask(page, "Who are you?")
    ready(page)
    assert arena.bodies[-1] == {"mode": "side-by-side", "models": ["third-wheel", "vicuna-of-the-andes"]}
    expect(answers(page).first.locator(".name")).to_contain_text("third-wheel")
    expect(page.get_by_label("A", exact=True)).to_be_disabled()
    vote(page, "A is better").click()
    expect(page.get_by_role("heading", name="You found A better: third-wheel")).to_be_visible()
    page.locator("#next-round").click()
    expect(page.get_by_label("A", exact=True)).to_be_enabled()


def test_an_answer_that_fails_is_written_again(open_page, arena):
    arena.fails = 1
    page = open_page("/battle").page
    ask(page, "Where do llamas live?")
    expect(page.get_by_role("alert")).to_contain_text("An answer could not be written.")
    expect(vote(page, "Tie")).to_be_disabled()
    page.get_by_role("button", name="Try again").click()
    ready(page)
    expect(page.locator("#problem")).to_be_hidden()
    expect(answers(page)).to_have_count(2)


def test_a_question_that_is_refused_is_not_lost(open_page, arena):
    it = open_page("/battle")
    page = it.page
    ask(page, "This is too much.")
    expect(page.get_by_role("alert")).to_contain_text("Too many questions for now")
    expect(page.get_by_label("Question to both models")).to_have_value("This is too much.")
    expect(answers(page)).to_have_count(0)
    page.get_by_label("Question to both models").fill("This is fine.")
    page.get_by_role("button", name="Try again").click()
    ready(page)
    assert [text for text in it.wrong if "429" in text]
    it.wrong.clear()


def test_stopped(open_page, arena):
    arena.pause = 0.2
    page = open_page("/battle").page
    ask(page, "Where do llamas live?")
    expect(answers(page).first).to_have_attribute("data-state", "streaming")
    page.keyboard.press("Escape")
    expect(answers(page).first).to_have_attribute("data-state", "stopped")
    expect(page.get_by_role("alert")).to_contain_text("Stopped.")
    expect(vote(page, "Tie")).to_be_disabled()
    arena.pause = 0
    page.keyboard.press("r")
    ready(page)


def test_a_vote_whose_answer_is_lost_is_sent_again_and_counts_once(open_page, arena):
    arena.drops = 2
    it = open_page("/battle")
    page = it.page
    ask(page, "Where do llamas live?")
    ready(page)
    vote(page, "A is better").click()
    expect(page.get_by_role("heading", name="You found A better")).to_be_visible()
    assert len(arena.votes) == 1
    assert len(it.wrong) == 4  # two answers of 503, each in the console, too
    it.wrong.clear()


def test_a_page_that_is_loaded_again_goes_on(open_page, arena):
    page = open_page("/battle").page
    ask(page, "Where do llamas live?")
    ready(page)
    page.reload()
    expect(page.locator("#notice")).to_be_hidden()  # it is remembered
    ready(page)
    vote(page, "Tie").click()
    expect(page.locator("#reveal")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="You found both as good")).to_be_visible()
    expect(vote(page, "Tie")).to_be_hidden()


def test_sharing(open_page, arena, tmp_path):
    it = open_page("/battle")
    page = it.page
    ask(page, "Where do llamas live?")
    ready(page)
    page.keyboard.press("s")
    expect(page.get_by_role("dialog", name="Share this conversation")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the picture").click()
    download.value.save_as(tmp_path / "arena.png")
    from PIL import Image

    picture = Image.open(tmp_path / "arena.png")
    assert picture.size[0] == 1800
    assert picture.size[1] > 300
    assert len(picture.convert("RGB").getcolors(2**20)) > 20  # letters, and not one colour
    page.get_by_role("button", name="Make a link").click()
    link = page.get_by_label("Link", exact=True)
    expect(link).to_have_value(re.compile(r"^http://127.*/arena/share/0+\w+$"))
    assert it.barriers() == []
    address = link.input_value()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("1")
    expect(page.locator("#reveal")).to_be_visible()
    page.goto(address)
    expect(page.get_by_text("Whoever asked found A better.")).to_be_visible()
    expect(answers(page).first.locator(".name")).to_have_text(re.compile("vicuna-of-the-andes.*✓ better"))
    assert it.barriers() == []


def test_deleting_everything(open_page, arena):
    page = open_page("/battle").page
    ask(page, "Where do llamas live?")
    ready(page)
    page.get_by_role("button", name="Keys, notice and your data").click()
    page.get_by_role("button", name="Delete my conversations").click()
    page.get_by_role("button", name="Keep them").click()
    assert arena.battles
    page.get_by_role("button", name="Delete my conversations").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(answers(page)).to_have_count(0)
    assert not arena.battles


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page, arena, scheme):
    it = open_page("/battle", read=False, color_scheme=scheme)
    page = it.page
    assert it.barriers() == []
    page.get_by_role("button", name="I understand").click()
    assert it.barriers() == []
    arena.pause = 0.3
    ask(page, "Where do llamas live?")
    expect(answers(page).first).to_have_attribute("data-state", "streaming")
    assert it.barriers() == []
    arena.pause = 0
    ready(page)
    assert it.barriers() == []
    vote(page, "A is better").click()
    expect(page.locator("#reveal")).to_be_visible()
    assert it.barriers() == []
    for path in ("/side-by-side", "/about"):
        page.goto(path)
        assert it.barriers() == []


@pytest.mark.parametrize("path", ["/battle", "/side-by-side", "/about"])
def test_the_first_load_is_light(open_page, path):
    it = open_page(path, read=path != "/about")
    it.page.wait_for_load_state("networkidle")
    assert sum(len(response.body()) for response in it.responses) < FIRST_LOAD

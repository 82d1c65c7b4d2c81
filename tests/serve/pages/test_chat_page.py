"""Direct Chat in a real browser, on a real server."""

from __future__ import annotations

import json
import re
from typing import Any

from camelid.serve.pages.routes import LISTED
from tests.serve.chatting import ENDLESS, SHORT, answered, begin, bodies, field, messages, say
from tests.serve.conftest import MODEL, TINY, wait_until
from tests.serve.pages.watched import playwright

expect = playwright.expect


def test_a_conversation_begins_streams_and_stays(page):
    page.goto("/chat")
    expect(page.get_by_text("What shall we talk about?")).to_be_visible()
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_label("System prompt").fill("You are brief.")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Max tokens").fill("16")
    page.get_by_role("button", name="Close settings").click()
    say(page, "Hello, <b>you</b>!", 2)
    expect(page.get_by_text("What shall we talk about?")).to_be_hidden()
    expect(field(page)).to_have_value("")
    expect(page).to_have_url(re.compile(r"/chat/[0-9a-f]{32}$"))
    expect(page).to_have_title("Hello, <b>you</b>! · camelid")
    expect(page.locator("#conversations [aria-current=page]")).to_have_text("Hello, <b>you</b>!")
    expect(messages(page).last.locator(".note")).to_have_text(re.compile(r"^\d+ tokens? · \d+(\.\d)? tokens/s"))
    shown = bodies(page)
    assert shown[0] == "Hello, <b>you</b>!"
    page.reload()
    assert bodies(page) == shown
    kept = page.request.get(f"/api/conversations/{page.url.rsplit('/', 1)[1]}").json()
    assert kept["system"] == "You are brief."
    assert kept["params"] == {"temperature": 0, "max_tokens": 16}
    expect(page.get_by_label("Temperature")).to_have_value("0")


def test_text_is_shown_while_it_is_written_and_can_be_stopped(page):
    begin(page, params=ENDLESS)
    field(page).fill("Tell me a story.")
    page.get_by_role("button", name="Send").click()
    answer = messages(page).nth(1)
    expect(answer.locator(".note")).to_have_text(re.compile(r"^[5-9]\d tokens"), timeout=40_000)
    expect(answer).to_have_attribute("data-state", "streaming")
    page.get_by_role("button", name="Stop").click()
    answered(page, 2)
    expect(answer).to_have_attribute("data-state", "stopped")
    expect(answer.locator(".note")).to_contain_text("stopped")
    shown = bodies(page)
    assert shown[1]
    page.reload()
    assert bodies(page) == shown


def test_regenerate_makes_versions_to_turn_between(page):
    begin(page, params={"temperature": 1.2, "max_tokens": 10})
    say(page, "Name an animal.", 2)
    answer = messages(page).nth(1)
    first = bodies(page)[1]
    expect(answer.locator(".versions")).to_be_hidden()
    answer.get_by_role("button", name="Answer again").click()
    expect(answer.locator(".place")).to_have_text("2/2")
    answered(page, 2)
    second = bodies(page)[1]
    answer.get_by_role("button", name="Version before").click()
    expect(answer.locator(".place")).to_have_text("1/2")
    assert bodies(page)[1] == first
    expect(answer.get_by_role("button", name="Version before")).to_be_focused()
    page.reload()
    expect(answer.locator(".place")).to_have_text("1/2")
    answer.get_by_role("button", name="Version after").click()
    expect(answer.locator(".place")).to_have_text("2/2")
    assert bodies(page)[1] == second


def test_editing_a_question_branches(page):
    begin(page)
    say(page, "Say one.", 2)
    say(page, "Say two.", 4)
    before = bodies(page)
    question = messages(page).first
    question.hover()
    question.get_by_role("button", name="Edit").click()
    edit = page.get_by_label("Edit the message")
    expect(edit).to_have_value("Say one.")
    edit.fill("Say three.")
    edit.press("Escape")
    expect(edit).to_have_count(0)
    question.get_by_role("button", name="Edit").click()
    edit.fill("Say three.")
    edit.press("Enter")
    answered(page, 2)
    assert bodies(page)[0] == "Say three."
    expect(question.locator(".place")).to_have_text("2/2")
    question.get_by_role("button", name="Version before").click()
    expect(messages(page)).to_have_count(4)
    assert bodies(page) == before


def test_code_is_coloured_and_copied(page):
    id = begin(page)
    code = "def add(a, b):\n    return a + b\n"
    text = f"Here:\n\n```python\n{code}```\n\n- one\n- two\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n"
    stream = [
        {"type": "start", "conversation": {"id": id, "title": "Code"}, "messages": [view(1, "user", "Code?")]},
        {"type": "done", "message": view(2, "assistant", text)},
    ]
    stream[0]["messages"].append(view(2, "assistant", text))
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in stream)
    page.route("**/messages", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    say(page, "Code?", 2)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    keyword = page.locator(".code .k").first
    assert keyword.evaluate("one => getComputedStyle(one).color") != page.locator(".code pre").evaluate(
        "one => getComputedStyle(one).color"
    )
    page.locator("[data-action=copy-code]").click()
    expect(page.locator("[data-action=copy-code]")).to_have_text("Copied")
    assert page.evaluate("() => navigator.clipboard.readText()") == code
    messages(page).last.get_by_role("button", name="Copy", exact=True).click()
    expect(messages(page).last.locator("[data-action=copy]")).to_have_attribute("aria-label", "Copied")
    assert page.evaluate("() => navigator.clipboard.readText()") == text


def view(id: int, role: str, content: str) -> dict[str, Any]:
    from camelid.serve.pages.views import view as made
    from camelid.serve.storage.tables import StoredMessage

    message = StoredMessage(id=id, parent=id - 1 or None, role=role, content=content, model=MODEL, state="complete")
    return made(message, [id])


def test_several_conversations(page):
    first = begin(page)
    say(page, "The first one.", 2)
    shown = bodies(page)
    second = begin(page, title="The second one", model=TINY)
    expect(messages(page)).to_have_count(0)
    expect(page.get_by_label("Model")).to_have_value(TINY)
    say(page, "Hi.", 2)
    page.get_by_role("link", name="The first one.").click()
    expect(page).to_have_url(re.compile(first))
    assert bodies(page) == shown
    current = page.locator("#conversations li", has=page.locator("[aria-current]"))
    current.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Another name")
    page.get_by_label("Title").press("Enter")
    expect(current.locator("[aria-current]")).to_have_text("Another name")
    expect(page.get_by_role("heading", level=1)).to_have_text("Another name")
    for kind, ending in (("Markdown", "md"), ("JSON", "json")):
        with page.expect_download() as download:
            current.get_by_role("link", name=f"save as {kind}").click()
        assert download.value.suggested_filename == f"another-name.{ending}"
        assert "The first one." in download.value.path().read_text(encoding="utf-8")
    current.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Keep it").click()
    assert page.request.get(f"/api/conversations/{first}").ok
    current.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Delete “Another name” for good?")).to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page).to_have_url(re.compile("/chat$"))
    expect(page.get_by_role("link", name="Another name")).to_have_count(0)
    assert page.request.get(f"/api/conversations/{first}").status == 404
    assert page.request.get(f"/api/conversations/{second}").ok


def test_settings_are_kept_and_mistakes_told_beside_them(page, watched):
    id = begin(page)
    page.get_by_role("button", name="Settings", exact=True).click()
    with page.expect_response("**/api/conversations/*"):
        page.get_by_label("Top p").fill("0.5")
        page.get_by_label("Top p").blur()
    page.get_by_text("More sampling").click()
    page.get_by_label("Order", exact=True).select_option("vllm")
    page.get_by_role("textbox", name="Stop").fill("END\nSTOP")
    page.get_by_label("Ignore stop").check()
    chosen = {**SHORT, "top_p": 0.5, "order": "vllm", "stop": ["END", "STOP"], "ignore_stop": True}
    wait_until(lambda: page.request.get(f"/api/conversations/{id}").json()["params"] == chosen)
    page.get_by_label("Top p").fill("7")
    page.get_by_label("Top p").blur()
    expect(page.locator("#settings-problem")).to_contain_text("top_p: must be")
    page.get_by_role("button", name="As the model has it").click()
    expect(page.locator("#settings-problem")).to_be_hidden()
    expect(page.get_by_label("Top p")).to_have_value("")
    wait_until(lambda: page.request.get(f"/api/conversations/{id}").json()["params"] == {})
    assert [text for text in watched.wrong if "400" not in text] == []
    watched.wrong.clear()  # the refusal itself


def test_a_refused_question_stays_to_be_shortened(page, watched):
    begin(page)
    text = "word " * 3000
    field(page).fill(text)
    field(page).press("Enter")
    expect(page.locator("#problem")).to_contain_text("context")
    expect(field(page)).to_have_value(text)
    expect(messages(page)).to_have_count(0)
    assert [text for text in watched.wrong if "400" not in text] == []
    watched.wrong.clear()
    say(page, "Short.", 2)
    expect(page.locator("#problem")).to_be_hidden()


def test_a_failed_answer_says_so_at_its_place(page, server, monkeypatch):
    begin(page)

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(server.models.get(MODEL).llama.engine, "step", broken)
        say(page, "Hi.", 2)
    expect(messages(page).last.get_by_role("alert")).to_contain_text("went wrong")
    page.reload()
    expect(messages(page).last.get_by_role("alert")).to_contain_text("went wrong")
    messages(page).last.get_by_role("button", name="Answer again").click()
    answered(page, 2)
    expect(messages(page).last.get_by_role("alert")).to_be_hidden()


def test_scrolling_follows_the_answer_but_not_against_the_reader(page):
    begin(page, params=ENDLESS)
    log = page.locator("#log")
    page.set_viewport_size({"width": 1280, "height": 480})
    field(page).fill("Tell me a story.")
    field(page).press("Enter")
    expect(messages(page).nth(1).locator(".note")).to_have_text(re.compile(r"^\d{3} tokens"), timeout=60_000)
    assert log.evaluate("it => it.scrollHeight - it.scrollTop - it.clientHeight") < 60
    log.hover()
    page.mouse.wheel(0, -400)
    expect(page.get_by_role("button", name="To the newest message")).to_be_visible()
    place = log.evaluate("it => it.scrollTop")
    height = log.evaluate("it => it.scrollHeight")
    page.wait_for_function("height => document.getElementById('log').scrollHeight > height + 40", arg=height)
    assert log.evaluate("it => it.scrollTop") == place
    page.get_by_role("button", name="To the newest message").click()
    assert log.evaluate("it => it.scrollHeight - it.scrollTop - it.clientHeight") < 60
    page.keyboard.press("Escape")
    answered(page, 2)


def test_a_page_that_is_left_finds_its_answer_further_on(page):
    begin(page, params=ENDLESS)
    field(page).fill("Tell me a story.")
    field(page).press("Enter")
    answer = messages(page).nth(1)
    expect(answer.locator(".note")).to_have_text(re.compile(r"^[5-9]\d tokens"), timeout=40_000)
    page.goto("/about")
    page.go_back()
    expect(answer).to_have_attribute("data-state", "streaming")
    expect(answer.locator(".note")).to_have_text(re.compile(r"^\d{3} tokens"), timeout=40_000)
    page.get_by_role("button", name="Stop").click()
    answered(page, 2)
    expect(answer.locator(".note")).to_contain_text("stopped")


def test_two_tabs_on_one_conversation_show_the_same(page, watched):
    begin(page)
    say(page, "Say one word.", 2)
    other = watched.context.new_page()
    other.goto(page.url)
    expect(messages(other)).to_have_count(2)
    say(page, "Name a colour.", 4)
    say(other, "Name a city.", 6)
    assert [text for text in bodies(other) if text in ("Say one word.", "Name a colour.", "Name a city.")] == [
        "Say one word.",
        "Name a colour.",
        "Name a city.",
    ]
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(messages(page)).to_have_count(6)
    assert bodies(page) == bodies(other)


KEY = """([key, composing, code]) => document.getElementById('question').dispatchEvent(new KeyboardEvent('keydown',
    {key, bubbles: true, cancelable: true, isComposing: composing, keyCode: code}))"""


def test_keys_of_an_input_method_neither_send_nor_stop(page):
    """Safari ends a composition before its last keydown: isComposing is false then, and the code 229."""
    begin(page, params=ENDLESS)
    field(page).fill("にほんご")
    for composing, code in ((True, 229), (False, 229), (True, 13)):
        page.evaluate(KEY, ["Enter", composing, code])
    page.wait_for_timeout(200)
    expect(messages(page)).to_have_count(0)
    page.evaluate(KEY, ["Enter", False, 13])
    answer = messages(page).nth(1)
    expect(answer.locator(".note")).to_have_text(re.compile(r"^\d+ tokens"))
    page.evaluate(KEY, ["Escape", False, 229])
    page.wait_for_timeout(200)
    expect(answer).to_have_attribute("data-state", "streaming")
    page.evaluate(KEY, ["Escape", False, 27])
    expect(answer).to_have_attribute("data-state", "stopped")


def test_older_conversations_are_loaded_when_wanted(page, server):
    for number in range(LISTED + 3):
        page.request.post("/api/conversations", data={"model": MODEL, "title": f"Talk {number}"})
    page.goto("/chat")
    rows = page.locator("#conversations li")
    expect(rows).to_have_count(LISTED)
    expect(rows.first.locator("a").first).to_have_text(f"Talk {LISTED + 2}")
    page.get_by_role("link", name="Older conversations").click()
    expect(page.get_by_text("Talk 0", exact=True)).to_be_attached()
    titles = rows.locator("a:not([data-action])").all_inner_texts()
    assert titles[: LISTED + 3] == [f"Talk {number}" for number in reversed(range(LISTED + 3))]

"""Each layout becomes the conversation that it means; what does not fit is refused for a reason that says so."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.data.chats.examples import GRADES
from camelid.data.chats.labels import grade_of, safety_of
from camelid.data.chats.layouts import LAYOUTS, layout_of
from camelid.data.chats.records import ROLES, ChatRecord, MisfitError, to_messages

USER, BOT = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
ASKED = [USER, BOT]


def read(record, form="conversations") -> ChatRecord:
    layout = layout_of(record, form)
    assert layout is not None, record
    return layout.read(record)


@pytest.mark.parametrize(
    ("name", "record", "expected"),
    [
        ("messages", {"messages": ASKED}, ASKED),
        ("messages", {"prompt": "Why?", "messages": ASKED}, ASKED),  # as in UltraChat
        ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}, BOT]}, ASKED),
        ("ShareGPT", {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}, ASKED),
        (
            "ShareGPT",
            {
                "system": "Be short.",
                "conversations": [{"from": "user", "value": "Why?"}, {"from": "gpt", "value": "So."}],
            },
            [{"role": "system", "content": "Be short."}, *ASKED],
        ),
        ("Alpaca", {"instruction": "Why?", "input": "", "output": "So."}, ASKED),
        (
            "Alpaca",
            {"instruction": "Add.", "input": "1 2", "output": "3", "history": [["Why?", "So."]], "system": "Be short."},
            [
                {"role": "system", "content": "Be short."},
                *ASKED,
                {"role": "user", "content": "Add.\n1 2"},
                {"role": "assistant", "content": "3"},
            ],
        ),
        ("self-instruct", {"instruction": "Why?", "instances": [{"input": "", "output": "So."}]}, ASKED),
        ("prompt and completion", {"prompt": "Why?", "completion": "So."}, ASKED),
        ("prompt and completion", {"prompt": [USER], "completion": [BOT]}, ASKED),
        ("question and answer", {"question": "Why?", "answer": "So."}, ASKED),
        ("Anthropic's text", {"text": "\n\nHuman: Why?\n\nAssistant: So."}, ASKED),
    ],
)
def test_conversations(name, record, expected):
    assert layout_of(record, "conversations").name == name
    assert read(record).messages == expected


def test_only_the_completion_is_learned():
    record = read({"prompt": [*ASKED, USER], "completion": [BOT]})
    assert [turn.get("weight", 1) for turn in record.messages] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
        {"prompt": [USER], "chosen": [BOT], "rejected": [{"role": "assistant", "content": "No."}]},
        {"chosen": ASKED, "rejected": [USER, {"role": "assistant", "content": "No."}]},
        {"prompt": "Why?", "chosen": ASKED, "rejected": [USER, {"role": "assistant", "content": "No."}]},
        {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
        {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": "So.", "rejected": "No."},
    ],
)
def test_preferences(record):
    pair = read(record, "preferences")
    assert pair.messages == [USER]
    assert (pair.chosen, pair.rejected) == (BOT, {"role": "assistant", "content": "No."})


def test_what_is_said_of_a_pair_is_kept():
    record = {"prompt": "Why?", "chosen": "So.", "rejected": "No.", "grade": "Slightly_better", "safety": "both safe"}
    assert read(record, "preferences").about == {
        "grade": "slightly better",
        "chosen_safe": True,
        "rejected_safe": True,
    }


def test_prompts_keep_what_else_is_known():
    record = {"question": "1 + 1?", "answer": "#### 2", "safety": False, "level": 3}
    prompt = read(record, "prompts")
    assert prompt.messages == [{"role": "user", "content": "1 + 1?"}]
    assert prompt.about == {"answer": "#### 2", "safety": False, "level": 3}
    assert read({"chosen": ASKED, "rejected": [USER, {**BOT, "content": "No."}]}, "prompts").messages == [USER]
    with pytest.raises(MisfitError, match="ends with an answer"):
        read({"prompt": ASKED}, "prompts")


@pytest.mark.parametrize(
    ("form", "record", "reason"),
    [
        ("conversations", {"messages": [USER]}, "ends with the user"),
        ("conversations", {"messages": [{"role": "system", "content": "a"}] * 2 + ASKED}, "two system messages"),
        ("conversations", {"messages": [USER, {"role": "system", "content": "a"}, BOT]}, "not the first"),
        ("conversations", {"messages": [USER, {**BOT, "content": " "}]}, "an empty answer"),
        ("conversations", {"messages": [USER, {"role": "bot", "content": "So."}]}, "unknown role 'bot'"),
        ("conversations", {"messages": "Why?"}, "no list"),
        ("conversations", {"messages": [{**USER, "content": None}, BOT]}, "without a text"),
        ("conversations", {"messages": [USER, {**BOT, "content": "\ud800"}]}, "not Unicode"),
        ("conversations", {"messages": [USER, {**BOT, "weight": 0.5}]}, "weight"),
        ("conversations", {"messages": [{**USER, "content": [{"type": "image"}]}, BOT]}, "no text"),
        ("conversations", {"conversations": [{"from": "narrator", "value": "a"}]}, "unknown speaker"),
        ("conversations", {"instruction": "a", "instances": [{"output": "b"}] * 2}, "one instance"),
        ("preferences", {"prompt": "Why?", "chosen": "So.", "rejected": "So. "}, "the same"),
        ("preferences", {"prompt": "Why?", "chosen": "So.", "rejected": "No.", "grade": "great"}, "unknown grade"),
        ("preferences", {"prompt": "Why?", "chosen": "a", "rejected": "b", "safety": "fine"}, "unknown safety"),
        ("preferences", {"chosen": "So.", "rejected": "No."}, "no prompt"),
        ("preferences", {"chosen": ASKED, "rejected": [{**USER, "content": "b"}, BOT]}, "before the last answer"),
        ("preferences", {"prompt": [USER], "chosen": [USER], "rejected": [BOT]}, "ends with the user"),
        ("prompts", {"prompt": "Why?", "safety": "yes"}, "not true or false"),
        ("prompts", {"prompt": [{"role": "system", "content": "a"}]}, "no question"),
    ],
)
def test_misfits_say_why(form, record, reason):
    with pytest.raises(MisfitError, match=reason):
        read(record, form)


def test_tools_and_calls_are_kept():
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "1"},
        BOT,
    ]
    record = read({"messages": messages, "tools": [{"type": "function", "function": {"name": "add"}}]})
    assert record.messages[1]["tool_calls"] == [{"id": "1", "name": "add", "arguments": '{"a": 1}'}]
    assert record.tools
    assert ChatRecord.from_json(record.as_json()) == record


def test_a_record_is_of_no_layout():
    for form in LAYOUTS:
        assert layout_of({"code": "x", "chosen": None, "messages": None}, form) is None


def test_the_papers_words():
    for grade in GRADES:
        assert grade_of({"grade": grade.upper().replace(" ", "-")}) == grade
    assert grade_of({"grade": "negligibly better / unsure"}) == grade_of({"grade": "unsure"}) == GRADES[3]
    assert grade_of({}) is None
    words = {
        "chosen safe, other unsafe": (True, False),
        "the preferred response is safe and the other response is not": (True, False),
        "both responses are safe": (True, True),
        "Both unsafe": (False, False),
    }
    for text, labels in words.items():
        assert safety_of({"safety": text}) == labels
    assert safety_of({"chosen_safe": True}) == (True, None)
    for record in ({"safety": "chosen unsafe, other safe"}, {"chosen_safe": False, "rejected_safe": True}):
        with pytest.raises(MisfitError, match="unsafe and the other safe"):
            safety_of(record)


TEXT = st.sampled_from(
    ["", "a", "\n\nHuman: a\n\nAssistant: b", "\n\nHuman:", "both safe", "better", "user", "assistant"]
)
SCALAR = TEXT | st.none() | st.booleans() | st.integers(-1, 2) | st.floats(allow_nan=False)
KEYS = st.sampled_from(
    ["role", "content", "from", "value", "text", "weight", "tool_calls", "function", "name", "output"]
)
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
TURN = st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": TEXT | VALUE}) | VALUE
FIELD = VALUE | st.lists(TURN, max_size=4)
NAMES = sorted({name for layouts in LAYOUTS.values() for layout in layouts for name in layout.fields})
NAMES += ["input", "history", "system", "tools", "grade", "safety", "chosen_safe", "rejected_safe"]


ROWS = [(form, layout) for form, layouts in LAYOUTS.items() for layout in layouts]


@given(st.sampled_from(ROWS), st.data())
@settings(max_examples=300)
def test_whatever_a_record_holds_it_is_read_or_refused(row, data):
    form, layout = row
    record = {name: data.draw(FIELD, name) for name in layout.fields}
    record |= data.draw(st.dictionaries(st.sampled_from(NAMES), FIELD, max_size=3))
    layout = layout_of(record, form)
    if layout is None:
        return
    try:
        made = layout.read(record)
    except MisfitError:
        return
    assert ChatRecord.from_json(json.loads(json.dumps(made.as_json()))).as_json() == json.loads(
        json.dumps(made.as_json())
    )
    assert isinstance(made.text(), str)
    assert all(turn["role"] in ROLES for turn in made.messages)
    to_messages(made.messages)
    if form == "conversations":
        assert made.messages[-1]["role"] == "assistant"
    elif form == "preferences":
        assert made.chosen != made.rejected

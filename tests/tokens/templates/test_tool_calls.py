"""Tool calls in answers: found however the text is cut, and nothing lost that is no call."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.errors import OptionError
from camelid.tokens.templates.message import ToolCall
from camelid.tokens.templates.tool_calls import (
    Arguments,
    CallBegun,
    CallEnded,
    Content,
    ToolEvent,
    ToolParser,
    gathered,
    new_id,
)
from camelid.tokens.templates.tool_styles import STYLES, control_ids, style_of, tool_names
from tests.tokens.vocabularies import llama3, small_bytes

NAMES = ("f", "get_weather")


def events(style: str, *pieces: str) -> list[ToolEvent]:
    """All events of a text that comes in pieces."""
    numbers = itertools.count()
    parser = ToolParser(STYLES[style], NAMES, make_id=lambda: f"id{next(numbers)}")
    return [*itertools.chain.from_iterable(map(parser.push, pieces)), *parser.finish()]


def merged(events: Iterable[ToolEvent]) -> list[ToolEvent]:
    """Neighbouring texts joined."""
    joined: list[ToolEvent] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, Content) and isinstance(last, Content):
            joined[-1] = Content(last.text + event.text)
        elif isinstance(event, Arguments) and isinstance(last, Arguments):
            joined[-1] = Arguments(event.index, last.text + event.text)
        else:
            joined.append(event)
    return joined


def read(style: str, text: str) -> tuple[str, list[tuple[str, str]]]:
    content, calls = gathered(events(style, text))
    return content, [(call.name, call.arguments) for call in calls]


F, WEATHER = ("f", "{}"), ("get_weather", '{"city": "Oslo"}')


@pytest.mark.parametrize(
    ("style", "text", "content", "calls"),
    [
        ("hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>', "", [WEATHER]),
        ("hermes", 'Let me see.\n<tool_call>{"name": "f", "arguments": {}}</tool_call>', "Let me see.\n", [F]),
        ("hermes", '<tool_call>{"arguments": {"city": "Oslo"}, "name": "get_weather"}</tool_call>', "", [WEATHER]),
        ("hermes", '<tool_call>{"type": "function", "name": "f", "id": {"a": [1]}, "arguments": {}}', "", [F]),
        ("hermes", '<tool_call>{"name": "f"}</tool_call>\n<tool_call>{"name": "f"}</tool_call>\n', "", [F, F]),
        ("hermes", '<tool_call>{"name": "f"}</tool_call> Done.', " Done.", [F]),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}}\n<tool_call>{"name": "f"}', "", [F, F]),
        ("json", '{"name": "get_weather", "parameters": {"city": "Oslo"}}', "", [WEATHER]),
        ("json", ' {"name": "f", "parameters": {}}; {"name": "f", "parameters": {}}\n', "", [F, F]),
        ("json", '{"name": "f", "parameters": {}}\n{"name": "f", "arguments": {}}', "", [F, F]),
        ("json", 'I look.<|python_tag|>{"type": "function", "name": "f", "parameters": {}}', "I look.", [F]),
        ("function", '<function=get_weather>{"city": "Oslo"}</function>', "", [WEATHER]),
        ("function", "A\n<function=f></function>\n<function=f>\n{}\n</function>B", "A\nB", [F, F]),
    ],
)
def test_calls_of_each_style(style, text, content, calls):
    assert read(style, text) == (content, calls)


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("hermes", "Just words.\n"),
        ("hermes", "  \n"),
        ("hermes", "a < b, <tool_ call>, <tool_cal"),
        ("hermes", '<tool_call>{"name": "g", "arguments": {}}</tool_call>'),
        ("hermes", '<tool_call>{"name": 5, "arguments": {}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
        ("hermes", '<tool_call>{"arguments": {"a": 1}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "f", "arguments": '),
        ("hermes", "<tool_call>f()</tool_call>"),
        ("hermes", "<tool_call>{}</tool_call>"),
        ("json", '{"answer": {"name": "f"}}'),
        ("json", '{"name": "f"}'),
        ("json", 'See {"name": "f", "parameters": {}}'),
        ("json", "<|python_tag|>print(1); f()"),
        ("function", '<function=g>{"a": 1}</function>'),
        ("function", "<function=f>a=1</function>"),
        ("function", "<function=f"),
    ],
)
def test_what_is_no_call_is_content_unchanged(style, text):
    assert read(style, text) == (text, [])


@pytest.mark.parametrize(
    ("style", "text", "content", "calls"),
    [
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "b', "", [("f", '{"a": "b')]),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>x', "x", [("f", '{"a": 1}')]),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1</tool_call>x', "x", [("f", '{"a": 1')]),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}}}</tool_call>', "}</tool_call>", [F]),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}}\n</tool_c', "", [F]),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}} and <tool_c', " and <tool_c", [F]),
        ("json", '{"name": "f", "parameters": {}} Bye; {"name": "f", "parameters": {}}', None, [F]),
    ],
)
def test_calls_that_break_off_end_and_what_follows_is_content(style, text, content, calls):
    wanted = content if content is not None else text.partition("}}")[2]
    assert read(style, text) == (wanted, calls)


def test_arguments_come_as_they_are_written_and_nothing_that_may_be_a_call_comes_early():
    parser = ToolParser(STYLES["hermes"], NAMES, make_id=lambda: "id")
    assert parser.push("Well <tool") == [Content("Well ")]
    assert parser.push('_call>{"name": "f"') == []
    assert parser.push(', "arguments": {"te') == [CallBegun(0, "id", "f"), Arguments(0, '{"te')]
    assert parser.push('xt": "} \\" <') == [Arguments(0, 'xt": "} \\" <')]
    assert parser.push('"}}</tool') == [Arguments(0, '"}'), CallEnded(0)]
    assert parser.push("_call>") == []
    assert (parser.finish(), parser.n_calls) == ([], 1)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["}", '"', "\\", "</tool_call>"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_ARGUMENTS = st.dictionaries(st.text(max_size=6), _JSON, max_size=3)
_WORDS = st.text(st.sampled_from('ab <>{}":;\n|/'), max_size=12) | st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "<|python_tag|>", "<function=", "<function=f>", "</function>", "<tool_", ";"),
        *('{"name": "f", "arguments": {', '{"name": "f", "parameters": {}}', '{"name": ', '"f"', ", ", "}}", "\\", '"'),
    ]
)


@settings(max_examples=400, deadline=None)
@given(
    style=st.sampled_from(sorted(STYLES)),
    text=st.lists(_WORDS, max_size=12).map("".join),
    cuts=st.lists(st.integers(0, 100), max_size=8),
)
def test_any_cutting_of_any_text_gives_the_same(style, text, cuts):
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    whole = events(style, text)
    assert merged(events(style, *pieces)) == merged(events(style, *text)) == merged(whole)
    content, calls = gathered(whole)
    if not calls:
        assert content == text
    begun = [event.index for event in whole if isinstance(event, CallBegun)]
    assert begun == [event.index for event in whole if isinstance(event, CallEnded)] == list(range(len(calls)))


def written(style: str, name: str, arguments: str) -> str:
    """A call as a model of that style writes it."""
    return {
        "hermes": f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>\n',
        "json": f'{{"name": "{name}", "parameters": {arguments}}};',
        "function": f"<function={name}>{arguments}</function>",
    }[style]


@settings(max_examples=200, deadline=None)
@given(
    style=st.sampled_from(sorted(STYLES)),
    calls=st.lists(st.tuples(st.sampled_from(NAMES), _ARGUMENTS), min_size=1, max_size=3),
    ascii=st.booleans(),
    size=st.integers(1, 9),
)
def test_calls_that_are_written_are_found_with_the_arguments_as_they_stand(style, calls, ascii, size):
    texts = [(name, json.dumps(arguments, ensure_ascii=ascii)) for name, arguments in calls]
    text = "".join(written(style, *call) for call in texts)
    content, found = gathered(events(style, *(text[at : at + size] for at in range(0, len(text), size))))
    assert content == ""
    assert found == tuple(ToolCall(f"id{place}", *call) for place, call in enumerate(texts))


@pytest.mark.parametrize("part", ['<tool_call>{"name": "f", "arguments": {"a": "', "<tool_call>", '"', "{", "<"])
def test_time_grows_with_the_text_only(part):
    text = '<tool_call>{"name": "f", "arguments": {"a": ' + part * (60_000 // len(part))
    started = time.process_time()
    events("hermes", text)
    assert time.process_time() - started < 2


def test_ids_differ():
    assert len({new_id() for _ in range(100)}) == 100


def test_the_style_is_what_the_template_writes():
    assert style_of("{{ '<tool_call>\\n' }}") is STYLES["hermes"]
    assert style_of("{{ '<function=' ~ name ~ '>' }}") is STYLES["function"]
    assert style_of("""{{ '{"name": "' + name + '", "parameters": ' }}""") is STYLES["json"]
    assert style_of("<tool_call><function=f><parameter=a>") is None
    assert style_of("{{ tools }}") is None


def test_control_tokens_of_a_style_are_those_the_vocabulary_has():
    assert control_ids(llama3(), STYLES["json"]) == {128010: "<|python_tag|>"}
    assert control_ids(llama3(), STYLES["hermes"]) == {}
    both = small_bytes("<tool_call>", "</tool_call>")
    assert set(control_ids(both, STYLES["hermes"]).values()) == {"<tool_call>", "</tool_call>"}


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ([{"type": "retrieval"}], "number 1 is not a function"),
        ([{"type": "function"}], "number 1 is not a function"),
        ([{"type": "function", "function": {"name": "a b"}}], "number 1: the name must be 1 to 64 letters"),
        ([{"type": "function", "function": {"name": "a"}}] * 2, "two are named 'a'"),
    ],
)
def test_tools_that_are_none_are_refused(tools, words):
    with pytest.raises(OptionError, match=f"^tools: {words}"):
        tool_names(tools)
    assert tool_names([{"type": "function", "function": {"name": "a-1"}}]) == ("a-1",)


CUT = {
    "hermes": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
    "json": '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo"}}',
    "function": '<function=get_weather>{"city": "Oslo"}</function>',
}


@pytest.mark.parametrize("style", CUT)
def test_a_call_that_is_cut_is_no_content(style):
    """As at OpenAI's: the call as far as it has come; nothing of how the model writes it."""
    text, opens = CUT[style], STYLES[style].opens
    known = text.index("get_weather") + len("get_weather")
    for end in range(len(opens), len(text) + 1):
        parser = ToolParser(STYLES[style], NAMES)
        content, calls = gathered([*parser.push(text[:end]), *parser.finish(cut=True)])
        assert content == ""
        assert [call.name for call in calls] == (["get_weather"] if end > known else [])
        assert all('{"city": "Oslo"}'.startswith(call.arguments) for call in calls)


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("hermes", "a <tool_ca"),  # may become anything
        ("hermes", '<tool_call>{"name": "unknown", "arg'),
        ("json", '{"answer": 4'),
        ("json", '{"na'),
        ("function", "<functio"),
    ],
)
def test_text_that_is_cut_and_may_be_no_call_stays_content(style, text):
    parser = ToolParser(STYLES[style], NAMES)
    assert gathered([*parser.push(text), *parser.finish(cut=True)]) == (text, ())

"""Answers that must be calls: whatever a model would rather write, they parse, and their arguments fit."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema
import pytest

from camelid.chat.answer import Answer, collect
from camelid.chat.constrain import Constrainer
from camelid.chat.llama import Llama
from camelid.chat.tool_calls import NOTHING, tool_form
from camelid.engine.engine import Engine, EngineOptions
from camelid.errors import OptionError
from camelid.tokens.templates.message import Message
from camelid.tokens.templates.tool_calls import ToolParser, gathered
from camelid.tokens.templates.tool_styles import STYLES
from tests.engine.backends import tiny_backend
from tests.tiny import tiny_config
from tests.tokens.templates.test_tool_templates import CUSTOM, HERMES, LLAMA
from tests.tokens.vocabularies import small_bytes
from tests.weights.models import tiny_weights

WORD = {"type": "string", "pattern": "^[a-z]{1,5}$"}
TOOLS: dict[str, dict[str, Any] | None] = {
    "nothing": None,
    "scalars": {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"type": "boolean"}, "w": WORD},
        "required": ["n", "b", "w"],
        "additionalProperties": False,
    },
    "closed": {
        "properties": {
            "unit": {"enum": ["C", "F", '"}</tool_call>']},
            "more": {"type": "array", "items": WORD, "maxItems": 2},
        },
        "required": ["unit"],
        "additionalProperties": False,
    },
    "nested": {
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/place"}, "or": {"anyOf": [{"type": "null"}, {"const": 1.5}]}},
        "required": ["at", "or"],
        "additionalProperties": False,
        "$defs": {
            "place": {
                "type": "object",
                "properties": {"x": {"type": "integer", "minimum": -5, "maximum": 5}},
                "required": ["x"],
                "additionalProperties": False,
            }
        },
    },
}


def described(name: str) -> dict[str, Any]:
    parameters = TOOLS[name]
    return {"type": "function", "function": {"name": name} | ({"parameters": parameters} if parameters else {})}


ALL = [described(name) for name in TOOLS]
SHOWN = [
    {"type": "function", "function": {"parameters": NOTHING, "description": "", **tool["function"]}} for tool in ALL
]
CONTROL = ("<|im_end|>", "<|im_start|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
CASES = {
    "hermes": (HERMES, CONTROL, "hermes"),
    "hermes, control tokens": (HERMES, (*CONTROL, "<tool_call>", "</tool_call>"), "hermes"),
    "json": (LLAMA, (*CONTROL, "<|python_tag|>"), "json"),
    "json, without its control token": (LLAMA, CONTROL, "json"),
    "function": (CUSTOM, CONTROL, "function"),
}


@cache
def llama(case: str) -> Llama:
    """A random model with a vocabulary of bytes, and a template of the case's style."""
    template, control, _ = CASES[case]
    tokenizer = small_bytes(*control)
    config = tiny_config(vocab_size=320, context=4096)
    weights = tiny_weights(config=config, chat_template=template, stop_ids=(256,), load_tokenizer=lambda: tokenizer)
    return Llama(weights, Engine(tiny_backend(vocab_size=320, context=4096), EngineOptions()))


def answers(case: str, choice: str | None, seed: int, parallel: bool = True) -> list[tuple[str, Any]]:
    """Whole answers of a random model that must call, as content and calls."""
    model, style = llama(case), STYLES[CASES[case][2]]
    form = tool_form(ALL, choice, style, model.tokenizer, parallel=parallel)
    request = model.chat_request(
        [Message("user", "Go.")], tools=SHOWN, form=form, temperature=1.0, top_p=1.0, seed=seed, n=4, max_tokens=1000
    )
    answer = Answer(model.tokenizer, request)
    whole = collect(delta for token in model.engine.stream(request) if (delta := answer.push(token)))
    ended = [sample for sample in (whole, *whole.others) if sample.finish_reason != "length"]
    assert all(sample.finish_reason == "tool_calls" for sample in ended)
    return [(sample.text, sample.tool_calls) for sample in ended]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("choice", [None, *(pytest.param(tool, marks=pytest.mark.slow) for tool in TOOLS)])
def test_answers_are_calls_whose_arguments_fit_their_schema(case, choice):
    read = answers(case, choice, seed=1)
    assert len(read) >= 3  # hardly any is cut by its length
    for content, calls in read:
        assert content == ""
        assert calls
        for call in calls:
            assert call.name in (TOOLS if choice is None else [choice])
            schema = TOOLS[call.name] or {"type": "object", "maxProperties": 0}
            jsonschema.validate(json.loads(call.arguments), {"type": "object", **schema})


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_one_call_or_more(case):
    counts = {len(calls) for seed in range(6) for _, calls in answers(case, "nothing", seed)}
    assert 1 in counts
    assert max(counts) > 1
    assert {len(calls) for seed in range(3) for _, calls in answers(case, None, seed, parallel=False)} == {1}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_python_is_given_the_calls_too_whole_and_streamed(case):
    model, style = llama(case), STYLES[CASES[case][2]]
    choices = {
        "tools": SHOWN,
        "form": tool_form(ALL, "nothing", style, model.tokenizer),
        "temperature": 1.0,
        "seed": 4,
        "max_tokens": 400,
        "logprobs": 0,
    }
    whole = model.chat("Go.", **choices)
    assert (whole.text, whole.finish_reason) == ("", "tool_calls")
    assert {call.name for call in whole.tool_calls} == {"nothing"}
    written = "".join(logprob.token.text for logprob in whole.logprobs)
    parser = ToolParser(style, list(TOOLS))  # the oracle: a parser over the text that the tokens spell
    _, calls = gathered([*parser.push(written), *parser.finish()])
    assert [(call.name, call.arguments) for call in calls] == [(it.name, it.arguments) for it in whole.tool_calls]
    deltas = list(model.stream_chat("Go.", **choices))
    _, calls = gathered(piece for delta in deltas for piece in delta.tool_calls)
    assert [(call.name, call.arguments) for call in calls] == [(it.name, it.arguments) for it in whole.tool_calls]
    assert deltas[-1].finish_reason == "tool_calls"
    first = model.chat("Go.", **choices, parallel_tool_calls=False)
    assert [(call.name, call.arguments) for call in first.tool_calls] == [("nothing", whole.tool_calls[0].arguments)]


def allows(case: str, text: str) -> bool:
    """Whether an answer that may be text or calls can be this one, from its first token to its end."""
    model = llama(case)
    tokenizer, style = model.tokenizer, STYLES[CASES[case][2]]
    form = tool_form(ALL, None, style, tokenizer, talk=True)
    constraint = Constrainer(tokenizer, (256,), 320).start(form)
    for id in tokenizer.encode(text, special=True):
        if not constraint.mask()[id]:
            return False
        constraint.push(id)
    return bool(constraint.mask()[256])


GOOD, BAD = '{"unit": "C"}', '{"unit": "K"}'
CALLS = {
    "hermes": '<tool_call>\n{"name": "closed", "arguments": %s}\n</tool_call>',
    "json": '{"name": "closed", "parameters": %s}',
    "function": "<function=closed>%s</function>",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_an_answer_may_be_text_but_no_call_is_wrong(case):
    call = CALLS[CASES[case][2]]
    for text in ("", "Hello.", "<tool", "<b>{1}</b>\n\n \u6f22", "It holds: {} <fun"):
        assert allows(case, text), text
    assert allows(case, call % GOOD)
    assert not allows(case, call % BAD)
    assert not allows(case, (call % GOOD).replace("closed", "open"))
    assert not allows(case, (call % GOOD)[:-4])
    around = "So: %s" if CASES[case][2] != "json" else "<|python_tag|>%s"
    assert allows(case, around % call % GOOD) is (case != "json, without its control token")
    assert not allows(case, around % call % BAD)
    both = STYLES[CASES[case][2]].between.join([call, call])
    assert allows(case, both % (GOOD, GOOD))
    assert not allows(case, both % (GOOD, BAD))


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return {"type": "object", "properties": {"a": schema}}


@pytest.mark.parametrize(
    ("tools", "choice", "words"),
    [
        (ALL, "scalar", "^tool_choice: unknown tool 'scalar'; did you mean 'scalars'"),
        ([{"type": "retrieval"}], None, "^tools: number 1 is not a function"),
        (
            [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}],
            None,
            r"^tools\[0\].function.parameters: must be a JSON schema of type object",
        ),
    ],
)
def test_what_cannot_be_called_is_refused(tools, choice, words):
    with pytest.raises(OptionError, match=words):
        tool_form(tools, choice, STYLES["json"], small_bytes())


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"properties": {"a": {"uniqueItems": True}}}, r"tools\[0\].function.parameters.properties.a.uniqueItems"),
        ({"properties": {"a": {"pattern": "("}}}, "tools: .*unclosed group"),
        ({"properties": {"\ud83d": {}}}, r"tools\[0\].function.parameters: holds half a character"),
        (deep(400), r"tools\[0\].function.parameters: is nested more than 64 deep"),
        (deep(5000), r"tools\[0\].function.parameters: is nested too deep"),
    ],
)
def test_a_schema_that_is_not_done_is_refused_before_anything_is_written(parameters, words):
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    model = llama("hermes")
    form = tool_form(tools, None, STYLES["hermes"], model.tokenizer)
    with pytest.raises(OptionError, match=f"^{words}") as caught:
        model.generate("Go.", form=form)
    assert "call_0" not in str(caught.value)  # the grammar is not the caller's

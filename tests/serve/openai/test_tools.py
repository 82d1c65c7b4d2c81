"""Tools and tool_choice as the official client sees them, streamed and whole."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from camelid.chat.constrain import Form
from camelid.chat.llama import Llama
from camelid.serve.models import Models
from camelid.serve.worker import Worker
from tests.serve.conftest import random_llama, running
from tests.serve.openai.official import assert_same, joined, official
from tests.tokens.templates.test_tool_templates import CUSTOM, HERMES

WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Ulm", "Köln"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now"}},
]
STRICT = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}, TOOLS[1]]
ASK = [{"role": "user", "content": "How is the weather in Köln?"}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln", "days": 2}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


class Opening:
    """A constraint whose first ids are known."""

    def __init__(self, inner, ids):
        self.inner, self.ids = inner, list(ids)

    @property
    def finished(self):
        return self.inner.finished

    def mask(self):
        mask = self.inner.mask()
        if self.ids:
            assert mask[self.ids[0]], "the form does not let the answer begin so"
            mask[:] = False
            mask[self.ids[0]] = True
        return mask

    def push(self, id):
        self.inner.push(id)
        self.ids = self.ids[1:]

    slow = False

    def ready(self, seconds=0.0):
        return True

    def fork(self):
        return Opening(self.inner.fork(), self.ids)


class Scripted(Llama):
    """A random model that is made to say what the test has written down, or to begin with it where it has a form."""

    script: str | None = None

    def chat_request(self, *given, form=None, **changes):
        if self.script is None:
            return super().chat_request(*given, form=form, **changes)
        if form is None:
            form = Form(grammar=f"start: {json.dumps(self.script, ensure_ascii=False)}")
            return super().chat_request(*given, form=form, **changes)
        request = super().chat_request(*given, form=form, **changes)
        return replace(request, constraint=Opening(request.constraint, self.tokenizer.encode_segment(self.script)))


def scripted(smollm2_path, template):
    plain = random_llama(smollm2_path, context=1024)
    return Scripted(replace(plain.weights, chat_template=template), plain.engine)


@pytest.fixture(scope="module")
def hermes(smollm2_path):
    return scripted(smollm2_path, HERMES)


@pytest.fixture(scope="module")
def custom(smollm2_path):
    return scripted(smollm2_path, CUSTOM)


@pytest.fixture(scope="module")
def client(hermes, custom, options):
    models = Models([Worker("hermes", hermes), Worker("custom", custom)])
    with running(models, options) as server, official(server) as it:
        yield it


@pytest.fixture
def says(hermes):
    """What the model answers where it is free to."""

    def script(text):
        hermes.script = text

    yield script
    hermes.script = None


def ask(client, **changes):
    return client.chat.completions.create(**{"model": "hermes", "messages": ASK, "tools": TOOLS, "seed": 1, **changes})


def both(client, **asked):
    """The whole answer, which the streamed one is the same as."""
    whole = ask(client, **asked)
    assert_same(whole, ask(client, stream=True, **asked))
    return whole


def called(choice):
    return [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls or ()]


KOELN = ("weather", {"city": "Köln", "days": 2})
ANSWERS = {
    "a call": (CALL, None, [KOELN], "tool_calls"),
    "text": ("It is sunny <tool", "It is sunny <tool", [], "stop"),
    "text and calls": (f"Let me see.\n{CALL}\n{NOW}", "Let me see.\n", [KOELN, ("now", {})], "tool_calls"),
    "an unknown function": (CALL.replace("weather", "whether"), CALL.replace("weather", "whether"), [], "stop"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("script", "text", "calls", "reason"), ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("choice", ["auto", None])
def test_calls_are_found_in_what_the_model_says(client, says, script, text, calls, reason, choice):
    says(script)
    whole = both(client, tool_choice=choice, logprobs=True)
    found = whole.choices[0]
    assert found.message.content == text
    assert called(found) == calls
    assert found.finish_reason == reason
    assert "".join(logged.token for logged in found.logprobs.content) == script
    ids = [call.id for call in found.message.tool_calls or ()]
    assert all(id.startswith("call_") for id in ids)
    assert len(set(ids)) == len(calls)


def test_arguments_come_in_pieces(client, says):
    says(CALL)
    chunks = [chunk.choices[0].delta.tool_calls for chunk in ask(client, stream=True)]
    first, *rest = [calls[0] for calls in chunks if calls]
    assert (first.type, first.function.name, first.function.arguments) == ("function", "weather", "")
    assert len(rest) > 3
    assert all(call.id is None and call.function.name is None for call in rest)


def test_none_leaves_the_tools_out(client, says):
    says(CALL)
    reply = both(client, tool_choice="none")
    assert reply.choices[0].message.content == CALL
    assert reply.choices[0].message.tool_calls is None
    assert reply.usage.prompt_tokens < ask(client).usage.prompt_tokens


def test_without_parallel_calls_the_first_one_ends_the_answer(client, says):
    says(f"Wait.\n{CALL}\n{NOW}")
    whole = both(client, parallel_tool_calls=False)
    assert called(whole.choices[0]) == [KOELN]
    assert whole.choices[0].message.content == "Wait.\n"
    assert whole.choices[0].finish_reason == "tool_calls"
    assert whole.usage.completion_tokens < both(client).usage.completion_tokens


def test_an_answer_that_is_cut_says_so(client, says):
    says(CALL)
    whole = both(client, max_tokens=16)
    assert whole.choices[0].finish_reason == "length"
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        called(whole.choices[0])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["hermes", "custom"])
@pytest.mark.parametrize("seed", range(4))
def test_required_calls_are_made_and_fit_their_schema(client, model, seed):
    whole = both(client, model=model, tool_choice="required", parallel_tool_calls=False, seed=seed, temperature=1)
    (name, arguments) = called(whole.choices[0])[0]
    jsonschema.validate(arguments, WEATHER if name == "weather" else {"type": "object", "maxProperties": 0})
    assert whole.choices[0].finish_reason == "tool_calls"
    assert whole.choices[0].message.content is None


@pytest.mark.slow
@pytest.mark.parametrize("model", ["hermes", "custom"])
@pytest.mark.parametrize("name", ["weather", "now"])
def test_a_named_tool_is_called_once(client, model, name):
    choice = {"type": "function", "function": {"name": name}}
    whole = both(client, model=model, tool_choice=choice, n=3, temperature=1)
    assert [[name for name, _ in called(choice)] for choice in whole.choices] == [[name]] * 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_strict_function_is_called_rightly_or_not_at_all(client, says, seed):
    """The model is random, and made to begin; without a form it could not end this well."""
    says('So.\n<tool_call>\n{"name": "weather", "arguments": {"city": "')
    whole = both(client, tools=STRICT, seed=seed, temperature=1, parallel_tool_calls=False)
    assert whole.choices[0].message.content == "So.\n"
    ((name, arguments),) = called(whole.choices[0])
    assert name == "weather"
    jsonschema.validate(arguments, WEATHER)
    says("Nothing to call {")
    assert both(client, tools=STRICT, seed=seed, max_tokens=12).choices[0].message.content.startswith("Nothing to")


def test_a_conversation_goes_on_with_what_the_tools_gave(client, says, hermes):
    says(f"{CALL}\n{NOW}")
    first = ask(client).choices[0].message
    calls = first.tool_calls
    says("Sunny.")
    talk = [
        *ASK,
        first,
        {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"},
        {"role": "tool", "tool_call_id": calls[1].id, "content": [{"type": "text", "text": "noon"}], "name": "now"},
    ]
    second = both(client, messages=talk)
    assert second.choices[0].message.content == "Sunny."
    shown = "".join(hermes.tokenizer.piece(id) for id in last_prompt(hermes, talk))
    assert "tool_response" in shown


def last_prompt(llama, talk):
    """The ids of a conversation that holds the client's own objects."""
    from camelid.serve.openai.messages import to_messages
    from camelid.serve.openai.requests import ChatRequest

    rows = [row if isinstance(row, dict) else row.to_dict() for row in talk]
    messages = to_messages(ChatRequest(messages=rows).messages)
    return llama.chat_format.render(llama.tokenizer, messages, tools=TOOLS).ids


class Weather(BaseModel):
    """The weather of a city."""

    city: str = Field(pattern="^[a-z]{2,8}$")
    days: int = Field(ge=1, le=9)


def test_the_clients_own_helpers_read_calls(client):
    tool = openai.pydantic_function_tool(Weather)
    asked = {"model": "hermes", "messages": ASK, "tools": [tool], "tool_choice": "required", "seed": 3}
    parsed = client.chat.completions.parse(**asked, parallel_tool_calls=False)
    call = parsed.choices[0].message.tool_calls[0].function
    assert isinstance(call.parsed_arguments, Weather)
    with client.chat.completions.stream(**asked, parallel_tool_calls=False) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    assert final.choices[0].message.tool_calls[0].function.parsed_arguments == call.parsed_arguments
    talk = [*ASK, parsed.choices[0].message, {"role": "tool", "tool_call_id": "x", "content": "sunny"}]
    assert client.chat.completions.create(model="hermes", messages=talk, max_tokens=1)


REFUSED = [
    ("tools", {"tools": [TOOLS[1], TOOLS[1]]}, "two are named 'now'"),
    ("tool_choice", {"tool_choice": {"type": "function", "function": {"name": "later"}}}, "unknown tool 'later'"),
    ("response_format", {"response_format": {"type": "json_object"}}, "cannot call tools"),
]


@pytest.mark.parametrize(("param", "asked", "words"), REFUSED)
def test_what_cannot_be_is_refused(client, param, asked, words):
    with pytest.raises(openai.BadRequestError, match=words) as caught:
        ask(client, **asked)
    assert caught.value.param == param


def test_a_schema_that_is_not_done_is_refused_where_it_must_hold(client, says):
    odd = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}]
    for asked in (
        {"tool_choice": "required"},
        {"tools": [{**odd[0], "function": {**odd[0]["function"], "strict": True}}]},
    ):
        with pytest.raises(openai.BadRequestError, match="not") as caught:
            ask(client, **{"tools": odd, **asked})
        assert caught.value.param == "tools[0].function.parameters.not"
    says("Fine.")
    assert joined(ask(client, tools=odd, stream=True))[0]["text"] == "Fine."

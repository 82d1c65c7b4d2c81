"""What OpenAI's routes refuse, and that they name it: nothing is ignored."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import openai
import pytest

from tests.serve.openai.official import SKY, official

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
YES = {"role": "assistant", "content": "Yes."}
PART = {"type": "text", "text": "?"}
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.fixture(scope="module")
def client(server):
    with official(server) as it:
        yield it


def said(content):
    return {"messages": [{"role": "user", "content": content}]}


def form(schema):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}}


CHAT = [
    ("unknown", {"extra_body": {"unknown": 1}}, "is not supported here"),
    ("reasoning_effort", {"reasoning_effort": "low"}, "is not supported here"),
    ("functions", {"functions": [{"name": "f"}]}, "is not supported here"),
    ("audio", {"audio": {"voice": "ash", "format": "mp3"}}, "is not supported here"),
    ("web_search_options", {"web_search_options": {}}, "is not supported here"),
    ("store", {"store": True}, "must be false"),
    ("service_tier", {"service_tier": "flex"}, "'auto' or 'default'"),
    ("modalities.0", {"modalities": ["audio"]}, "'text'"),
    ("temperature", {"temperature": -0.1}, "greater than or equal to 0"),
    ("temperature", {"temperature": 2.1}, "less than or equal to 2"),
    ("temperature", {"temperature": "hot"}, "number"),
    ("temperature", {"temperature": "1"}, "number"),
    ("top_p", {"top_p": 1.01}, "less than or equal to 1"),
    ("presence_penalty", {"presence_penalty": 3}, "less than or equal to 2"),
    ("frequency_penalty", {"frequency_penalty": -3}, "greater than or equal to -2"),
    ("n", {"n": 0}, "greater than or equal to 1"),
    ("n", {"n": 129}, "less than or equal to 128"),
    ("n", {"n": 1.5}, "integer"),
    ("n", {"n": True}, "integer"),
    ("max_tokens", {"max_tokens": 0}, "greater than or equal to 1"),
    ("max_completion_tokens", {"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
    ("stop", {"stop": ""}, "must be a text or up to 16 texts"),
    ("stop", {"stop": ["a"] * 17}, "must be a text or up to 16 texts"),
    ("stop", {"stop": 7}, "must be a text or up to 16 texts"),
    ("seed", {"seed": -(2**63) - 1}, "greater than or equal to"),
    ("seed", {"seed": 2**63}, "less than"),
    ("top_p", {"top_p": -0.1}, "greater than or equal to 0"),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 21}, "less than or equal to 20"),
    ("top_logprobs", {"top_logprobs": 2}, "logprobs: true"),
    ("logprobs", {"logprobs": 2}, "boolean"),
    ("logit_bias.cat", {"logit_bias": {"cat": 1}}, "pattern"),
    ("logit_bias.7", {"logit_bias": {"7": 101}}, "less than or equal to 100"),
    ("logit_bias", {"logit_bias": {"49152": 1}}, "49152"),
    ("stream", {"extra_body": {"stream": "yes"}}, "boolean"),
    ("stream_options.include_all", {"stream": True, "stream_options": {"include_all": True}}, "is not supported here"),
    ("top_k", {"extra_body": {"top_k": -1}}, "greater than or equal to 0"),
    ("order", {"extra_body": {"order": "ollama"}}, "'camelid'"),
    ("min_p", {"extra_body": {"min_p": 0.1, "order": "meta"}}, "meta"),
    ("messages", {"messages": []}, "at least 1"),
    ("messages.0", {"messages": [{"content": "?"}]}, "'role'"),
    ("messages.0", {"messages": [{"role": "guest", "content": "?"}]}, "'guest'"),
    ("messages.0.content", {"messages": [{"role": "user"}]}, "required"),
    ("messages.0.content", said(None), "string"),
    ("messages.0.content", said([{"type": "text", "text": "What is this?"}, IMAGE]), "part 2 has the type image_url"),
    ("messages.0.content.0.text", said([{"type": "text"}]), "required"),
    ("messages.0.content", said({"type": "text", "text": "x"}), "must be a string, or a list of parts"),
    ("messages.0.content", said([{"type": "refusal", "refusal": "no"}]), "part 1 has the type refusal"),
    ("messages.0.mood", {"messages": [{**SKY[0], "mood": "good"}]}, "is not supported here"),
    ("messages.0.cache_control", {"messages": [{**SKY[0], "cache_control": {"type": "ephemeral"}}]}, "not supported"),
    ("messages.1.reasoning_content", {"messages": [SKY[0], {**YES, "reasoning_content": "Hm."}]}, "not supported"),
    ("messages.1.audio", {"messages": [SKY[0], {**YES, "audio": {"id": "1"}}]}, "is not supported here"),
    ("messages.0.content.0.cache_control", said([{**PART, "cache_control": {"type": "ephemeral"}}]), "not supported"),
    ("messages.1.tool_call_id", {"messages": [*SKY, {"role": "tool", "content": "4"}]}, "required"),
    ("messages", {"messages": [{"role": "assistant", "tool_calls": [CALL]}, *SKY]}, "no place for calls"),
    ("tools", {"tools": [TOOL]}, "no place for tools"),
    ("tools.0.type", {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "'function'"),
    ("tools.0.function.name", {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "pattern"),
    ("tool_choice", {"tool_choice": "required"}, "only given with tools"),
    ("tool_choice", {"tools": [TOOL], "tool_choice": "sometimes"}, "must be none, auto, required"),
    ("response_format", {"response_format": {"type": "yaml"}}, "'yaml'"),
    ("response_format.json_schema", {"response_format": {"type": "json_schema"}}, "required"),
    ("response_format.json_schema.schema.type", form({"type": "strange"}), "strange"),
    ("response_format.json_schema.schema.not", form({"not": {"type": "string"}}), "not"),
    ("response_format.json_schema.schema.$ref", form({"$ref": "#/$defs/missing"}), "missing"),
    ("response_format.json_schema.schema", form({"type": "object", "patternProperties": {"(?=a)b": {}}}), ""),
    ("response_format.json_schema.schema.uniqueItems", form({"type": "array", "uniqueItems": True}), "uniqueItems"),
    ("response_format.json_schema.schema.enum", form({"enum": []}), ""),
    ("min_tokens", {**form({"type": "integer"}), "extra_body": {"min_tokens": 3}}, "constrained form"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("param", "asked", "words"), CHAT, ids=[f"{row[0]}-{at}" for at, row in enumerate(CHAT)])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_chat_refuses_and_names(client, param, asked, words, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "tiny", "messages": SKY, "max_tokens": 4, "stream": stream, **asked})
    assert caught.value.param == param
    assert words in caught.value.message
    assert caught.value.type == "invalid_request_error"


COMPLETIONS = [
    ("unknown", {"extra_body": {"unknown": 1}}, "is not supported here"),
    ("prompt", {"prompt": []}, "a text, a list of texts"),
    ("prompt", {"prompt": ["a", 1]}, "a text, a list of texts"),
    ("prompt", {"prompt": [[]]}, "a text, a list of texts"),
    ("prompt", {"prompt": [-1]}, "a text, a list of texts"),
    ("prompt", {"prompt": ""}, "empty"),
    ("prompt", {"prompt": [49152]}, "outside the vocabulary"),
    ("prompt", {"prompt": [7] * 256}, "256 tokens"),
    ("prompt", {"prompt": [7] * 257, "max_tokens": 0}, "257 tokens"),
    ("logprobs", {"logprobs": 21}, "less than or equal to 20"),
    ("logprobs", {"logprobs": True}, "integer"),
    ("max_tokens", {"max_tokens": -1}, "greater than or equal to 0"),
    ("best_of", {"n": 3, "best_of": 2}, "n or more"),
    ("best_of", {"best_of": 2, "stream": True}, "cannot be streamed"),
    ("suffix", {"prompt": ["a"], "suffix": "b"}, "one prompt"),
    ("echo", {"suffix": "b", "echo": True}, "suffix"),
    ("suffix", {"suffix": "b"}, "no tokens for filling in"),
    ("response_format", {"extra_body": {"response_format": {"type": "text"}}}, "is not supported here"),
]


@pytest.mark.parametrize(("param", "asked", "words"), COMPLETIONS)
def test_completions_refuse_and_name(client, param, asked, words):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{"model": "tiny", "prompt": "Once", "max_tokens": 2, **asked})
    assert caught.value.param == param
    assert words in caught.value.message


EMBEDDINGS = [
    ("dimensions", {"dimensions": 8}, "vectors of this model have 64 numbers"),
    ("encoding_format", {"encoding_format": "hex"}, "'float' or 'base64'"),
    ("input", {"input": ""}, "a text, a list of texts"),
    ("input", {"input": ["a", ""]}, "a text, a list of texts"),
    ("input", {"input": []}, "a text, a list of texts"),
    ("input", {"input": [[1], ["a"]]}, "a text, a list of texts"),
    ("input", {"input": [49152]}, "outside the vocabulary"),
    ("input", {"input": [7] * 257}, "257 tokens"),
]


@pytest.mark.parametrize(("param", "asked", "words"), EMBEDDINGS)
def test_embeddings_refuse_and_name(client, param, asked, words):
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(**{"model": "tiny", "input": "Once", **asked})
    assert caught.value.param == param
    assert words in caught.value.message


def test_a_prompt_too_long_says_both_numbers(client):
    for asked in ({"stream": True}, {}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "no " * 300}], **asked)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
        assert "the context is 256" in caught.value.message
        assert "331 tokens" in caught.value.message
    for ask in (client.completions.create, lambda **asked: client.completions.create(**asked, max_tokens=0)):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(model="tiny", prompt=[7] * 300)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found(client, stream):
    asks = (
        lambda: client.chat.completions.create(model="gpt-4", messages=SKY, stream=stream),
        lambda: client.completions.create(model="gpt-4", prompt="a", stream=stream),
        lambda: client.embeddings.create(model="gpt-4", input="a"),
    )
    for ask in asks:
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert "choose smollm2 or tiny" in caught.value.message


HALF_CHARACTER = b'{"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["\\ud800"]}}}'
BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b'{"messages": 1}',
    b'{"messages": [1]}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"messages": [{"role": "user", "content": "a"}], "\\ud800": 1}',
    b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
    b'{"messages": [{"role": "user", "content": "a"}], "temperature": 1e999}',
    b'{"messages": [{"role": "user", "content": "a"}], "seed": 1e30}',
    b'{"messages": [{"role": "user", "content": "a"}], "seed": 99999999999999999999999999}',
    b'{"messages": [{"role": "user", "content": "a"}], "response_format": %s}' % HALF_CHARACTER,
    b"[" * 100_000,
    b'{"messages": ' + b"[" * 100_000,
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("route", ["chat/completions", "completions", "embeddings"])
def test_bodies_of_no_sense_are_a_bad_request(server, route, body):
    request = urllib.request.Request(f"{server.url}/v1/{route}", body, {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    with caught.value as reply:
        assert reply.code == 400
        assert json.loads(reply.read())["error"]["type"] == "invalid_request_error"

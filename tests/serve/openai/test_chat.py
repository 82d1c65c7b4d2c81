"""/v1/chat/completions as the official client sees it: every option, streamed and whole."""

from __future__ import annotations

import asyncio

import openai
import pytest

import camelid
from camelid.engine.engine import EngineOptions
from camelid.engine.request import SamplingParams
from camelid.serve.openai.requests import ChatRequest, CompletionRequest
from camelid.tokens.templates.chat_format import Message
from tests.serve.conftest import random_llama
from tests.serve.openai.official import SKY, assert_same, official

NONSENSE = {"model": "tiny", "messages": SKY, "max_tokens": 12}


@pytest.fixture(scope="module")
def client(server):
    with official(server) as it:
        yield it


@pytest.fixture(scope="module")
def alone(smollm2_path):
    """The default model with nobody else around."""
    return camelid.load(smollm2_path, backend="cpu", options=EngineOptions(threads=1, context=2048))


@pytest.fixture(scope="module")
def tiny_alone(smollm2_path):
    """The model `tiny`, once more."""
    return random_llama(smollm2_path)


def ask(client, **changes):
    return client.chat.completions.create(**{**NONSENSE, **changes})


def test_models_are_listed_and_found_by_name(client):
    names = [model.id for model in client.models.list()]
    assert names == ["smollm2", "tiny"]
    model = client.models.retrieve("tiny")
    assert (model.id, model.object, model.owned_by, model.context) == ("tiny", "model", "camelid", 256)
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt/4")
    assert caught.value.code == "model_not_found"
    assert "gpt/4" in caught.value.message


def test_an_answer_is_what_the_model_alone_would_say(client, alone):
    reply = ask(client, model="smollm2", temperature=0, max_tokens=24)
    answer = alone.chat(SKY[0]["content"], temperature=0, max_tokens=24)
    assert reply.choices[0].message.content == answer.text
    assert reply.choices[0].finish_reason == answer.finish_reason
    assert reply.usage.prompt_tokens == answer.usage.prompt_tokens
    assert reply.usage.completion_tokens == answer.usage.completion_tokens
    assert reply.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert (reply.object, reply.model) == ("chat.completion", "smollm2")
    assert reply.id.startswith("chatcmpl-")
    assert reply.system_fingerprint.startswith("fp_")
    assert reply.choices[0].message.role == "assistant"


def test_what_the_client_leaves_out_is_the_models_own_choice(client, alone):
    mine = alone.chat(SKY[0]["content"], seed=5, max_tokens=16).text
    assert ask(client, model="smollm2", seed=5, max_tokens=16).choices[0].message.content == mine


CASES = {
    "greedy": {"temperature": 0},
    "seeded": {"seed": 3, "temperature": 1.2, "top_p": 0.95},
    "several": {"seed": 4, "n": 3},
    "logprobs": {"seed": 5, "logprobs": True, "top_logprobs": 3, "n": 2},
    "only the token's logprob": {"seed": 5, "logprobs": True},
    "stop": {"temperature": 0, "model": "smollm2", "stop": [" scatter", "light,"], "logprobs": True},
    "one stop": {"temperature": 0, "model": "smollm2", "stop": " sky"},
    "penalties": {"temperature": 0, "presence_penalty": 1.5, "frequency_penalty": -1},
    "bias": {"temperature": 0, "logit_bias": {"260": 100}},
    "ours": {"seed": 6, "extra_body": {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2, "order": "vllm"}},
    "guesses": {"temperature": 0, "model": "smollm2", "extra_body": {"draft_tokens": 4}},
    "as many as pay": {"temperature": 0, "extra_body": {"draft_tokens": "auto"}},
    "json": {"seed": 7, "response_format": {"type": "json_object"}, "n": 2},
    "random bytes": {"seed": 8, "temperature": 2, "top_p": 1.0, "logprobs": True, "max_tokens": 30},
}


@pytest.mark.slow
@pytest.mark.parametrize("asked", CASES.values(), ids=CASES)
def test_streamed_deltas_joined_are_the_whole_answer(client, asked):
    asked = {"seed": 1, **asked}
    whole = ask(client, **asked)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}, **asked))
    assert_same(whole, chunks)
    *pieces, last = chunks
    assert all(chunk.usage is None and chunk.choices for chunk in pieces)
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert {(chunk.id, chunk.created, chunk.model, chunk.system_fingerprint) for chunk in chunks} == {
        (last.id, last.created, whole.model, whole.system_fingerprint)
    }


def test_a_stream_without_usage_ends_with_the_finish_reason(client):
    chunks = list(ask(client, stream=True, temperature=0))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all(chunk.usage is None for chunk in chunks)


def test_a_character_of_several_tokens_comes_whole(client, alone):
    text = "😀漢字é🦙"
    assert len(alone.tokenizer.encode_segment(text)) > 2 * len(text)
    schema = {"name": "text", "schema": {"const": text}}
    chunks = list(
        ask(client, stream=True, max_tokens=40, response_format={"type": "json_schema", "json_schema": schema})
    )
    pieces = [chunk.choices[0].delta.content for chunk in chunks[1:-1]]
    assert "".join(pieces) == f'"{text}"'
    assert all(pieces), "pieces without text are not sent"
    assert "\ufffd" not in "".join(pieces)


def test_half_a_character_at_the_end_is_marked(client, alone):
    id = alone.tokenizer.encode_segment("😀")[0]
    biased = {"temperature": 0, "max_tokens": 1, "logit_bias": {str(id): 100}, "logprobs": True}
    choice = ask(client, **biased).choices[0]
    assert choice.message.content == "\ufffd"
    assert bytes(choice.logprobs.content[0].bytes) == alone.tokenizer.token_bytes(id)


def test_n_answers_differ_and_a_seed_brings_them_back(client):
    first, again, other = (ask(client, n=4, seed=seed, temperature=1) for seed in (1, 1, 2))
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2, 3]
    assert len(set(texts)) == 4
    assert [choice.message.content for choice in again.choices] == texts
    assert [choice.message.content for choice in other.choices] != texts
    assert first.usage.completion_tokens == 4 * 12
    assert first.usage.prompt_tokens == ask(client).usage.prompt_tokens


def test_logprobs_are_the_models_own(client, alone):
    reply = ask(client, model="smollm2", temperature=0, max_tokens=8, logprobs=True, top_logprobs=5)
    answer = alone.chat(SKY[0]["content"], temperature=0, max_tokens=8, logprobs=5)
    content = reply.choices[0].logprobs.content
    assert [entry.logprob for entry in content] == pytest.approx([token.logprob for token in answer.tokens], abs=1e-6)
    assert "".join(entry.token for entry in content) == reply.choices[0].message.content
    assert bytes(byte for entry in content for byte in entry.bytes).decode() == reply.choices[0].message.content
    for one, token in zip(content, answer.tokens, strict=True):
        assert [other.logprob for other in one.top_logprobs] == pytest.approx(
            [other.logprob for other in token.top], abs=1e-6
        )
        assert one.top_logprobs[0].token == one.token  # greedy


def test_tokens_of_a_stop_string_have_no_logprobs(client):
    whole = ask(client, model="smollm2", temperature=0, max_tokens=24, logprobs=True)
    text = whole.choices[0].message.content
    tokens = [entry.token for entry in whole.choices[0].logprobs.content]
    straddles = tokens[4][-2:] + tokens[5] + tokens[6][:1]  # begins and ends within a token
    cut = ask(client, model="smollm2", temperature=0, max_tokens=24, logprobs=True, stop=straddles)
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].message.content == text[: text.index(straddles)]
    assert [entry.token for entry in cut.choices[0].logprobs.content] == tokens[:5]


REACHING = {
    "temperature": ({"temperature": 1.7}, {"temperature": 1.7}),
    "top_p": ({"top_p": 0.4}, {"top_p": 0.4}),
    "presence_penalty": ({"presence_penalty": 2}, {"presence_penalty": 2}),
    "frequency_penalty": ({"frequency_penalty": -2}, {"frequency_penalty": -2}),
    "logit_bias": ({"logit_bias": {"300": 9, "400": 8.5}}, {"logit_bias": {300: 9, 400: 8.5}}),
    "seed": ({"seed": 77}, {"seed": 77}),
    "stop": ({"stop": ["e", "zz"]}, {"stop": ("e", "zz")}),
    "top_k": ({"extra_body": {"top_k": 2}}, {"top_k": 2}),
    "min_p": ({"extra_body": {"min_p": 0.5}}, {"min_p": 0.5}),
    "typical": ({"extra_body": {"typical": 0.3}}, {"typical": 0.3}),
    "top_n_sigma": ({"extra_body": {"top_n_sigma": 1}}, {"top_n_sigma": 1}),
    "epsilon": ({"extra_body": {"epsilon": 0.0005}}, {"epsilon": 0.0005}),
    "eta": ({"extra_body": {"eta": 0.0005}}, {"eta": 0.0005}),
    "repetition_penalty": ({"extra_body": {"repetition_penalty": 3}}, {"repetition_penalty": 3}),
    "penalty_window": (
        {"presence_penalty": 2, "extra_body": {"penalty_window": 1}},
        {"presence_penalty": 2, "penalty_window": 1},
    ),
    "stop_ids": (
        {"logit_bias": {"300": 100}, "extra_body": {"stop_ids": [300]}},
        {"stop_ids": (300,), "logit_bias": {300: 100}},
    ),
    "order": ({"temperature": 1.5, "extra_body": {"order": "llama.cpp"}}, {"temperature": 1.5, "order": "llama.cpp"}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "meant"), REACHING.values(), ids=REACHING)
def test_choices_reach_the_engine(client, tiny_alone, asked, meant):
    reply = ask(client, **{"seed": 1, "temperature": 1, **asked})
    answer = tiny_alone.chat(SKY[0]["content"], **{"seed": 1, "temperature": 1, "max_tokens": 12, **meant})
    assert reply.choices[0].message.content == answer.text
    assert reply.choices[0].finish_reason == answer.finish_reason


def test_stop_ids_can_be_put_off_and_ignored(client, tiny_alone):
    eos = {str(id): 100 for id in tiny_alone.chat_format.stop_ids(tiny_alone.tokenizer)}
    assert ask(client, logit_bias=eos).usage.completion_tokens == 1
    assert ask(client, logit_bias=eos, extra_body={"min_tokens": 7}).usage.completion_tokens == 8
    assert ask(client, logit_bias=eos, extra_body={"ignore_stop": True}).choices[0].finish_reason == "length"


def test_max_completion_tokens_is_max_tokens(client):
    reply = ask(client, max_tokens=openai.omit, max_completion_tokens=5)
    assert (reply.usage.completion_tokens, reply.choices[0].finish_reason) == (5, "length")


def test_a_shared_beginning_is_counted_as_cached(client):
    talk = [{"role": "system", "content": "Be brief. " * 20}, *SKY]
    ask(client, messages=talk, max_tokens=1)
    usage = ask(client, messages=talk, max_tokens=1).usage
    assert 0 < usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens


def test_all_roles_and_parts_of_content_reach_the_model(client, alone):
    parts = [{"type": "text", "text": "Why is"}, {"type": "text", "text": "the sky blue?"}]
    talk = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "Light."},
        {"role": "user", "content": "More."},
    ]
    said = [
        Message("system", "Be brief."),
        Message("user", "Why is\nthe sky blue?"),
        Message("assistant", "Light."),
        Message("user", "More."),
    ]
    reply = ask(client, messages=talk, max_tokens=1)
    assert reply.usage.prompt_tokens == len(alone.chat_format.render(alone.tokenizer, said).ids)


def test_an_answer_can_be_sent_back_as_it_came(client):
    first = ask(client, temperature=0)
    talk = [*SKY, first.choices[0].message, {"role": "user", "content": "Why?"}]
    assert ask(client, messages=talk).choices[0].message.content


def test_harmless_parameters_are_accepted(client):
    harmless = {
        "user": "me",
        "metadata": {"a": "b"},
        "store": False,
        "safety_identifier": "x",
        "prompt_cache_key": "y",
        "service_tier": "auto",
        "modalities": ["text"],
        "stream_options": None,
        "tool_choice": None,
        "response_format": {"type": "text"},
    }
    assert ask(client, temperature=0, **harmless).choices[0].message.content == (
        ask(client, temperature=0).choices[0].message.content
    )


@pytest.mark.slow
def test_the_async_client_streams_many_at_once(server, client):
    async def one(asker, seed):
        stream = await asker.chat.completions.create(**NONSENSE, seed=seed, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as asker:
            return await asyncio.gather(*(one(asker, seed) for seed in range(6)))

    alone = [ask(client, seed=seed).choices[0].message.content for seed in range(6)]
    assert asyncio.run(all_of_them()) == alone


def test_the_clients_own_stream_helper_tells_the_same(client):
    ends = ask(client, seed=9).choices[0].message.content[-9:-3]
    with client.chat.completions.stream(**NONSENSE, seed=9, logprobs=True, stop=ends) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= set(kinds)
    whole = ask(client, seed=9, logprobs=True, stop=ends)
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].logprobs.to_dict() == whole.choices[0].logprobs.to_dict()


@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest])
def test_every_choice_of_sampling_can_be_asked_for(kind):
    assert set(SamplingParams.model_fields) <= set(kind.model_fields)


def test_ranges_of_our_own_choices_are_those_of_their_home():
    for name in ("top_k", "min_p", "eta", "repetition_penalty"):
        assert ChatRequest.model_fields[name].metadata == SamplingParams.model_fields[name].metadata


@pytest.mark.parametrize("wrong", [65, -1, 1.5, "many", True])
def test_a_number_of_guesses_that_is_none_is_refused(client, wrong):
    with pytest.raises(openai.BadRequestError, match="must be auto or a whole number from 0 to 64") as told:
        ask(client, extra_body={"draft_tokens": wrong})
    assert told.value.param == "draft_tokens"


@pytest.mark.slow
def test_a_last_message_of_the_assistant_is_continued(client, alone):
    talk = [*SKY, {"role": "assistant", "content": "The sky is"}]
    said = [Message(row["role"], row["content"]) for row in talk]
    mine = alone.chat(said, temperature=0, max_tokens=12)
    assert alone.tokenizer.decode(alone.chat_request(said).ids).endswith("The sky is")
    new = alone.chat(said, temperature=0, max_tokens=12, continue_final_message=False)
    for extra, expected in (
        ({}, mine),
        ({"continue_final_message": True}, mine),
        ({"continue_final_message": True, "add_generation_prompt": False}, mine),
        ({"add_generation_prompt": True}, new),
        ({"continue_final_message": False}, new),
    ):
        found = client.chat.completions.create(
            model="smollm2", messages=talk, temperature=0, max_tokens=12, extra_body=extra
        )
        assert found.choices[0].message.content == expected.text, extra
        assert found.usage.prompt_tokens == expected.usage.prompt_tokens


@pytest.mark.parametrize(
    ("messages", "extra"),
    [
        (SKY, {"add_generation_prompt": False}),
        (SKY, {"add_generation_prompt": True, "continue_final_message": True}),
        (
            [*SKY, {"role": "assistant", "content": "x"}],
            {"add_generation_prompt": False, "continue_final_message": False},
        ),
    ],
)
def test_flags_that_contradict_each_other(client, messages, extra):
    with pytest.raises(openai.BadRequestError, match="add_generation_prompt"):
        client.chat.completions.create(model="smollm2", messages=messages, extra_body=extra)

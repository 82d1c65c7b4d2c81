"""/v1/completions as the official client sees it: every option, streamed and whole."""

from __future__ import annotations

import numpy as np
import openai
import pytest

from camelid.serve.models import Models
from camelid.serve.worker import Worker
from tests.serve.conftest import random_llama, running
from tests.serve.openai.official import official

ONCE = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 8}


@pytest.fixture(scope="module")
def client(server):
    with official(server) as it:
        yield it


@pytest.fixture(scope="module")
def alone(smollm2_path):
    """The model `tiny`, once more."""
    return random_llama(smollm2_path)


def ask(client, **changes):
    return client.completions.create(**{**ONCE, **changes})


def columns(logprobs):
    """What is known of the tokens, column by column."""
    return {name: values for name, values in (logprobs.to_dict() if logprobs else {}).items() if values}


def joined(chunks):
    """Streamed choices put together, with their log-probabilities."""
    choices = {}
    for chunk in chunks:
        for part in chunk.choices:
            choice = choices.setdefault(part.index, {"text": "", "logprobs": {}, "finish_reason": None})
            assert choice["finish_reason"] is None
            choice["text"] += part.text
            choice["finish_reason"] = part.finish_reason
            for name, values in columns(part.logprobs).items():
                choice["logprobs"].setdefault(name, []).extend(values)
    return choices


CASES = {
    "greedy": {"temperature": 0},
    "seeded": {"seed": 1, "temperature": 1.1},
    "n": {"seed": 1, "n": 3},
    "texts": {"seed": 1, "prompt": ["Once", "Twice upon", "Thrice"], "n": 2},
    "ids": {"seed": 1, "prompt": [504, 2501, 282]},
    "lists of ids": {"seed": 1, "prompt": [[504, 2501], [282]], "logprobs": 2},
    "stop at once": {"seed": 1, "stop": ["e", "a"], "logprobs": 1},
    "stop": {"seed": 1, "stop": "ance", "logprobs": 1, "max_tokens": 60},
    "echo": {"seed": 1, "echo": True},
    "echo of ids": {"seed": 1, "echo": True, "prompt": [[504, 2501], [282]], "n": 2},
    "echo with logprobs": {"seed": 1, "echo": True, "logprobs": 3, "prompt": ["Once upon", "Two 漢 of them"]},
    "nothing written": {"echo": True, "logprobs": 1, "max_tokens": 0},
    "nothing at all": {"max_tokens": 0, "prompt": ["a", "b"], "n": 2},
    "ours": {"seed": 1, "extra_body": {"top_k": 3, "typical": 0.9}},
}


@pytest.mark.slow
@pytest.mark.parametrize("asked", CASES.values(), ids=CASES)
def test_streamed_pieces_joined_are_the_whole_answer(client, asked):
    whole = ask(client, **asked)
    *chunks, last = ask(client, stream=True, stream_options={"include_usage": True}, **asked)
    streamed = joined(chunks)
    assert [choice.index for choice in whole.choices] == list(range(len(whole.choices))) == sorted(streamed)
    for choice in whole.choices:
        other = streamed[choice.index]
        assert (other["text"], other["finish_reason"]) == (choice.text, choice.finish_reason)
        assert other["logprobs"] == columns(choice.logprobs)
    assert last.choices == []
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [getattr(last.usage, name) for name in counts] == [getattr(whole.usage, name) for name in counts]


def test_a_text_is_continued_as_the_model_alone_would(client, alone):
    reply = ask(client, temperature=0)
    answer = alone.generate(ONCE["prompt"], temperature=0, max_tokens=8)
    assert reply.choices[0].text == answer.text
    assert (reply.object, reply.choices[0].finish_reason) == ("text_completion", "length")
    assert reply.usage.prompt_tokens == answer.usage.prompt_tokens
    ids = alone.prompt_ids(ONCE["prompt"])
    assert ask(client, temperature=0, prompt=ids).choices[0].text == answer.text


def test_sixteen_tokens_are_written_where_nothing_is_said_of_it(client):
    assert ask(client, max_tokens=openai.omit).usage.completion_tokens == 16
    everything = ask(client, max_tokens=None, prompt=[504] * 200, temperature=0)
    assert everything.usage.total_tokens == 256  # the whole context


def test_choices_come_prompt_by_prompt(client):
    several = ask(client, prompt=["Once", "Twice"], n=2, seed=3)
    alone = [choice for prompt in ("Once", "Twice") for choice in ask(client, prompt=prompt, n=2, seed=3).choices]
    assert [choice.text for choice in several.choices] == [choice.text for choice in alone]
    assert several.usage.completion_tokens == 4 * 8


def test_more_prompts_than_run_side_by_side_are_all_answered(client):
    prompts = [[id] for id in range(500, 570)]
    reply = ask(client, prompt=prompts, max_tokens=1, temperature=0)
    assert len(reply.choices) == 70
    first = ask(client, prompt=[569], max_tokens=1, temperature=0)
    assert reply.choices[69].text == first.choices[0].text


def test_echo_gives_the_prompts_own_logprobs_too(client, alone):
    """As evaluation harnesses ask: no token is written, or one that they leave out."""
    text = "Two 漢 of them"
    ids = alone.prompt_ids(text)
    rows = alone.logits(ids).astype(np.float64)
    rows -= np.logaddexp.reduce(rows, axis=1, keepdims=True)
    mine = [float(row[id]) for row, id in zip(rows, ids[1:], strict=False)]
    for prompt, n in ((text, 0), (ids, 0), (ids, 1)):
        choice = ask(client, prompt=prompt, max_tokens=n, echo=True, logprobs=1, temperature=0).choices[0]
        logprobs = choice.logprobs
        assert choice.text.startswith(text)
        assert logprobs.token_logprobs[0] is None
        assert logprobs.top_logprobs[0] is None
        assert logprobs.token_logprobs[1 : len(ids)] == pytest.approx(mine, abs=1e-5)
        assert len(logprobs.tokens) == len(ids) + n
        for row, top, token in zip(rows, logprobs.top_logprobs[1 : len(ids)], logprobs.tokens[1:], strict=False):
            assert max(top.values()) == pytest.approx(float(row.max()), abs=1e-5)
            assert token in top
        assert [text[at:][:1] for at in logprobs.text_offset[:2]] == ["T", " "]


def test_offsets_point_into_the_text(client):
    for asked in ({"echo": True}, {}, {"prompt": "漢字漢字", "echo": True}):
        choice = ask(client, logprobs=0, seed=2, temperature=1, **asked).choices[0]
        tokens, offsets = choice.logprobs.tokens, choice.logprobs.text_offset
        assert offsets[0] == 0
        for token, at in zip(tokens, offsets, strict=True):
            assert token.startswith("bytes:\\x") or choice.text[at:].startswith(token)


def test_half_characters_are_written_as_bytes(client, alone):
    choice = ask(client, prompt="漢", max_tokens=0, echo=True, logprobs=0).choices[0]
    spelled = b"".join(
        bytes.fromhex(token.removeprefix("bytes:").replace("\\x", "")) if token.startswith("bytes:") else token.encode()
        for token in choice.logprobs.tokens
    )
    assert spelled.decode() == choice.text == "漢"
    assert len(choice.logprobs.tokens) == len(alone.prompt_ids("漢")) > 1


def test_the_best_of_several_are_the_likeliest(client):
    every = ask(client, n=6, seed=4, temperature=1.5, logprobs=0)
    best = ask(client, n=2, best_of=6, seed=4, temperature=1.5)
    ranked = sorted(every.choices, key=lambda choice: np.mean(choice.logprobs.token_logprobs), reverse=True)
    assert [choice.text for choice in best.choices] == [choice.text for choice in ranked[:2]]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage.completion_tokens == 6 * 8


def test_suffix_fills_in(smollm2_path, options):
    """With a vocabulary that has the tokens for it; the default model's has none."""
    llama = random_llama(smollm2_path)
    names = {"▁<PRE>": 1000, "▁<SUF>": 1001, "▁<MID>": 1002, "▁<EOT>": 1003}
    known = llama.tokenizer.id_of
    llama.tokenizer.id_of = lambda piece: names.get(piece, known(piece))
    with running(Models([Worker("tiny", llama)]), options) as server, official(server) as client:
        for stream in (False, True):
            asked = {"prompt": "def f(", "suffix": "return x", "temperature": 0, "logit_bias": {"300": 100}}
            reply = ask(client, stream=stream, **asked)
            text = "".join(chunk.choices[0].text for chunk in reply) if stream else reply.choices[0].text
            assert text == llama.tokenizer.decode([300]) * 8
        whole = ask(client, **asked)
        ids = llama.infill_request("def f(", "return x").ids
        assert whole.usage.prompt_tokens == len(ids)
        assert {1000, 1001, 1002} <= set(ids)
        ended = ask(client, **{**asked, "logit_bias": {"1003": 100}})
        assert (ended.choices[0].text, ended.choices[0].finish_reason) == ("", "stop")

"""The default model on the C++ engine beside the float32 reference, and its guesses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import camelid
from camelid.chat.constrain import Form
from camelid.engine import EngineOptions
from camelid.errors import OptionError

PROMPTS = (
    "The best thing about AI is its ability to",
    "The capital of France is",
    "Once upon a time there was a llama who",
    "def fibonacci(n):",
    "Water boils at",
    "A short poem about the mountains:",
)
LICENSE = Path(__file__).parents[2] / "LICENSE"
TEXT = (
    "A language model is trained to predict the next token of a text. Given enough text, it learns grammar, facts and "
    "something that looks like reasoning. After training it can be asked to answer questions, to summarise, and to "
    "write programs. The weights of an open model can be downloaded, inspected and run on one's own machine."
)


@pytest.mark.slow
def test_greedy_text_is_the_references(cpu_llama, llama):
    same = 0
    for prompt in PROMPTS:
        ours, theirs = (model.generate(prompt, temperature=0, max_tokens=50).ids for model in (cpu_llama, llama))
        same += ours == theirs
    assert same >= 4


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "bound"), [(8, 5e-3), (15, 5e-4)])
def test_perplexity_is_the_references(smollm2_path, llama, bits, bound):
    ours = camelid.load(smollm2_path, backend="cpu", options=EngineOptions(activation_bits=bits))
    text = LICENSE.read_text("utf-8")[:6000]
    assert ours.perplexity(text).perplexity == pytest.approx(llama.perplexity(text).perplexity, rel=bound)


@pytest.mark.slow
@pytest.mark.parametrize("choices", [{"temperature": 0}, {"temperature": 0.8, "seed": 5}])
def test_guesses_looked_up_change_no_letter(cpu_llama, choices):
    question = f"Repeat this text word for word: {TEXT}"
    plain = cpu_llama.chat(question, max_tokens=60, draft_tokens=0, **choices)
    for number in (8, "auto"):
        before = cpu_llama.engine.n_accepted
        guessed = cpu_llama.chat(question, max_tokens=60, draft_tokens=number, **choices)
        assert guessed.text == plain.text
        assert cpu_llama.engine.n_accepted > before


@pytest.mark.slow
def test_guesses_change_no_letter_of_many_texts_at_once(cpu_llama):
    """Forms, several samples, stops and least lengths among them; alone without guesses, together with."""
    schema = {"type": "object", "properties": {name: {"type": "string", "maxLength": 30} for name in ("who", "where")}}
    kinds = (
        {"temperature": 0},
        {"seed": 1, "n": 2, "min_tokens": 12},
        {"seed": 2, "form": Form(json_schema=json.dumps(schema | {"required": ["who", "where"]}))},
        {"seed": 3, "repetition_penalty": 1.2, "logit_bias": {28: 2.0}, "stop_ids": (30,)},
    )
    asked = [
        [
            cpu_llama.chat_request(f"{task}: {TEXT}", max_tokens=40, draft_tokens=drafts, **kind)
            for drafts in (0, "auto")
        ]
        for task in ("Repeat this", "Say this shorter", "Which places are named here")
        for kind in kinds
    ]
    expected = [sorted((t.sample, t.index, t.id) for t in cpu_llama.engine.stream(plain)) for plain, _ in asked]
    before = cpu_llama.engine.n_accepted
    got = [[] for _ in asked]
    for place, token in cpu_llama.engine.stream_all(guessed for _, guessed in asked):
        got[place].append((token.sample, token.index, token.id))
    assert [sorted(tokens) for tokens in got] == expected
    assert cpu_llama.engine.n_accepted > before


@pytest.mark.slow
def test_a_draft_model_of_the_same_family(smollm2_path, tmp_path, cpu_llama):
    both = camelid.load(smollm2_path, backend="cpu", draft=smollm2_path)
    prompt = PROMPTS[0]
    assert both.generate(prompt, temperature=0, max_tokens=24, draft_tokens=4).ids == (
        cpu_llama.generate(prompt, temperature=0, max_tokens=24).ids
    )
    assert both.engine.n_accepted == both.engine.n_drafted > 0
    for number in (4, "auto"):
        drawn = both.generate(prompt, seed=3, max_tokens=24, draft_tokens=number)
        assert drawn.ids == cpu_llama.generate(prompt, seed=3, max_tokens=24, draft_tokens=0).ids


def test_a_draft_model_with_other_tokens_is_refused(smollm2_path, tmp_path):
    from tests.weights.models import saved

    with pytest.raises(OptionError, match="draft"):
        camelid.load(smollm2_path, draft=saved(tmp_path, "gguf"))

"""Answers from the weights of now: those of the model in memory, whatever else is in the batch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from camelid.errors import ContextError, OptionError
from camelid.model.llama_torch import LlamaTorch, mix_causal
from camelid.train.parallel import Parallel
from camelid.train.rollouts.live_weights import live_weights
from camelid.train.rollouts.rollouts import Rollouts, seeds_of
from tests.data.made import byte_tokenizer
from tests.tiny import tiny_config, tiny_tensors
from tests.train.ranks import ROOT, begin_together

CONTEXT, STOP = 96, 7


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def a_model(tokenizer, seed=0, **changes):
    config = tiny_config(vocab_size=tokenizer.vocab_size + 5, **changes)
    model = LlamaTorch(config, CONTEXT)
    return model.load(tiny_tensors(config, seed), torch.float32)


def some_prompts(seed, n=9):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 250, rng.integers(2, 20)).tolist() for _ in range(n)]


ASKED = {"max_tokens": 24, "stop_ids": [STOP]}


@pytest.mark.parametrize("changes", [{}, {"ties_embeddings": True, "attention_bias": True}], ids=["plain", "tied"])
def test_answers_are_those_of_a_model_opened_from_the_same_numbers(tokenizer, changes):
    model = a_model(tokenizer, **changes)
    rollouts = Rollouts(model, tokenizer, context=CONTEXT, precision="fp32")
    prompts = some_prompts(1)
    greedy = rollouts.answers(prompts, temperature=0, seed=0, logprobs=True, **ASKED)
    for prompt, (answer,) in zip(prompts, greedy, strict=True):
        ids = torch.tensor([*prompt, *answer.ids])
        with torch.no_grad():
            logits = model.logits(model(ids, torch.arange(len(ids)), lambda _: mix_causal))
        logits[:, tokenizer.absent_ids(model.config.vocab_size)] = -torch.inf
        said = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        own = said.gather(1, ids[len(prompt) :, None])[:, 0]
        assert (said.max(-1).values - own).max() < 1e-2  # greedy, but for ties in the keys' float16
        np.testing.assert_allclose(answer.logprobs, own, atol=1e-2)
        assert answer.finished == (answer.ids[-1] == STOP)
        assert answer.finished or len(answer.ids) == 24


def test_an_update_takes_the_weights_of_now_and_forgets_what_was_read(tokenizer):
    model, other = a_model(tokenizer), a_model(tokenizer, seed=5)
    rollouts, prompts = Rollouts(model, tokenizer, context=CONTEXT), some_prompts(2)
    before = rollouts.answers(prompts, seed=3, **ASKED)
    with torch.no_grad():
        for own, new in zip(model.parameters(), other.parameters(), strict=True):
            own.copy_(new)
    assert rollouts.answers(prompts, seed=3, **ASKED) == before  # not asked to look
    rollouts.update(model)
    after = rollouts.answers(prompts, seed=3, **ASKED)
    assert after != before
    assert after == Rollouts(other, tokenizer, context=CONTEXT).answers(prompts, seed=3, **ASKED)


def test_the_same_seeds_give_the_same_answers_whatever_the_batch_and_the_threads(tokenizer):
    model, prompts, seeds = a_model(tokenizer), some_prompts(4, 20), list(range(20))
    rollouts = Rollouts(model, tokenizer, context=CONTEXT, threads=1)
    together = rollouts.answers(prompts, 3, seed=seeds, **ASKED)
    few = Rollouts(model, tokenizer, context=CONTEXT, threads=2, max_running=3)
    order = np.random.default_rng(0).permutation(20).tolist()
    shuffled = few.answers([prompts[i] for i in order], 3, seed=[seeds[i] for i in order], **ASKED)
    assert [together[i] for i in order] == shuffled
    assert [few.answers([prompts[i]], 3, seed=[i], **ASKED)[0] for i in range(20)] == together
    assert len({answer.ids for answer in together[0]}) == 3
    assert rollouts.answers(prompts, seed=8, **ASKED) != rollouts.answers(prompts, seed=9, **ASKED)


def test_weights_are_rounded_as_a_checkpoint_rounds_them(tokenizer):
    model = a_model(tokenizer)
    weights = live_weights(model, tokenizer)
    for name, tensor in weights.tensors.items():
        parameter = dict(model.named_parameters()).get(f"{name}.weight", dict(model.named_parameters()).get(name))
        assert np.array_equal(tensor.array(), parameter.detach().bfloat16().float().numpy())


def test_ids_that_are_no_token_are_never_written_and_mistakes_are_told(tokenizer):
    model = a_model(tokenizer)
    rollouts = Rollouts(model, tokenizer, context=CONTEXT)
    answers = rollouts.answers(some_prompts(6, 30), 4, seed=1, temperature=5.0, **ASKED)
    absent = set(tokenizer.absent_ids(model.config.vocab_size).tolist())
    assert absent
    assert not absent & {id for samples in answers for answer in samples for id in answer.ids}
    with pytest.raises(OptionError, match="2 seeds for 1 prompts"):
        rollouts.answers([[1, 2]], seed=[1, 2], **ASKED)
    with pytest.raises(ContextError):
        rollouts.answers([[1] * CONTEXT], seed=1, **ASKED)
    assert len(rollouts.answers([[1] * (CONTEXT - 3)], seed=1, **ASKED)[0][0].ids) <= 3


def test_seeds_differ_by_prompt_and_by_run():
    all_of = [seed for run in range(20) for seed in seeds_of(run, range(50))]
    assert len(set(all_of)) == 1000
    assert all(0 <= seed < 2**63 for seed in all_of)
    assert seeds_of(3, range(5, 9)) == seeds_of(3, range(10))[5:9]


@pytest.mark.slow
def test_ranks_that_share_a_model_each_have_all_of_it(tokenizer, tmp_path):
    started = begin_together(2, [sys.executable, "-m", "tests.train.rollouts.test_rollouts", str(tmp_path)], cwd=ROOT)
    for process in started:
        said = process.communicate(timeout=200)[1]
        assert process.returncode == 0, said
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert said[0] == said[1] == _answers_of(a_model(tokenizer), tokenizer)


def _answers_of(model, tokenizer):
    rollouts = Rollouts(model, tokenizer, context=CONTEXT, threads=1)
    return [[list(each.ids) for each in samples] for samples in rollouts.answers(some_prompts(7), 2, seed=2, **ASKED)]


def main() -> None:
    from camelid.train.init import take_weights

    words = byte_tokenizer()
    with Parallel() as parallel:
        whole = a_model(words)
        with torch.device("meta"):
            spread = LlamaTorch(whole.config, CONTEXT)
        parallel.shard(spread, "bf16")
        take_weights(spread, live_weights(whole, words, "fp32"))
        answers = _answers_of(spread, words)
        with Path(sys.argv[1], f"{parallel.rank}.json").open("w") as file:
            json.dump(answers, file)


if __name__ == "__main__":
    main()

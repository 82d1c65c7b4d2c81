"""Samples of a model in training: the same prompts over time, and nothing of the training changed by them."""

from __future__ import annotations

import json

import pytest

from camelid.chat.load import load
from camelid.errors import OptionError
from camelid.run_layout import newest_checkpoint
from camelid.train.report.samples import read_samples
from camelid.train.run import train
from tests.train.stages.test_sft import make, numbers, same, stage_of
from tests.train.stages.test_sft import one_thread as one_thread  # every test here wants it

SAMPLES = ('sft.samples.prompts=["3 old hill?", "7 llama?"]', "sft.samples.every=2", "sft.samples.max_tokens=12")
SHORT = ("sft.epochs=1", "sft.validation_every=0", "sft.save_every=100")


def test_the_same_prompts_are_answered_over_time(tmp_path):
    run, plain = make(tmp_path / "a"), make(tmp_path / "b")
    told = list(train(stage_of(run, *SAMPLES, *SHORT)))
    list(train(stage_of(plain, *SHORT)))
    one, other = (newest_checkpoint(folder / "sft") for folder in (run, plain))
    assert same(numbers(one), numbers(other))  # looking has changed no bit
    found, steps = read_samples(run / "sft"), told[-1].step
    assert [sample.step for sample in found] == [step for step in range(0, steps + 1, 2) for _ in range(2)]
    assert {sample.prompt for sample in found} == {"3 old hill?", "7 llama?"}
    if steps % 2 == 0:
        llama = load(one, backend="cpu")
        for sample in found[-2:]:
            assert sample.text == llama.chat(sample.prompt, temperature=0, top_p=1.0, max_tokens=12).text


def test_after_a_pause_they_go_on(tmp_path):
    run = make(tmp_path / "a")
    list(train(stage_of(run, *SAMPLES, *SHORT), stop_after=2))
    list(train(stage_of(run, *SAMPLES, *SHORT), stop_after=2))
    lines = [json.loads(line) for line in (run / "sft" / "samples.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 0, 2, 2, 4, 4]


def test_adapters_are_in_what_is_sampled(tmp_path):
    """The answers of a model with adapters are those of its checkpoint, opened."""
    run = make(tmp_path / "a")
    told = list(train(stage_of(run, *SAMPLES, *SHORT, "sft.samples.every=1", "sft.lora.rank=4", "sft.lr=5e-2")))
    llama = load(newest_checkpoint(run / "sft"), backend="cpu")
    last = [sample for sample in read_samples(run / "sft") if sample.step == told[-1].step]
    assert len(last) == 2
    for sample in last:
        assert sample.text == llama.chat(sample.prompt, temperature=0, top_p=1.0, max_tokens=12).text
    first = {sample.prompt: sample.text for sample in read_samples(run / "sft") if sample.step == 0}
    assert first != {sample.prompt: sample.text for sample in last}


def test_mistakes_are_one_line(tmp_path):
    run = make(tmp_path / "a")
    for changes, said in (
        (("sft.samples.every=2",), "samples: want prompts and every"),
        ((f'sft.samples.prompts=["{"hill " * 60}"]', "sft.samples.every=2"), "shorten it"),
    ):
        with pytest.raises(OptionError, match=said):
            list(train(stage_of(run, *changes, *SHORT)))

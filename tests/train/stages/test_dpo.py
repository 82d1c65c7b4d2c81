"""DPO as a stage: the reference's word on file, what its checkpoints carry, going on, several processes."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from camelid.chat.load import load
from camelid.errors import FormatError, OptionError
from camelid.recipe import read_recipe
from camelid.train.events import Step
from camelid.train.parallel import Parallel
from camelid.train.run import train
from camelid.train.run_stage import RunStage
from camelid.train.schedule import learning_rate
from camelid.train.stages.dpo import DpoOptions
from camelid.weights.open import open_weights
from tests.train.chatty import WORDS, make_chat_model
from tests.train.killed import dies, kill_me
from tests.train.ranks import ROOT, begin_together

RECIPE = """
name = "prefer"
seed = 5
base = {base}
stages = ["dpo"]

[dpo]
epochs = 2
pairs_per_step = 4
context = 128
lr = 5e-3
warmup_share = 0.0
schedule = "constant"
precision = "fp32"
nll_weight = 0.2
save_every = 2
keep_last = 9
validation_every = 3
micro_rows = 3

[dpo.data]
validation = 0.2

[[dpo.data.sources]]
name = "pairs"
kind = "jsonl"
path = "pairs.jsonl"
"""


TOGETHER = """
import sys
from pathlib import Path
from camelid.recipe import read_recipe
from camelid.train.parallel import Parallel
from camelid.train.run import train
from camelid.train.run_stage import RunStage
with Parallel(int(sys.argv[1])) as parallel:
    list(train(RunStage(read_recipe(sys.argv[2], sys.argv[4:]), "dpo", Path(sys.argv[3]), parallel)))
"""


@pytest.fixture(autouse=True)
def one_thread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_pairs(path, count=30, seed=0):
    """The answer that says the words backwards is preferred."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        asked = draw.choices(WORDS, k=draw.randint(1, 5))
        prompt, other = f"{number} {' '.join(asked)}?", " ".join(draw.choices(WORDS, k=draw.randint(1, 6)))
        rows.append({"prompt": prompt, "chosen": " ".join(reversed(asked)) + ".", "rejected": other + "!"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make(folder, **model):
    folder.mkdir(exist_ok=True)
    make_chat_model(folder / "base", **model)
    write_pairs(folder / "pairs.jsonl")
    (folder / "prefer.toml").write_text(RECIPE.format(base=json.dumps(str(folder / "base"))), encoding="utf-8")
    return folder / "prefer"


def stage_of(run, *changes, parallel=None):
    return RunStage(read_recipe(run.parent / "prefer.toml", changes), "dpo", run, parallel or Parallel())


def steps(run, *changes, **more):
    return [event for event in train(stage_of(run, *changes), **more) if isinstance(event, Step)]


def numbers(folder):
    return {name: tensor.array() for name, tensor in open_weights(folder).tensors.items()}


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_the_presets_are_the_papers():
    """Llama 3: learning rate 1e-5, β .1, NLL .2, control tokens left out. Tülu 3 8B: 5e-7, β 5, per token."""
    llama3 = DpoOptions().resolved(100)
    assert (llama3.lr, llama3.beta, llama3.nll_weight, llama3.skip_control) == (1e-5, 0.1, 0.2, True)
    assert (llama3.loss, llama3.label_smoothing, llama3.steps, llama3.epochs) == ("sigmoid", 0.0, 100, None)
    assert llama3.batch_tokens == 2 * llama3.pairs_per_step * llama3.context
    tulu3 = DpoOptions(preset="tulu3").resolved(100)
    assert (tulu3.lr, tulu3.beta, tulu3.loss, tulu3.pairs_per_step) == (5e-7, 5.0, "sigmoid_norm", 128)
    assert (tulu3.nll_weight, tulu3.skip_control, tulu3.context, tulu3.warmup_steps) == (0.0, False, 2048, 10)
    assert [learning_rate(tulu3, step) for step in (5, 10, 55, 100)] == pytest.approx([2.5e-7, 5e-7, 2.5e-7, 0])


def test_options_that_do_not_go_together():
    with pytest.raises(OptionError, match=r"label_smoothing: the loss ipo has none"):
        DpoOptions(loss="ipo", label_smoothing=0.1)
    with pytest.raises(OptionError, match=r"beta"):
        DpoOptions(beta=0)
    with pytest.raises(OptionError, match=r"preset: no 'llama2'"):
        DpoOptions(preset="llama2")
    assert DpoOptions(pairs_per_step=6, context=50).with_(micro_rows=1).batch_tokens == 600


def test_it_learns_which_answer_is_preferred(tmp_path):
    run = make(tmp_path / "a")
    told = steps(run)
    first, last = told[0].metrics, told[-1].metrics
    assert first["loss"] == pytest.approx(np.log(2) + 0.2 * first["nll"], abs=1e-5)
    assert [first[name] for name in ("chosen_reward", "rejected_reward", "margin")] == [0, 0, 0]  # to the last bit
    assert last["accuracy"] == 1
    assert last["margin"] > 0.05
    assert {"validation_loss", "validation_accuracy", "validation_margin"} <= told[2].metrics.keys()
    assert first["pairs"] == 4
    base, made = open_weights(run.parent / "base"), open_weights(run / "dpo" / "latest")
    assert (made.chat_template, made.stop_ids, made.sampling) == (base.chat_template, base.stop_ids, base.sampling)
    assert load(str(run / "dpo")).chat("7 old hill?", max_tokens=8, seed=1).text


def reference_of(run):
    return run / "dpo" / "data" / "reference.jsonl"


def test_the_reference_is_asked_once_and_kept(tmp_path, monkeypatch):
    run = make(tmp_path / "a")
    steps(run, stop_after=1)
    lines = [json.loads(line) for line in reference_of(run).read_text().splitlines()]
    assert lines[0].keys() == {"reference", "precision", "skip_control"}
    assert len({row["pair"] for row in lines[1:-1]}) == len(lines) - 2 == 30
    assert lines[-1].keys() == {"complete", "steps"}
    monkeypatch.setattr("camelid.train.answers.frozen.frozen_learner", lambda *given: 1 / 0)
    assert len(steps(run, stop_after=1)) == 1


def test_another_reference_than_the_one_stored_is_refused(tmp_path):
    run = make(tmp_path / "a")
    steps(run, stop_after=1)
    make_chat_model(tmp_path / "other", seed=1)
    with pytest.raises(
        OptionError, match=r"reference\.jsonl: not what is asked for now: reference was \w{12}, is \w{12}"
    ):
        steps(run, f"dpo.reference={tmp_path / 'other'}")
    with pytest.raises(OptionError, match=r"precision was fp32, is bf16"):
        steps(run, "dpo.precision=bf16")
    reference_of(run).unlink()
    with pytest.raises(OptionError, match=r"cannot go on, because.*reference was None, is"):
        steps(run, f"dpo.reference={tmp_path / 'other'}")
    told = list(train(stage_of(run, f"dpo.reference={tmp_path / 'other'}"), fresh=True, stop_after=1))
    metrics = next(event for event in told if isinstance(event, Step)).metrics
    assert abs(metrics["margin"]) > 1e-3


def test_a_damaged_reference(tmp_path):
    run = make(tmp_path / "a")
    steps(run, stop_after=1)
    whole = reference_of(run).read_text().splitlines()
    reference_of(run).write_text("\n".join([*whole[:5], '{"pair": 1}', *whole[5:]]) + "\n")
    with pytest.raises(FormatError, match=r"reference\.jsonl: damaged; delete it"):
        steps(run)


def test_an_adapter_learns_from_its_base(tmp_path):
    run = make(tmp_path / "a")
    told = steps(run, "dpo.lora.rank=4")
    assert told[0].metrics["margin"] == 0
    assert told[-1].metrics["margin"] > 0.05
    assert (run / "dpo" / "latest" / "adapter_config.json").is_file()
    assert load(str(run / "dpo")).chat("7 old hill?", max_tokens=8, seed=1).text is not None


@pytest.mark.slow
def test_killed_while_the_reference_is_asked_it_goes_on(tmp_path, monkeypatch):
    whole, cut = make(tmp_path / "a"), make(tmp_path / "b")
    steps(whole, stop_after=1)
    from camelid.train.answers.references import References

    write, times = References.write, []

    def half(self, added):
        write(self, added)
        times.append(1)
        if len(times) == 3:
            with self._path.open("a") as file:
                file.write('{"pair": "ab')
            kill_me()

    with monkeypatch.context() as patch:
        patch.setattr(References, "write", half)
        assert dies(lambda: steps(cut))
    assert not (cut / "dpo" / "latest").exists()
    steps(cut, stop_after=1)
    assert reference_of(whole).read_text() == reference_of(cut).read_text()


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_with_the_same_bits(tmp_path):
    whole, cut = make(tmp_path / "a"), make(tmp_path / "b")
    told = steps(whole)

    def until():
        for event in train(stage_of(cut)):
            if isinstance(event, Step) and event.step == 7:
                kill_me()

    assert dies(until)
    again = steps(cut)
    assert again[0].step == 7
    assert [(step.loss, step.grad_norm) for step in again] == [(step.loss, step.grad_norm) for step in told[6:]]
    assert same(numbers(whole / "dpo" / "latest"), numbers(cut / "dpo" / "latest"))


@pytest.mark.slow
@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_two_processes_learn_the_same(tmp_path, tensor_parallel):
    alone, two = make(tmp_path / "a"), make(tmp_path / "b")
    calm = ["dpo.nll_mean=tokens", "dpo.lr=1e-3", "dpo.eps=1e-4"]  # AdamW makes much of little gradients
    told = steps(alone, *calm)
    command = [
        sys.executable,
        "-c",
        TOGETHER,
        str(tensor_parallel),
        str(two.parent / "prefer.toml"),
        str(two),
    ]
    command += [*calm, f"dpo.tensor_parallel={tensor_parallel}"]
    for process in begin_together(2, command, cwd=ROOT, stdout=subprocess.DEVNULL):
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    lines = [json.loads(line) for line in (two / "dpo" / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if "event" not in line]
    for name in ("loss", "nll", "accuracy", "margin", "grad_norm"):
        wanted = [step.numbers()[name] for step in told]
        assert [line[name] for line in found] == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    one, other = numbers(alone / "dpo" / "latest"), numbers(two / "dpo" / "latest")
    assert max(np.abs(one[name] - other[name]).max() for name in one) < 1e-6

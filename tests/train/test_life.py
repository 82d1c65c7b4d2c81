"""All stages of a recipe in one command: in order, over kills, and never on from another beginning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from camelid.errors import OptionError
from camelid.recipe import read_recipe
from camelid.run_layout import newest_checkpoint
from camelid.train.events import Saved, Skipped, Started, Step
from camelid.train.life import chosen_stages, finished_step, live
from camelid.train.parallel import Parallel
from camelid.train.run_stage import RunStage
from camelid.weights.open import open_weights
from tests.data.made import make_data, some_documents, write_plan
from tests.train.killed import dies, kill_me

RECIPE = """
name = "two"
seed = 3
stages = ["pretrain", "pretrain-2"]

[model]
dim = 32
n_layers = 1
n_heads = 2
ffn_dim = 48

[pretrain]
steps = 4
batch_tokens = 128
context = 32
warmup_steps = 1
lr = 1e-2
compile = false

[pretrain-2]
steps = 3
lr = 1e-2
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_run(folder):
    folder.mkdir()
    (folder / "two.toml").write_text(RECIPE, encoding="utf-8")
    write_plan(make_data(folder / "two", some_documents(30)), folder / "two.toml")
    return folder / "two"


def stages_of(run, *changes, name=None):
    recipe = read_recipe(run.parent / "two.toml", changes)
    return [RunStage(recipe, each, run, Parallel()) for each in chosen_stages(recipe, name)]


def told(run, *changes, name=None, **more):
    """(stage, event) of a session, without what differs from run to run."""
    events = live(stages_of(run, *changes, name=name), **more)
    return [(stage.name, event) for stage, event in events if not isinstance(event, Started)]


def steps(events):
    return [(name, event.step, event.loss, event.grad_norm) for name, event in events if isinstance(event, Step)]


def numbers(run):
    return {
        f"{stage}/{name}": tensor.array()
        for stage in ("pretrain", "pretrain-2")
        for name, tensor in open_weights(newest_checkpoint(run / stage)).tensors.items()
    }


def same(one, two):
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def test_stages_come_in_order_and_begin_from_the_one_before(tmp_path):
    run = make_run(tmp_path / "a")
    events = told(run)
    assert [row[:2] for row in steps(events)] == [("pretrain", n) for n in (1, 2, 3, 4)] + [
        ("pretrain-2", n) for n in (1, 2, 3)
    ]
    assert told(run) == [("pretrain", Skipped(4)), ("pretrain-2", Skipped(3))]
    apart = make_run(tmp_path / "b")
    parted = [event for _ in range(4) for event in told(apart, stop_after=2)]
    assert steps(parted) == steps(events)
    assert same(numbers(run), numbers(apart))


def test_one_stage_alone(tmp_path):
    run = make_run(tmp_path / "a")
    assert {name for name, _ in told(run, name="pretrain")} == {"pretrain"}
    assert {name for name, _ in told(run, name="pretrain-2")} == {"pretrain-2"}
    with pytest.raises(OptionError, match=r"--stage: .* has no 'sft'"):
        told(run, name="sft")


@pytest.mark.slow
def test_another_beginning_is_refused(tmp_path):
    run = make_run(tmp_path / "a")
    told(run, stop_after=6)
    told(run, name="pretrain", fresh=True)  # the same numbers once more
    assert told(run, stop_after=1)[0] == ("pretrain", Skipped(4))
    told(run, "pretrain.lr=0.02", name="pretrain", fresh=True)
    with pytest.raises(OptionError, match=r"pretrain-2/step3\S*: cannot go on, because the model that it began from"):
        told(run, "pretrain.lr=0.02")


def test_a_finished_stage_is_looked_at_again_where_the_recipe_is_another(tmp_path):
    run = make_run(tmp_path / "a")
    told(run)
    assert finished_step(stages_of(run)[0]) == 4
    assert finished_step(stages_of(run, "pretrain.save_every=2")[0]) == 4  # changes no step
    for change in ("pretrain.lr=1e-3", "seed=4", "model.dim=48"):
        assert finished_step(stages_of(run, change)[0]) is None
        with pytest.raises(OptionError):
            told(run, change)


@pytest.mark.slow
def test_fresh_puts_the_checkpoints_of_all_stages_aside(tmp_path):
    run = make_run(tmp_path / "a")
    first = told(run)
    assert steps(told(run, fresh=True, stop_after=1)) == steps(first)[:1]
    assert newest_checkpoint(run / "pretrain-2") is None
    assert steps(told(run)) == steps(first)[1:]


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_with_the_same_bits(tmp_path):
    whole, cut = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    told(whole, "pretrain.save_every=2", "pretrain.keep_last=9")

    def until(number):
        seen = 0
        for _, event in live(stages_of(cut, "pretrain.save_every=2", "pretrain.keep_last=9")):
            seen += isinstance(event, Step | Saved)
            if seen == number:
                kill_me()

    for number in (3, 3, 4):  # after a save, between the stages, in the middle of the second
        assert dies(lambda number=number: until(number))
    told(cut, "pretrain.save_every=2", "pretrain.keep_last=9")
    assert same(numbers(whole), numbers(cut))


def test_ranks_are_shared_out_alike_in_one_command(tmp_path):
    run = make_run(tmp_path / "a")
    with pytest.raises(OptionError, match=r"tensor_parallel: must be the same .*pretrain 1, pretrain-2 2"):
        stages_of(run, "pretrain-2.tensor_parallel=2")

"""Fine-tuning as a stage: what it begins from, what its checkpoints carry, going on, and several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from camelid.chat.load import load
from camelid.errors import OptionError
from camelid.recipe import read_recipe
from camelid.run_layout import newest_checkpoint
from camelid.train.events import Saved, Step
from camelid.train.life import finished_step, live
from camelid.train.parallel import Parallel
from camelid.train.run import train
from camelid.train.run_stage import RunStage
from camelid.train.schedule import learning_rate
from camelid.train.stages.sft import SftOptions
from camelid.weights.convert import save_weights
from camelid.weights.open import open_weights
from tests.data.made import some_documents
from tests.tokens.vocabularies import smollm2_template
from tests.train.chatty import make_chat_model, write_talks
from tests.train.killed import dies, kill_me
from tests.train.ranks import ROOT, begin_together

RECIPE = """
name = "talk"
seed = 5
base = "base"
stages = ["sft"]

[sft]
epochs = 2
batch_tokens = 512
context = 128
lr = 1e-2
warmup_steps = 0
precision = "fp32"
compile = false
save_every = 2
keep_last = 9
validation_every = 3

[sft.data]
validation = 0.2

[[sft.data.sources]]
name = "talks"
kind = "jsonl"
path = "talks.jsonl"
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(folder, **model):
    folder.mkdir(exist_ok=True)
    make_chat_model(folder / "base", **model)
    write_talks(folder / "talks.jsonl")
    text = RECIPE.replace('base = "base"', f"base = {json.dumps(str(folder / 'base'))}")
    (folder / "talk.toml").write_text(text, encoding="utf-8")
    return folder / "talk"


def stage_of(run, *changes, name="sft", parallel=None):
    return RunStage(read_recipe(run.parent / "talk.toml", changes), name, run, parallel or Parallel())


def events(run, *changes, name="sft", **more):
    return list(train(stage_of(run, *changes, name=name), **more))


def steps(told):
    return [event for event in told if isinstance(event, Step)]


def numbers(folder):
    return {name: tensor.array() for name, tensor in open_weights(folder).tensors.items()}


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_the_presets_are_the_papers():
    """Llama 2: cosine from 2e-5 to a tenth, 64 rows of 4096, two epochs. Tülu 3: linear from 5e-6, 3 % warm-up."""
    llama2 = SftOptions().resolved(steps_per_epoch=100)
    assert (llama2.steps, llama2.rows, llama2.context, llama2.epochs) == (200, 64, 4096, None)
    assert (llama2.weight_decay, llama2.betas, llama2.eps, llama2.clip) == (0.1, (0.9, 0.95), 1e-5, 1.0)
    assert (llama2.neftune_alpha, llama2.mean_over, llama2.z_loss) == (0.0, "tokens", 0.0)
    rates = [learning_rate(llama2, step) for step in (0, 50, 100, 150, 200)]
    assert rates == pytest.approx([2e-5, 1.7364e-5, 1.1e-5, 0.4636e-5, 0.2e-5], rel=1e-4)
    modern = SftOptions(preset="modern").resolved(steps_per_epoch=100)
    assert (modern.rows, modern.warmup_steps, modern.weight_decay) == (128, 6, 0.0)
    assert [learning_rate(modern, step) for step in (3, 6, 103, 200)] == pytest.approx([2.5e-6, 5e-6, 2.5e-6, 0])


def test_epochs_or_steps():
    assert SftOptions(steps=7).resolved(100).steps == 7
    assert SftOptions(epochs=0.5).resolved(9).steps == 5
    assert SftOptions(epochs=3, warmup_share=0.1, warmup_steps=5).resolved(100).warmup_steps == 30
    assert SftOptions(epochs=1, warmup_share=0.03, warmup_steps=5).resolved(100).warmup_steps == 5
    assert SftOptions().with_(micro_rows=2).resolved(10).resolved(99).steps == 20
    assert SftOptions(epochs=2, steps=7).resolved(100).steps == 7


def test_a_stage_learns_and_its_folder_chats(tmp_path):
    run = make(tmp_path / "a")
    told = steps(events(run))
    assert told[-1].step == len(told) == 2 * -(-stage_rows(run) // 4)
    assert told[-1].loss < told[0].loss
    assert {"trained_tokens", "loss", "accuracy", "learned_share"} <= told[0].metrics.keys()
    assert {"validation_loss", "validation_accuracy"} <= told[2].metrics.keys()
    assert 0.1 < told[0].metrics["learned_share"] < 0.7
    base, made = open_weights(run.parent / "base"), open_weights(run / "sft" / "latest")
    assert (made.chat_template, made.stop_ids, made.sampling) == (base.chat_template, base.stop_ids, base.sampling)
    assert made.tokenizer.to_json() == base.tokenizer.to_json()
    llama = load(str(run / "sft"))
    assert llama.chat("7 old hill?", max_tokens=8, seed=1).text


def stage_rows(run):
    manifest = json.loads((run / "sft" / "data" / "manifest.json").read_text())
    from camelid.data.chats.rows import ConversationRows

    assert manifest["sources"][0]["documents"]
    return ConversationRows(run / "sft" / "data", 128, 4, 5).n_rows


@pytest.mark.slow
def test_it_begins_from_a_gguf_as_from_the_folder(tmp_path):
    run, target = make(tmp_path / "a"), tmp_path / "base.gguf"
    save_weights(run.parent / "base", target, format="gguf", quant="F32")
    first = events(run, f"base={target}", stop_after=2)
    made, base = open_weights(run / "sft" / "latest"), open_weights(target)
    assert (made.chat_template, set(made.stop_ids), made.sampling) == (
        base.chat_template,
        set(base.stop_ids),
        base.sampling,
    )
    other = make(tmp_path / "b")
    again = events(other, stop_after=2)
    assert [step.loss for step in steps(first)] == [step.loss for step in steps(again)]


@pytest.mark.slow
def test_a_chat_format_for_a_model_without_one(tmp_path):
    run = make(tmp_path / "a", template=None)
    with pytest.raises(OptionError, match=r"this model brings no template.*its vocabulary fits: chatml"):
        events(run)
    with pytest.raises(OptionError, match=r"'llama3' needs the token <\|begin_of_text\|>"):
        events(run, "sft.chat_format=llama3", stop_after=1)
    with pytest.raises(OptionError, match=r"chat_format: chatml in the stage's table, llama2 in its data's"):
        events(run, "sft.chat_format=chatml", "sft.data.chat_format=llama2", stop_after=1)
    events(run, "sft.chat_format=chatml", stop_after=1)
    made = open_weights(run / "sft" / "latest")
    assert "<|im_start|>" in (made.chat_template or "")
    assert made.stop_ids[0] == made.tokenizer.special_ids["<|im_end|>"]
    assert load(str(run / "sft")).chat("a?", max_tokens=3, seed=1)


def test_another_base_is_refused(tmp_path):
    run = make(tmp_path / "a")
    events(run, stop_after=1)
    make_chat_model(tmp_path / "other", seed=1)
    with pytest.raises(OptionError, match=r"sft/step1\S*: cannot go on, because the model that it began from"):
        events(run, f"base={tmp_path / 'other'}")
    (run.parent / "base").rename(tmp_path / "moved")  # the same model elsewhere
    assert steps(events(run, f"base={tmp_path / 'moved'}", stop_after=1))[0].step == 2


def test_a_finished_stage_is_looked_at_again_where_one_that_it_names_was_saved_later(tmp_path):
    run = make(tmp_path / "a")
    text = (run.parent / "talk.toml").read_text().replace('stages = ["sft"]', 'stages = ["sft", "sft-2"]')
    (run.parent / "talk.toml").write_text(text + '[sft-2]\nstart = "sft"\nsteps = 1\n[sft-2.data]\n' + SOURCE)
    events(run, "sft.steps=1")
    events(run, "sft.steps=1", name="sft-2")
    stage = stage_of(run, "sft.steps=1", name="sft-2")
    assert finished_step(stage) == 1
    later = time.time() + 10  # a file's clock is coarse: touched at once, it can show the same time
    os.utime(run / "sft" / "latest" / "checkpoint.json", (later, later))
    assert finished_step(stage) is None


SOURCE = '[[sft-2.data.sources]]\nname = "talks"\nkind = "jsonl"\npath = "talks.jsonl"\n'


def test_no_base_and_rows_longer_than_the_model(tmp_path):
    run = make(tmp_path / "a")
    text = (run.parent / "talk.toml").read_text()
    (run.parent / "talk.toml").write_text("\n".join(line for line in text.splitlines() if not line.startswith("base")))
    with pytest.raises(OptionError, match=r'sft begins from a model; give base = "NAME"'):
        events(run)
    other = make(tmp_path / "b", context=64)
    with pytest.raises(OptionError, match=r"sft\.context: rows of 128 tokens, and \S*base was made for 64"):
        events(other)


@pytest.mark.parametrize("more", [(), ("sft.neftune_alpha=5", "sft.mean_over=conversations")], ids=["plain", "noise"])
@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_with_the_same_bits(tmp_path, more):
    whole, cut = make(tmp_path / "a"), make(tmp_path / "b")
    events(whole, *more)

    def until(number):
        for count, event in enumerate(train(stage_of(cut, *more))):
            if count == number:
                kill_me()
            assert not isinstance(event, Saved) or event.step

    for number in (2, 5, 7):
        assert dies(lambda number=number: until(number))
    events(cut, *more)
    assert same(numbers(whole / "sft" / "latest"), numbers(cut / "sft" / "latest"))


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path):
    one, two = make(tmp_path / "a"), make(tmp_path / "b")
    told = steps(events(one, stop_after=4))
    events(two, stop_after=1)  # prepares the data; then anew
    script = (
        "import sys\n"
        "from camelid.recipe import read_recipe\n"
        "from camelid.train.parallel import Parallel\n"
        "from camelid.train.run import train\n"
        "from camelid.train.run_stage import RunStage\n"
        "from pathlib import Path\n"
        "with Parallel() as parallel:\n"
        "    stage = RunStage(read_recipe(sys.argv[1]), 'sft', Path(sys.argv[2]), parallel)\n"
        "    list(train(stage, stop_after=4, fresh=True))\n"
        "    parallel.barrier()\n"
    )
    command = [sys.executable, "-c", script, str(two.parent / "talk.toml"), str(two)]
    for process in begin_together(2, command, cwd=ROOT, stdout=subprocess.DEVNULL):
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    rows = [json.loads(line) for line in (two / "sft" / "metrics.jsonl").read_text().splitlines()]
    theirs = [row["loss"] for row in rows if "loss" in row][-4:]
    assert theirs == pytest.approx([step.loss for step in told], rel=1e-6)
    ours, others = (numbers(newest_checkpoint(run / "sft")) for run in (one, two))
    for name in ours:
        assert np.abs(ours[name] - others[name]).max() < 1e-6 * max(1.0, np.abs(ours[name]).max()), name


@pytest.mark.slow
def test_from_documents_to_conversations_in_one_command(tmp_path):
    """A new model is pretrained, given Llama 3's format, and tuned; the folder chats."""
    run = make(tmp_path / "a")
    recipe = (run.parent / "talk.toml").read_text().replace('stages = ["sft"]', 'stages = ["pretrain", "sft"]')
    recipe = "\n".join(line for line in recipe.splitlines() if not line.startswith("base"))
    (run.parent / "talk.toml").write_text(recipe + PRETRAIN, encoding="utf-8")
    documents = "\n".join(json.dumps({"text": text, "id": str(n)}) for n, text in enumerate(some_documents(300)))
    (run.parent / "documents.jsonl").write_text(documents, encoding="utf-8")
    read = read_recipe(run.parent / "talk.toml", ["sft.chat_format=llama3"])
    told = list(live([RunStage(read, name, run, Parallel()) for name in read.stages]))
    assert {stage.name for stage, _ in told} == {"pretrain", "sft"}
    made = open_weights(newest_checkpoint(run / "sft"))
    assert "<|start_header_id|>" in (made.chat_template or "")
    assert made.tokenizer.special_ids["<|eot_id|>"] in made.stop_ids
    assert load(str(run / "sft")).chat("a?", max_tokens=3, seed=1)


PRETRAIN = """
[[data.sources]]
name = "made"
kind = "jsonl"
path = "documents.jsonl"
[tokenizer]
train = "llama3"
vocab_size = 560
[model]
dim = 32
n_layers = 1
n_heads = 2
ffn_dim = 48
[pretrain]
steps = 3
batch_tokens = 256
context = 128
warmup_steps = 1
compile = false
"""


@pytest.mark.slow
def test_the_default_models_template_is_kept(tmp_path, smollm2_path):
    run = make(tmp_path / "a", template=smollm2_template(smollm2_path))
    events(run, stop_after=1)
    assert open_weights(run / "sft" / "latest").chat_template == smollm2_template(smollm2_path)

"""Checkpoints survive being killed at any moment of a save, are found by their hashes, and bring everything back."""

from __future__ import annotations

import json
import random
import resource
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from camelid.errors import NumericsError, OptionError, ResourceError, UnsupportedError, VerifyError
from camelid.model.llama_torch import LlamaTorch
from camelid.pedigree import read_pedigree
from camelid.recipe import read_recipe
from camelid.train.checkpoints import checkpoint as module
from camelid.train.checkpoints.checkpoint import About, Checkpoints
from camelid.train.checkpoints.store import holding
from camelid.train.init import initialise
from camelid.train.optim import make_optimizer
from camelid.train.parallel import Parallel
from camelid.train.stages.pretrain import PretrainOptions
from camelid.weights.open import open_weights
from tests.data.made import byte_tokenizer, make_data, some_documents
from tests.tiny import tiny_config
from tests.train.killed import dies, kill_me
from tests.train.ranks import steps_of
from tests.train.test_run import RECIPE

OPTIONS = PretrainOptions(
    steps=9, warmup_steps=1, batch_tokens=64, context=32, precision="fp32", keep_last=2, keep_every=4
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def begun(folder: Path, options=OPTIONS, phase=None, **changes):
    """Checkpoints of a small model, which is there too."""
    parallel = Parallel()
    with torch.device("meta"):
        model = LlamaTorch(tiny_config(n_layers=1, **changes))
    model = parallel.shard(model)
    initialise(model, 3)
    about = About("pretrain", options, "data", 3, byte_tokenizer(), {"name": "small"})
    return Checkpoints(folder, parallel, about, phase), model, make_optimizer(model, options)


def learn(model, optimizer):
    """A step in some direction, always the same from the same weights."""
    for parameter in model.parameters():
        parameter.grad = parameter.detach().clone().sin()
    optimizer.step()
    optimizer.zero_grad()


def state_of(checkpoint: Path, file: Path) -> dict[str, torch.Tensor]:
    """All that a checkpoint keeps for training, by other means than ours."""
    dcp_to_torch_save(checkpoint / "state", file)
    return torch.load(file, weights_only=True)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.glob(".*") if path.name != ".lock"]


@pytest.mark.slow
def test_a_save_killed_in_any_phase_leaves_a_good_checkpoint(tmp_path):
    phases: list[str] = []
    checkpoints, model, optimizer = begun(tmp_path / "free", phase=phases.append)
    checkpoints.save(1, 64, model, optimizer)
    assert phases[0] == "model embed_tokens"
    assert phases[-6:] == ["hash", "record", "appear", "link", "keep", "done"]
    seen = set()
    for name in phases:
        folder = tmp_path / name.replace(" ", "-")
        checkpoints, model, optimizer = begun(folder)
        learn(model, optimizer)
        checkpoints.save(1, 64, model, optimizer)
        kept = [value.clone() for value in model.parameters()]
        learn(model, optimizer)
        dying, *_ = begun(folder, phase=lambda phase, last=name: kill_me() if phase == last else None)
        assert dies(lambda save=dying.save, now=(model, optimizer): save(2, 128, *now))
        found = checkpoints.latest()
        assert found is not None
        assert hidden(folder) == []
        assert (folder / "latest").resolve() == found.path
        seen.add(found.step)
        again, fresh, fresh_optimizer = begun(folder)
        again.restore(found, fresh, fresh_optimizer)
        wanted = kept if found.step == 1 else list(model.parameters())
        assert all(torch.equal(one, two) for one, two in zip(fresh.parameters(), wanted, strict=True))
        checkpoints.save(2, 128, model, optimizer)
        assert checkpoints.latest().step == 2
    assert seen == {1, 2}


@pytest.mark.slow
def test_a_save_killed_at_any_time_leaves_a_good_checkpoint(tmp_path):
    checkpoints, model, optimizer = begun(tmp_path)
    learn(model, optimizer)
    checkpoints.save(1, 64, model, optimizer)
    draw, step = random.Random(0), 1
    for _ in range(12):
        after = draw.uniform(0, 1.2 * checkpoints.seconds)
        dies(lambda to=step + 1: checkpoints.save(to, 64 * to, model, optimizer), after)
        found = checkpoints.latest()
        assert found is not None
        assert found.step in (step, step + 1)
        step = found.step


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, precision):
    runs = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "small.toml").write_text(RECIPE, encoding="utf-8")
        make_data(folder / "small", some_documents(80))
        runs.append((folder / "small", read_recipe(folder / "small.toml", [f"pretrain.precision={precision}"])))
    (whole, recipe), (killed, _) = runs
    steps = list(steps_of(recipe, whole, Parallel()))

    def until_seven() -> None:
        for step in steps_of(recipe, killed, Parallel()):
            if step.step == 7:
                kill_me()

    assert dies(until_seven)
    rest = list(steps_of(recipe, killed, Parallel()))
    assert [step.step for step in rest] == list(range(5, 13))  # it was saved after step 4
    assert [(step.loss, step.grad_norm) for step in rest] == [(step.loss, step.grad_norm) for step in steps[4:]]
    one, two = (state_of(run / "pretrain" / "latest", tmp_path / "state.pt") for run in (whole, killed))
    assert any(name.startswith("optimizer.") for name in one)
    assert set(one) == set(two)
    assert all(torch.equal(one[name], two[name]) for name in one)


def flip(file: Path) -> None:
    """Change a bit in the middle."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink())


def test_damaged_checkpoints_are_put_aside_with_a_word(tmp_path, caplog):
    checkpoints, model, optimizer = begun(tmp_path)
    for step in (1, 2, 3):
        learn(model, optimizer)
        checkpoints.save(step, 64 * step, model, optimizer)
    (tmp_path / "step1-tokens64").mkdir()  # one without a record
    flip(tmp_path / "step3-tokens192" / "model.safetensors")
    assert checkpoints.latest().step == 2
    assert (tmp_path / "latest").resolve().name == "step2-tokens128"
    assert "step3-tokens192: damaged (model.safetensors has another SHA-256)" in caplog.text
    assert "step1-tokens64: damaged (checkpoint.json is missing or damaged)" in caplog.text
    assert names(tmp_path) == ["damaged-step1-tokens64", "damaged-step3-tokens192", "step2-tokens128"]
    checkpoints.save(3, 192, model, optimizer)  # takes the damaged one's name
    assert checkpoints.latest().step == 3


@pytest.mark.slow
@pytest.mark.parametrize("last", [1, 2, 3])
def test_damaged_checkpoints_keep_no_good_one_from_its_place(tmp_path, last):
    """Whichever are damaged, a start goes on from the newest good one, and the newest `last` good ones are kept."""
    options = OPTIONS.with_(keep_last=last, keep_every=0)
    checkpoints, model, optimizer = begun(tmp_path, options)
    draw, step = random.Random(last), 0
    for _ in range(7):
        step += 1
        learn(model, optimizer)
        saved = checkpoints.save(step, 64 * step, model, optimizer)
        assert saved.exists()
        assert (tmp_path / "latest").resolve() == saved
        there = sorted(int(path.name[4:].partition("-")[0]) for path in tmp_path.glob("step*"))
        assert len(there) <= last
        assert there[-1] == step
        if last > 1 and len(there) == last and draw.random() < 0.5:
            for damaged in there[draw.randint(1, last - 1) :]:
                flip(tmp_path / f"step{damaged}-tokens{64 * damaged}" / "model.safetensors")
                there.remove(damaged)
            step = checkpoints.latest().step
            assert step == there[-1]


def test_all_damaged_is_an_error_and_a_fresh_start_must_be_asked_for(tmp_path, caplog):
    checkpoints, model, optimizer = begun(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, 64 * step, model, optimizer)
    flip(tmp_path / "step2-tokens128" / "model.safetensors")
    record = json.loads((tmp_path / "step1-tokens64" / "checkpoint.json").read_text())
    there = names(tmp_path)
    for wrong in ("{", json.dumps({**record, "step": 1e999}), json.dumps({**record, "step": 7}), "[" * 10**5, "[]"):
        (tmp_path / "step1-tokens64" / "checkpoint.json").write_text(wrong)
        with pytest.raises(VerifyError, match=r"no checkpoint can be trusted \(step1.*; step2-tokens128: .*--fresh"):
            checkpoints.latest()
        assert names(tmp_path) == there  # nothing is touched
    assert checkpoints.latest(fresh=True) is None
    assert names(tmp_path) == ["before"]
    assert not (tmp_path / "latest").is_symlink()
    assert "starts at step 0" in caplog.text
    assert names(tmp_path / "before") == there
    checkpoints.save(1, 64, model, optimizer)
    assert checkpoints.latest(fresh=True) is None
    assert names(tmp_path) == ["before", "before-2"]


def test_a_checkpoint_of_a_later_camelid_is_not_passed_over(tmp_path):
    checkpoints, model, optimizer = begun(tmp_path)
    path = checkpoints.save(1, 64, model, optimizer) / "checkpoint.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(UnsupportedError, match="version 2, this camelid reads 1; update camelid"):
        checkpoints.latest()


@pytest.mark.parametrize("where", ["weight", "average", "rounding"])
def test_ruined_numbers_are_never_saved(tmp_path, where):
    checkpoints, model, optimizer = begun(tmp_path, OPTIONS.with_(precision="bf16"))
    learn(model, optimizer)
    checkpoints.save(1, 64, model, optimizer)
    parameter = next(model.parameters())
    with torch.no_grad():
        if where == "average":
            optimizer.state[parameter]["exp_avg_sq"][0, 0] = torch.inf
        else:  # the second is finite in float32, and infinite in bfloat16
            parameter[0, 0] = torch.nan if where == "weight" else 3.4e38
    with pytest.raises(NumericsError, match=r"step 2: .*embed_tokens.* is not finite any more; nothing is saved"):
        checkpoints.save(2, 128, model, optimizer)
    assert names(tmp_path) == ["step1-tokens64"]
    assert checkpoints.latest().step == 1


@pytest.mark.parametrize("left", [0, 10_000, 30_000, 50_000])
def test_a_full_disk_is_a_plain_error_and_leaves_nothing(tmp_path, left):
    """The limit of a file's size stands for the disk's: Python ignores its signal, and writes fail."""
    checkpoints, model, optimizer = begun(tmp_path)
    learn(model, optimizer)
    kept = checkpoints.save(1, 64, model, optimizer)
    sizes = [path.stat().st_size for path in kept.rglob("*") if path.is_file()]
    assert max(sizes) > 50_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[1]))
    try:
        with pytest.raises(ResourceError, match="cannot be written"):
            checkpoints.save(2, 128, model, optimizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert hidden(tmp_path) == []
    assert checkpoints.latest().step == 1
    assert checkpoints.save(2, 128, model, optimizer).name == "step2-tokens128"


def test_the_newest_and_the_milestones_are_kept(tmp_path):
    checkpoints, model, optimizer = begun(tmp_path)
    for step in range(1, 10):
        checkpoints.save(step, 1000 * step, model, optimizer)
    assert sorted(path.name for path in tmp_path.glob("step*")) == [
        "step4-tokens4K",
        "step8-tokens8K",
        "step9-tokens9K",
    ]
    assert hidden(tmp_path) == []


def test_a_checkpoint_says_what_it_is(tmp_path):
    checkpoints, model, optimizer = begun(tmp_path)
    path = checkpoints.save(5, 1_234_567, model, optimizer)
    assert path.name == "step5-tokens1M"
    record = json.loads((path / "checkpoint.json").read_text())
    assert (record["step"], record["tokens"], record["data"], record["ranks"]) == (5, 1_234_567, "data", 1)
    there = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert there - {"checkpoint.json"} == set(record["files"])
    assert read_pedigree(path)["counts"] == {"step": 5, "tokens": 1_234_567, "ranks": 1}
    assert read_pedigree(path)["made"] == path.name
    tensors = open_weights(path).tensors
    for name, parameter in model.named_parameters():
        assert torch.equal(torch.from_numpy(tensors[name.removesuffix(".weight")].array()), parameter)


def test_random_generators_go_on(tmp_path):
    checkpoints, model, optimizer = begun(tmp_path)
    checkpoints.save(1, 64, model, optimizer)
    drawn = torch.rand(3)
    checkpoints.restore(checkpoints.latest(), model, optimizer)
    assert torch.equal(torch.rand(3), drawn)


def test_room_is_asked_for_before_anything_is_written(tmp_path, monkeypatch):
    checkpoints, model, optimizer = begun(tmp_path)

    def full(folder: Path, n_bytes: int) -> None:
        raise ResourceError(f"{folder}: {n_bytes}")

    monkeypatch.setattr(module, "check_space", full)
    with pytest.raises(ResourceError) as error:
        checkpoints.save(1, 64, model, optimizer)
    n_parameters = sum(value.numel() for value in model.parameters())
    assert 16 * n_parameters < int(str(error.value).rpartition(": ")[2]) < 16 * n_parameters + 20_000_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_tokens": 128}, "pretrain.batch_tokens was 64, is 128"),
        (
            {"clip": 0.5, "betas": (0.9, 0.99)},
            r"pretrain.betas was \[0.9, 0.95\], is \[0.9, 0.99\]; pretrain.clip was 1",
        ),
        ({"steps": 18}, "pretrain.steps was 9, is 18, which changes learning rates that were used"),
        ({"precision": "bf16"}, "pretrain.precision was fp32, is bf16"),
        ({"seed": 4}, "seed was 3, is 4"),
        ({"data": "other"}, "the prepared data is not the same"),
        ({"ffn_dim": 64}, "model.ffn_dim was 96, is 64"),
    ],
)
def test_what_would_have_been_another_run_is_refused(tmp_path, changes, said):
    checkpoints, model, optimizer = begun(tmp_path)
    checkpoints.save(4, 256, model, optimizer)
    options = {name: value for name, value in changes.items() if name in PretrainOptions.model_fields}
    about = {name: value for name, value in changes.items() if name in ("seed", "data")}
    shape = {name: value for name, value in changes.items() if name == "ffn_dim"}
    _, other, other_optimizer = begun(tmp_path, **shape)
    now = About(
        "pretrain",
        OPTIONS.with_(**options),
        about.get("data", "data"),
        about.get("seed", 3),
        byte_tokenizer(),
        {"name": "small"},
    )
    with pytest.raises(OptionError, match=said):
        Checkpoints(tmp_path, Parallel(), now).restore(checkpoints.latest(), other, other_optimizer)


def test_the_future_may_change(tmp_path):
    """A stable rate may stay so for longer; how often is saved and how work is cut changes nothing that was learned."""
    stable = OPTIONS.with_(schedule="wsd", steps=20)
    checkpoints, model, optimizer = begun(tmp_path, stable)
    checkpoints.save(4, 256, model, optimizer)
    later, model, optimizer = begun(tmp_path, stable.with_(steps=40, save_every=3, micro_rows=1, recompute=True))
    later.restore(checkpoints.latest(), model, optimizer)
    shorter, *_ = begun(tmp_path, stable.with_(steps=4))
    with pytest.raises(OptionError, match="which changes learning rates"):
        shorter.restore(checkpoints.latest(), model, optimizer)


def test_one_process_trains_in_a_folder_at_a_time(tmp_path):
    with holding(tmp_path), pytest.raises(ResourceError, match="another process trains here"), holding(tmp_path):
        pass
    with holding(tmp_path):
        pass


def test_without_checkpoints_there_is_none(tmp_path):
    checkpoints, *_ = begun(tmp_path / "new")
    assert checkpoints.latest() is None

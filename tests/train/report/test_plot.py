"""Pictures of runs: what is drawn is what was recorded."""

from __future__ import annotations

import json
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.cli import main
from camelid.errors import MissingError, OptionError
from camelid.train.report.curves import CURVES, smoothed, usual
from camelid.train.report.metrics import MetricsWriter, read_metrics
from camelid.train.report.plot import plot
from tests.train.lives import made_life
from tests.train.report.test_metrics import step
from tests.train.test_runs import made_run

pytest.importorskip("matplotlib")


@pytest.fixture
def runs(tmp_path):
    one = made_run(tmp_path / "one" / "pretrain", steps=30)
    other = made_run(tmp_path / "other" / "pretrain", steps=20, loss=7.0)
    return [(run.folder.parent.name, read_metrics(run.folder)) for run in (one, other)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_pictures_of_every_kind(runs, tmp_path, kind):
    out = plot(runs, tmp_path / "new" / f"plot.{kind}", "tokens")
    begin = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind]
    assert out.read_bytes().startswith(begin)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_panel_shows_the_recorded_values(runs, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    real = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda self, x, y, *a, **k: drawn.append((x, y)) or real(self, x, y, *a, **k))
    plot(runs, tmp_path / "plot.svg", "tokens", ["loss"], smooth=4)
    steps, losses = runs[0][1].points("loss", "tokens")
    assert drawn[0] == (steps, losses)
    assert drawn[1] == (steps, smoothed(losses, 4))
    assert drawn[2][1] == runs[0][1].points("validation_loss")[1]
    assert len(drawn) == 6


@pytest.mark.slow
def test_text_of_a_picture(tmp_path, runs):
    folder = tmp_path / "three" / "pretrain"
    folder.mkdir(parents=True)
    with MetricsWriter(folder, 3, unigram_entropy=6.1) as record:
        for number in (1, 2, 3):
            record.write(step(number, seconds=90.0))
    out = plot([*runs, ("three", read_metrics(folder))], tmp_path / "plot.svg", "time", ["loss", "lr"])
    text = out.read_text()
    for word in ("loss, nats a token", "learning rate", "one", "other", "three", "unigram entropy", "validation"):
        assert f">{word}</" in text
    assert "minutes of training" in text
    assert plot(runs, tmp_path / "a.svg").read_bytes() == plot(runs, tmp_path / "b.svg").read_bytes()


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50), st.integers(1, 20))
def test_smoothing_stays_between_the_values(values, width):
    means = smoothed(values, width)
    assert len(means) == len(values)
    assert means[0] == pytest.approx(values[0])
    assert all(min(values) - 1e-9 <= mean <= max(values) + 1e-9 for mean in means)
    assert smoothed([3.0] * len(values), width) == pytest.approx([3.0] * len(values))


def test_mistakes_are_named(runs, tmp_path, monkeypatch):
    with pytest.raises(OptionError, match="did you mean 'loss'"):
        plot(runs, tmp_path / "a.png", metrics=["lsos"])
    with pytest.raises(OptionError, match=r"ends in .png, .svg"):
        plot(runs, tmp_path / "a.gif")
    with pytest.raises(MissingError, match="z_loss: no step"):
        plot(runs, tmp_path / "a.png", metrics=["z_loss"])
    empty = tmp_path / "empty"
    empty.mkdir()
    MetricsWriter(empty, 3).close()
    with pytest.raises(OptionError, match="nothing to draw"):
        plot([("empty", read_metrics(empty))], tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingError, match=r"pip install 'camelid\[plots\]'"):
        plot(runs, tmp_path / "a.png")


def test_a_stage_is_drawn_by_the_names_of_what_it_measures(tmp_path):
    life = made_life(tmp_path / "life")
    ppo, rejection = (read_metrics(life / name) for name in ("ppo", "rejection"))
    assert usual([ppo])[:6] == ["loss", "reward", "kl", "entropy", "clip_share", "answer_length"]
    assert usual([rejection])[:2] == ["loss", "best_of"]
    assert "validation_reward" not in usual([ppo])
    out = plot([("ppo", ppo)], tmp_path / "ppo.svg", metrics=["clip_share", "reward"])
    for word in ("clip share", "reward", "validation"):
        assert word in out.read_text()
    with pytest.raises(MissingError, match="none of these runs has chosen among answers"):
        plot([("ppo", ppo)], tmp_path / "ppo.svg", metrics=["best_of"])


@pytest.mark.slow
def test_a_life_is_drawn_stage_by_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(made_life(tmp_path / "life").parent)
    with pytest.raises(SystemExit) as end:
        main(["plot", "life", "--out", "life.svg"])
    assert end.value.code == 0
    assert re.findall(r"(\w+): \d+ steps", capsys.readouterr().out) == ["pretrain", "sft", "rejection", "ppo"]
    text = (tmp_path / "life.svg").read_text()
    for word in ("pretrain", "sft", "rejection", "ppo", "max of K", "answer length"):
        assert f">{word}<" in text


@pytest.mark.slow
def test_the_verb(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments, said in (
        (
            ["one", "other", "--x", "time", "--metrics", "loss,mfu"],
            r"one: 30 steps, loss [\d.]+\nother: .*\nplot.png\n",
        ),
        (["one/pretrain/step2-tokens128", "--json"], r'{"out": "plot.png".*}\n'),
    ):
        with pytest.raises(SystemExit) as end:
            main(["plot", *arguments])
        assert end.value.code == 0
        assert re.fullmatch(said, text := capsys.readouterr().out)
    assert json.loads(text)["runs"] == [{"run": "one", "steps": 30, "loss": runs[0][1].last("loss")}]
    with pytest.raises(SystemExit) as end:
        main(["plot", "one", "--x", "stpe"])
    assert end.value.code == 2
    assert "did you mean 'step'" in capsys.readouterr().err
    assert set(CURVES) > {"loss"}

"""Pictures of a board: each shows the figures of its votes."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from camelid.arena.battles import A, B
from camelid.arena.board.pairs import mean_win_rate, met, share_of_wins
from camelid.arena.plots import PLOTS, ordered, plot_battles
from camelid.arena.ratings import Counts, RateOptions, rate
from camelid.arena.simulate import simulate
from camelid.cli import main
from camelid.errors import MissingError, OptionError

pytest.importorskip("matplotlib")
BATTLES = simulate({"new $x$": 1100, "old": 950, "third one": 1010, "last": 900}, 600, ties=0.3, seed=4)
BOARD = rate(BATTLES, RateOptions())


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """What matplotlib was given: images, bars and points."""
    from matplotlib.axes import Axes

    seen = {}
    for name, at in (("imshow", 0), ("barh", 1), ("errorbar", 0)):
        real = getattr(Axes, name)

        def note(self, *given, name=name, at=at, real=real, **more):
            seen.setdefault(name, []).append((np.ma.filled(given[at], np.nan), more))
            return real(self, *given, **more)

        monkeypatch.setattr(Axes, name, note)
    plot_battles(BATTLES, BOARD, tmp_path, "svg")
    return seen


def counted(first, second):
    """Votes won by the first model against the second, one by one."""
    names = BATTLES.models
    return sum(
        (names[a], names[b], won) in ((first, second, A), (second, first, B))
        for a, b, won in zip(BATTLES.a, BATTLES.b, BATTLES.winner, strict=True)
    )


def test_shares_of_a_and_b_sum_to_one_and_are_those_of_the_votes(drawn):
    share = drawn["imshow"][0][0]
    off = ~np.eye(4, dtype=bool)
    assert (share + share.T)[off] == pytest.approx(1)
    assert np.isnan(share.diagonal()).all()
    best, second = BOARD.rows[0].name, BOARD.rows[1].name
    won, lost = counted(best, second), counted(second, best)
    assert share[0, 1] == pytest.approx(won / (won + lost))
    assert "new $x$" in {best, second}


def test_counts_rates_and_intervals_are_the_boards(drawn):
    table = ordered(Counts.of(BATTLES), BOARD)
    counts = drawn["imshow"][1][0]
    assert np.nansum(counts) == 2 * len(BATTLES)
    assert counts[0, 2] == met(table)[0, 2]
    assert drawn["barh"][0][0] == pytest.approx(sorted(mean_win_rate(table), reverse=True))
    points, more = drawn["errorbar"][0]
    assert points == pytest.approx([row.rating for row in BOARD.rows])
    assert points - more["xerr"][0] == pytest.approx([row.lower for row in BOARD.rows])
    assert points + more["xerr"][1] == pytest.approx([row.upper for row in BOARD.rows])


def test_shares_follow_the_boards_order():
    table = ordered(Counts.of(BATTLES), BOARD)
    assert (np.diff(mean_win_rate(table)) < 0).all()
    assert share_of_wins(table)[0, -1] > 0.6


def test_few_models_and_names_with_signs_of_formulas(tmp_path):
    paths = plot_battles(BATTLES, BOARD, tmp_path, "svg", models=2)
    assert [path.name for path in paths] == [f"{name}.svg" for name in PLOTS]
    text = paths[0].read_text()
    assert all(row.name in text for row in BOARD.rows[:2])
    assert BOARD.rows[2].name not in text


def test_mistakes_are_told(tmp_path, monkeypatch):
    with pytest.raises(OptionError, match="did you mean 'png'"):
        plot_battles(BATTLES, BOARD, tmp_path, "pngg")
    with pytest.raises(OptionError, match="at least 1"):
        plot_battles(BATTLES, BOARD, tmp_path, models=0)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingError, match=r"camelid\[plots\]"):
        plot_battles(BATTLES, BOARD, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_verb(tmp_path, capsys):
    log, out = tmp_path / "votes.jsonl", tmp_path / "pictures"
    for words in (
        ("simulate", "--models", "3", "--votes", "200", "--out", str(log), "--json"),
        ("plot", str(log), "--out", str(out), "--json"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["arena", *words])
        assert end.value.code == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["n_votes"], said["models"]) == (200, 3)
    assert {path.name for path in out.iterdir()} == {f"{name}.png" for name in PLOTS}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.iterdir())

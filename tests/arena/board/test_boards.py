"""Boards are what rating all votes gives; plots' matrices are counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from camelid.arena.battles import A, B, Battles
from camelid.arena.board import pairs, plots
from camelid.arena.board.boards import Boards, Choice
from camelid.arena.board.following import Following
from camelid.arena.ratings import Counts, RateOptions, rate
from camelid.arena.ratings.categories import in_category
from camelid.errors import NotFoundError
from tests.arena.board.voting import Growing, both, some_battles

BATTLES = some_battles(600)


def boards(source: Growing, **options: float) -> Boards:
    return Boards(Following(source), **options)


@pytest.mark.parametrize(("category", "style"), [("", False), ("exclude-ties", False), ("english", False), ("", True)])
def test_a_board_is_that_of_all_its_votes(category, style):
    made = boards(Growing(BATTLES))
    shown = made.get(Choice(category, style))
    chosen = BATTLES.take(in_category(BATTLES, category or "overall"))
    expected = rate(chosen, RateOptions(style=style))
    assert shown.board == expected
    assert shown.n_votes == len(chosen)
    assert made.get(Choice(category, style)) is shown


def test_a_new_vote_is_on_the_board():
    source = Growing(BATTLES)
    made = boards(source)
    made.get(Choice())
    more = some_battles(40, 5, start=600)
    source.chunks.append(more)
    assert made.get(Choice()).board == rate(both(BATTLES, more))


def test_a_slow_board_is_shown_as_it_was_until_it_is_made():
    source = Growing(BATTLES)
    made = boards(source, slow=-1.0)
    first = made.get(Choice())
    source.chunks.append(some_battles(40, 5, start=600))
    assert made.get(Choice()) is first
    made._beside.submit(lambda: None).result(60)  # it works one thing after another
    assert made.get(Choice()).n_votes == 640
    made.close()


def test_categories_are_those_that_votes_tell():
    names = boards(Growing(BATTLES)).categories()
    assert names[0] == ""
    assert {"english", "multi-turn", "few-per-voter", "exclude-ties"} <= set(names)
    assert not {"coding", "german", "overall"} & set(names)
    with pytest.raises(NotFoundError, match="category: there is no 'coding'"):
        boards(Growing(BATTLES)).get(Choice("coding"))


@pytest.mark.parametrize("battles", [some_battles(0), Battles.of(["x"], ["x"], ["tie"])])
def test_no_votes(battles):
    shown = boards(Growing(battles)).get(Choice())
    assert shown.board.rows == ()
    assert shown.board.warnings


def counted(i: str, j: str, wanted: object) -> int:
    """Votes of a pair, one by one."""
    n = 0
    for at in range(len(BATTLES)):
        names = (BATTLES.models[BATTLES.a[at]], BATTLES.models[BATTLES.b[at]])
        if names == (i, j):
            n += wanted in ("all", int(BATTLES.winner[at]))
        elif names == (j, i):
            turned = {A: B, B: A}.get(int(BATTLES.winner[at]), int(BATTLES.winner[at]))
            n += wanted in ("all", turned)
    return n


def test_matrices_are_counts():
    table = Counts.of(BATTLES).table
    share, n, names = pairs.share_of_wins(table), pairs.met(table), BATTLES.models
    for i, row in enumerate(names):
        for j, column in enumerate(names):
            if i == j:
                assert math.isnan(share[i, j])
                continue
            won, lost = counted(row, column, A), counted(row, column, B)
            assert n[i, j] == counted(row, column, "all")
            assert share[i, j] == won / (won + lost)
            assert share[i, j] + share[j, i] == pytest.approx(1)
    rates = pairs.mean_win_rate(table)
    assert rates == pytest.approx(np.nanmean(share, axis=1))
    assert pairs.share_of_a(table) == np.mean(BATTLES.winner[BATTLES.winner <= B] == A)


def test_a_model_that_decided_nothing():
    table = Counts.of(Battles.of(["x", "x", "z"], ["y", "y", "y"], ["model_a", "tie", "tie"])).table
    assert pairs.share_of_wins(table)[0, 1] == 1
    assert np.isnan(pairs.mean_win_rate(table)[2])


def test_plots_hold_the_boards_figures():
    made = boards(Growing(BATTLES))
    shown = made.get(Choice())
    drawn = plots.intervals(shown)
    for bar, row in zip(drawn.bars, shown.board.rows, strict=True):
        assert (bar.name, bar.text) == (row.name, f"{row.rating:.0f} ({row.lower:.0f} to {row.upper:.0f})")
        assert plots.LEFT <= bar.low < bar.x < bar.high <= plots.WIDTH - plots.RIGHT
    assert [bar.x for bar in drawn.bars] == sorted((bar.x for bar in drawn.bars), reverse=True)
    heat = plots.wins_map(shown)
    assert heat.names == tuple(row.name for row in shown.board.rows)
    first = heat.rows[0][1]
    number = [shown.models.index(name) for name in (first.row, first.column)]
    assert first.text == f"{pairs.share_of_wins(shown.table)[tuple(number)]:.2f}"
    assert sum(float(cell.text or 0) for row in plots.counts_map(shown).rows for cell in row) == 2 * len(BATTLES)


def test_ratings_over_time_end_with_the_board():
    shown = boards(Growing(BATTLES)).get(Choice())
    drawn = plots.over_time(shown, RateOptions())
    last = {curve.name: curve.values[-1] for curve in drawn.curves}
    assert last == {row.name: f"{row.rating:.0f}" for row in shown.board.rows}
    assert len(drawn.moments) == plots.MOMENTS
    timeless = Battles.of(["x", "y"], ["y", "x"], ["model_a", "model_a"])
    assert plots.over_time(boards(Growing(timeless)).get(Choice()), RateOptions()) is None


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0"), (999, "999"), (1234, "1.2k"), (9949, "9.9k"), (9951, "10k"), (999_400, "999k"), (1_250_000, "1.2M")],
)
def test_brief(count, words):
    assert plots.brief(count) == words


@pytest.mark.parametrize("category", ["", "english"])
def test_the_few_votes_that_decide(category):
    """Without them, rating anew gives another first place."""
    made = boards(Growing(BATTLES))
    votes, flip = made.influence(category)
    chosen = np.zeros(len(BATTLES), bool)
    chosen[np.flatnonzero(in_category(BATTLES, category or "overall"))] = True
    assert chosen[flip.votes].all()
    assert rate(BATTLES.take(chosen)).rows[0].name == flip.upper
    chosen[flip.votes] = False
    assert rate(BATTLES.take(chosen)).rows[0].name == flip.lower
    assert made.influence(category) == (votes, flip)

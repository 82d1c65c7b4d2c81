"""Style and other columns against arena-rank, and what must not change them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from camelid.arena.battles import Battles
from camelid.arena.ratings import RateOptions, rate
from camelid.arena.ratings.covariates import differences
from camelid.errors import NumericsError, OptionError
from tests.arena.ratings.votes import drawn


def with_columns(seed: int, m: int, n: int, push: float) -> Battles:
    """Votes that longer answers win, however strong the models are."""
    rng = np.random.default_rng(seed)
    battles = drawn(rng, m, n)
    tokens, lists = rng.exponential(200, (n, 2)).round(), rng.poisson(2, (n, 2)).astype(float)
    longer = (tokens[:, 0] - tokens[:, 1]) / (tokens.sum(1) + 1)
    longer /= np.sqrt((longer**2).mean())
    won = rng.random(n) < 1 / (1 + np.exp(-longer * push))
    winner = np.where(battles.winner < 2, np.where(won, 0, 1), battles.winner).astype(np.int8)
    return replace(battles, winner=winner, numbers={"tokens": tokens, "lists": lists})


# arena-rank 0.1.1 on with_columns(7, 6, 5000, 0.5), columns from `differences`: ContextualBradleyTerry(6, 2,
# reg=0.5 / 5000, ftol=0, gtol=1e-13), from_pandas(…, reweighted=False, normalize_features=False)
RATINGS = [
    994.0477951227673,
    1008.3640412367931,
    1004.3843127481455,
    1001.5871511734504,
    998.1600493904566,
    993.4566503283871,
]
HALVES = [
    13.004629855440612,
    12.502563791614875,
    12.672226393260189,
    12.743483193152315,
    12.460632774954775,
    12.661898953673358,
]
COEFFICIENTS = [0.3920262212552978, 0.023727280612832437]


def test_ratings_intervals_and_coefficients_are_arena_ranks():
    board = rate(with_columns(7, 6, 5000, 0.5), RateOptions(covariates=("tokens", "lists")))
    rows = sorted(board.rows, key=lambda row: row.name)
    assert [row.rating for row in rows] == pytest.approx(RATINGS, abs=1e-6)
    assert [row.upper - row.rating for row in rows] == pytest.approx(
        HALVES, abs=1e-5
    )  # its ridge lies on coefficients, too
    assert [each.value for each in board.coefficients] == pytest.approx(COEFFICIENTS, rel=1e-7)
    tokens, lists = board.coefficients
    assert tokens.lower > 0
    assert lists.lower < 0 < lists.upper


@pytest.mark.parametrize("reweighted", [False, True])
def test_neither_order_nor_sides_change_it(reweighted):
    battles = with_columns(8, 5, 2000, 0.7)
    options = RateOptions(covariates=("tokens", "lists"), reweighted=reweighted)
    board = rate(battles, options)
    rng = np.random.default_rng(0)
    mixed = battles.take(rng.permutation(2000))
    turned = rng.random(2000) < 0.5
    again = rate(
        replace(
            mixed,
            a=np.where(turned, mixed.b, mixed.a),
            b=np.where(turned, mixed.a, mixed.b),
            winner=np.where(turned & (mixed.winner < 2), 1 - mixed.winner, mixed.winner).astype(np.int8),
            numbers={name: np.where(turned[:, None], each[:, ::-1], each) for name, each in mixed.numbers.items()},
        ),
        options,
    )
    for row, same in zip((*board.rows, *board.coefficients), (*again.rows, *again.coefficients), strict=True):
        assert (row.name, row.lower, row.upper) == (same.name, pytest.approx(same.lower), pytest.approx(same.upper))


def test_a_column_of_nothing_changes_nothing():
    battles = with_columns(9, 5, 2000, 0.0)
    battles = replace(battles, numbers={"nothing": np.zeros(2000)})
    plain, with_column = rate(battles), rate(battles, RateOptions(covariates=("nothing",)))
    for row, same in zip(plain.rows, with_column.rows, strict=True):
        assert (row.rating, row.upper, row.rank) == (pytest.approx(same.rating), pytest.approx(same.upper), same.rank)
    assert with_column.coefficients[0].value == 0


def test_many_battles_begin_with_a_sample_and_end_where_few_do(monkeypatch):
    from camelid.arena.ratings import covariates

    battles = with_columns(10, 5, 6000, 0.7)
    options = RateOptions(covariates=("tokens",), anchors={"model 00": 1000})
    whole = rate(battles, options)
    monkeypatch.setattr(covariates, "_SAMPLE", 1000)
    monkeypatch.setattr(covariates, "_AT_ONCE", 77)
    sampled = rate(battles, options)
    for row, same in zip(whole.rows, sampled.rows, strict=True):
        assert (row.name, row.rating, row.upper) == (same.name, pytest.approx(same.rating), pytest.approx(same.upper))


def test_a_column_of_one_side_is_side_as():
    battles = drawn(np.random.default_rng(3), 4, 3000, tie=0.0)
    first = np.where(np.random.default_rng(4).random(3000) < 0.3, 1.0, 0.0)
    pushed = replace(battles, winner=np.where(first > 0, 0, battles.winner).astype(np.int8), numbers={"shown": first})
    (shown,) = rate(pushed, RateOptions(covariates=("shown",))).coefficients
    assert shown.lower > 0
    assert differences(pushed, "shown").max() == pytest.approx(1 / np.sqrt(first.mean()))


def test_mistakes_are_named():
    battles = with_columns(1, 3, 200, 0.1)
    twins = replace(
        battles, numbers={**battles.numbers, "same": battles.numbers["tokens"], "holes": np.full(200, np.nan)}
    )
    for options, words in (
        (RateOptions(style=True), "no column 'headers'"),
        (RateOptions(covariates=("tokns",)), "did you mean 'tokens'"),
        (RateOptions(covariates=("holes",)), "not said for 200 of 200"),
        (RateOptions(covariates=("tokens",), intervals="both"), "only sandwich"),
    ):
        with pytest.raises(OptionError, match=words):
            rate(twins, options)
    with pytest.raises(NumericsError, match="tokens, same cannot be told apart"):
        rate(twins, RateOptions(covariates=("tokens", "same"), style_ridge=0))

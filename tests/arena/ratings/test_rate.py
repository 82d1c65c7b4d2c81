"""Ratings against worked examples, evalica and arena-rank, and what must not change them."""

from __future__ import annotations

from dataclasses import replace

import evalica
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.arena.battles import WINNERS, Battles
from camelid.arena.ratings import METHODS, Board, Counts, RateOptions, fit, rate, rate_counts
from camelid.arena.ratings.elo import elo, elo_resampled
from camelid.errors import OptionError
from tests.arena.ratings.votes import CHAIN, TIES, drawn, golden, llmfao, tallied


def by_name(board: Board) -> dict[str, float]:
    return {row.name: row.rating for row in board.rows}


def test_four_models_of_arena_ranks_own_test():
    board = rate(tallied(CHAIN))
    assert by_name(board) == pytest.approx({"A": 922.43, "B": 1007.37, "C": 927.77, "D": 1142.44}, abs=0.005)
    strengths = {name: 10 ** ((rating - 1000) / 400) for name, rating in by_name(board).items()}
    assert strengths == pytest.approx({"A": 0.640, "B": 1.043, "C": 0.660, "D": 2.270}, rel=1e-3)
    assert board.n_votes == 22
    assert [row.votes for row in board.rows] == [9, 13, 12, 10]


def test_three_models_with_ties_and_their_sandwich():
    rows = rate(tallied(TIES)).rows
    assert [row.rating for row in rows] == pytest.approx([1113.12, 974.77, 912.11], abs=0.006)
    assert [row.upper - row.rating for row in rows] == pytest.approx([103.23, 93.12, 101.15], abs=0.006)
    fixed = rate(tallied(TIES), RateOptions(anchors={"B": 1114})).rows
    assert [row.rating for row in fixed] == pytest.approx([1252.35, 1114.00, 1051.35], abs=0.006)
    assert (fixed[1].lower, fixed[1].upper) == pytest.approx((1114, 1114), abs=1e-9)


def test_three_to_one_is_400_times_a_logarithm():
    rows = rate(tallied([("A", "B", 3, 0, 1)])).rows
    assert rows[0].rating - rows[1].rating == pytest.approx(400 * np.log10(3))


def test_an_anchor_has_no_interval_by_resampling_either():
    board = rate(tallied(TIES), RateOptions(anchors={"B": 1114}, intervals="both"))
    anchor = next(row for row in board.rows if row.name == "B")
    assert anchor.bootstrap == pytest.approx((1114, 1114), abs=1e-9)
    assert all(row.bootstrap[0] < row.rating < row.bootstrap[1] for row in board.rows if row.name != "B")


@pytest.mark.parametrize(
    ("method", "kind"),
    [("newman", "newman"), ("win-rate", "average_win_rate"), ("elo", "elo"), ("bt", "bradley_terry")],
)
def test_llmfao_is_evalicas_golden_file(method, kind):
    found = by_name(rate(llmfao(), RateOptions(method=method, resamples=2)))
    if method == "bt":
        strengths = {name: 10 ** ((rating - 1000) / 400) for name, rating in found.items()}
        found = {name: each / sum(strengths.values()) for name, each in strengths.items()}
    assert found == pytest.approx(golden(kind), rel=1e-9)


# arena-rank 0.1.1, BradleyTerry(n, ftol=0, gtol=1e-13) on PairDataset.from_pandas(LLMFAO): rating, lower bound
ARENA_RANK = {
    False: {
        "GPT 4": (1172.1325564047802, 1117.7165582284204),
        "LLaMA-2-Chat (70B)": (1094.6353842166045, 1049.2204709275125),
        "Dolly v2 (3B)": (845.6589301807023, 814.5599012581663),
    },
    True: {
        "GPT 4": (1172.771374249604, 1118.2766119090395),
        "LLaMA-2-Chat (70B)": (1094.468907244095, 1048.9282349281366),
        "Dolly v2 (3B)": (845.5314793963779, 814.3790305325472),
    },
}


@pytest.mark.parametrize("reweighted", [False, True])
def test_llmfao_is_arena_ranks(reweighted):
    rows = {row.name: row for row in rate(llmfao(), RateOptions(reweighted=reweighted)).rows}
    for name, (rating, lower) in ARENA_RANK[reweighted].items():
        assert (rows[name].rating, rows[name].lower) == pytest.approx((rating, lower), abs=1e-5)


def _evalica(battles: Battles) -> tuple[list[str], list[str], list[evalica.Winner]]:
    winners = [evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw, evalica.Winner.Draw]
    names = battles.models
    return [names[k] for k in battles.a], [names[k] for k in battles.b], [winners[k] for k in battles.winner]


@pytest.mark.parametrize("seed", range(6))
def test_random_votes_are_evalicas(seed):
    rng = np.random.default_rng(seed)
    battles = drawn(rng, int(rng.integers(3, 12)), int(rng.integers(300, 900)))
    votes = _evalica(battles)
    few = RateOptions(resamples=2)
    elo = evalica.elo(*votes).scores.to_dict()
    assert by_name(rate(battles, few.with_(method="elo"))) == pytest.approx(elo, rel=1e-9)
    rates = evalica.average_win_rate(*votes).scores.to_dict()
    assert by_name(rate(battles, few.with_(method="win-rate"))) == pytest.approx(rates, rel=1e-9)
    newman = evalica.newman(*votes, tolerance=1e-13, limit=100_000).scores.to_dict()
    assert by_name(rate(battles, few.with_(method="newman"))) == pytest.approx(newman, rel=1e-8)
    strengths = evalica.bradley_terry(*votes, tolerance=1e-13, limit=100_000).scores
    logarithms = 400 * np.log10(strengths)
    bradley_terry = (1000 + logarithms - logarithms.mean()).to_dict()
    assert by_name(rate(battles)) == pytest.approx(bradley_terry, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(2, 9),
    st.integers(1, 300),
    st.sampled_from(["bt", "bt-ties", "newman", "win-rate"]),
)
def test_neither_order_nor_sides_change_a_board(seed, m, n, method):
    rng = np.random.default_rng(seed)
    battles = drawn(rng, m, n)
    options = RateOptions(method=method)
    board = rate(battles, options)
    mixed = battles.take(rng.permutation(n))
    turned = rng.random(n) < 0.5
    winner = np.where(turned & (mixed.winner < 2), 1 - mixed.winner, mixed.winner).astype(np.int8)
    a, b = np.where(turned, mixed.b, mixed.a), np.where(turned, mixed.a, mixed.b)
    again = rate(replace(mixed, a=a, b=b, winner=winner), options)
    assert again.warnings == board.warnings
    assert [row.votes for row in sorted(again.rows, key=lambda row: row.name)] == [
        row.votes for row in sorted(board.rows, key=lambda row: row.name)
    ]
    for row, same in zip(*(sorted(each.rows, key=lambda row: row.name) for each in (board, again)), strict=True):
        assert (row.rating, row.lower, row.upper) == pytest.approx((same.rating, same.lower, same.upper), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 9), st.integers(1, 300))
def test_counts_of_single_votes_are_counts_of_all(seed, m, n):
    battles = drawn(np.random.default_rng(seed), m, n)
    counts = Counts(battles.models, np.zeros((m, m, len(WINNERS)), np.int64))
    for a, b, winner in zip(battles.a, battles.b, battles.winner, strict=True):
        counts.add(a, b, winner)
    assert (counts.table == Counts.of(battles).table).all()
    assert rate_counts(counts) == rate(battles)


def test_an_anchor_only_shifts():
    battles = drawn(np.random.default_rng(1), 6, 500)
    free, fixed = rate(battles), rate(battles, RateOptions(anchors={"model 03": 800, "model 04": 1200}))
    shifts = {by_name(fixed)[name] - rating for name, rating in by_name(free).items()}
    assert max(shifts) - min(shifts) < 1e-9
    assert by_name(fixed)["model 03"] + by_name(fixed)["model 04"] == pytest.approx(2000)


def test_ranks_are_those_whose_intervals_lie_above():
    rows = rate(drawn(np.random.default_rng(2), 9, 2000)).rows
    assert [row.rank for row in rows] == [1 + sum(other.lower > row.upper for other in rows) for row in rows]
    assert len({row.rank for row in rows}) > 2


def test_a_bootstrap_is_its_seeds_and_as_wide_as_the_sandwich():
    battles = drawn(np.random.default_rng(3), 6, 4000)
    options = RateOptions(intervals="both", resamples=200)
    board = rate(battles, options)
    assert board == rate(battles, options)
    assert board != rate(battles, options.with_(seed=1))
    for row in board.rows:
        assert row.bootstrap[1] - row.bootstrap[0] == pytest.approx(row.upper - row.lower, rel=0.25)
    only = rate(battles, options.with_(intervals="bootstrap"))
    assert [(row.lower, row.upper) for row in only.rows] == [row.bootstrap for row in board.rows]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_says_intervals_around_its_ratings(method):
    for intervals in ("sandwich", "bootstrap", "both"):
        board = rate(drawn(np.random.default_rng(4), 5, 600), RateOptions(method=method, intervals=intervals))
        assert len(board.rows) == 5
        assert all(row.lower < row.rating < row.upper for row in board.rows)
        assert (board.rows[0].bootstrap is not None) == (intervals == "both" and method != "elo")


def test_a_rare_model_does_not_look_sure_among_very_many_votes(monkeypatch):
    """arena-rank's whole ridge, 1e-5 of all votes, would make its interval less than half of what it is."""
    rng = np.random.default_rng(9)
    rare = tallied([("A", "new", 20, 10, 20), ("B", "new", 20, 10, 20)])
    table = Counts.of(rare).table
    table[:2, :2] += Counts.of(drawn(rng, 2, 4_000_000)).table

    def half() -> float:
        board = rate_counts(Counts(rare.models, table))
        return next(row.upper - row.rating for row in board.rows if row.name == "new")

    ours = half()
    monkeypatch.setattr(fit, "_RIDGE_SHARE", 0.0)
    exact = half()
    monkeypatch.setattr(fit, "_RIDGE_SHARE", np.inf)
    assert ours == pytest.approx(exact, rel=0.03)
    assert half() < exact / 2


def test_elo_goes_by_time():
    battles = drawn(np.random.default_rng(5), 4, 300)
    late_first = battles.take(np.arange(300)[::-1])
    options = RateOptions(method="elo", resamples=2)
    assert by_name(rate(late_first, options)) == by_name(rate(battles, options))
    unsaid = rate(replace(late_first, time=np.full(300, np.nan)), options)
    assert by_name(unsaid) != by_name(rate(battles, options))
    assert any("do not say their time" in sentence for sentence in unsaid.warnings)


def test_elos_resamples_are_votes_one_by_one():
    """Each drawn as often as it was: from the same weights, the ratings of a plain loop."""
    battles = drawn(np.random.default_rng(6), 7, 200)

    class Ones:
        def poisson(self, _mean: float, size: tuple[int, ...]) -> np.ndarray:
            return np.ones(size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, "default_rng", lambda seed: Ones())
        same = elo_resampled(battles, 4.0, 3, 0)
    assert same == pytest.approx(np.tile(elo(battles, 4.0), (3, 1)), rel=1e-12)
    spread = elo_resampled(battles, 4.0, 200, 0)
    assert spread.mean(axis=0) == pytest.approx(elo(battles, 4.0), abs=4)
    assert (spread.std(axis=0) > 3).all()


def warned(board: Board, words: str) -> bool:
    return any(words in sentence for sentence in board.warnings)


def test_parts_that_never_met_are_named():
    board = rate(tallied([("A", "B", 3, 1, 2), ("C", "D", 1, 0, 1)]), RateOptions(min_votes=0))
    assert warned(board, "2 parts that never met, whose ratings cannot be compared: A, B; C, D")
    assert all(np.isfinite([row.rating, row.lower, row.upper]).all() for row in board.rows)


def test_models_that_only_win_or_lose_are_named_and_finite():
    board = rate(tallied([("A", "B", 3, 0, 0), ("B", "C", 2, 1, 2), ("D", "B", 0, 0, 4)]))
    assert warned(board, "only won: A")
    assert warned(board, "only lost: D")
    assert warned(board, "fewer than 30 votes")
    assert board.rows[0].name == "A"
    assert np.isfinite([row.upper for row in board.rows]).all()


def test_groups_that_only_won_against_each_other_are_named():
    board = rate(tallied([("A", "B", 3, 0, 2), ("C", "D", 2, 0, 2), ("A", "C", 4, 0, 0)]))
    assert warned(board, "2 groups that only won or only lost against each other")


def test_a_battle_with_itself_says_nothing():
    board = rate(tallied([*TIES, ("A", "A", 2, 1, 0)]))
    assert by_name(board) == pytest.approx(by_name(rate(tallied(TIES))))
    assert board.n_votes == 30
    assert warned(board, "3 battles of a model with itself")


def test_mistakes_are_named():
    votes = tallied(TIES)
    for options, words in (
        (RateOptions(method="btt"), "method: 'btt': no such method; did you mean 'bt'"),
        (RateOptions(anchors={"Q": 1.0}), "anchors: 'Q' is not in the log"),
        (RateOptions(method="win-rate", anchors={"A": 1.0}), "not on Elo's scale"),
        (RateOptions(method="elo", style=True), "style: elo has no use for it; choose bt"),
        (RateOptions(category="maths"), "did you mean 'math'"),
        (RateOptions(category="english"), "does not say the language"),
    ):
        with pytest.raises(OptionError, match=words.replace("?", r"\?")):
            rate(votes, options)
    with pytest.raises(OptionError, match="no vote between two models"):
        rate(Battles.of([], [], []))
    with pytest.raises(OptionError, match="not only their counts"):
        rate_counts(Counts.of(votes), RateOptions(method="elo"))

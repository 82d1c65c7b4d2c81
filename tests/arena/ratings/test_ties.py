"""Models of ties against R's psychotools and an optimiser, and their derivatives against differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.arena.ratings import Counts, RateOptions, rate
from camelid.arena.ratings.counts import Pairs
from camelid.arena.ratings.fit import curvature_inverse, likeliest
from camelid.arena.ratings.links import LINKS
from camelid.arena.ratings.scale import POINTS
from tests.arena.ratings.votes import TIES, drawn, llmfao, tallied

# R 4.2.2: m <- cbind(ab=c(rep(1,6),rep(0,2),rep(-1,2)), ac=c(rep(1,7),0,-1,-1), bc=c(rep(1,5),0,0,rep(-1,3)));
# f <- psychotools::btmodel(paircomp(m, labels=c("A","B","C")), type="loglin", undecided=TRUE, ref=1, epsilon=1e-14,
# maxit=100); f$coefficients; sqrt(diag(f$vcov)). Its ties weigh e^u: the same as e^t.
PSYCHOTOOLS = [-0.9840352054, -1.4292884467, -0.7930493761], [0.63272540, 0.66473573, 0.50109996]
# R: optim(BFGS, reltol=1e-16) of Rao and Kupper's likelihood written out, and sqrt(diag(solve(optimHess(…))))
RAO_KUPPER = [-0.827710725, -1.222850003, 0.400231324], [0.51681775, 0.54794304, 0.16749550]


@pytest.mark.parametrize(("name", "expected"), [("davidson", PSYCHOTOOLS), ("rao-kupper", RAO_KUPPER)])
def test_strengths_ties_and_standard_errors_are_rs(name, expected):
    pairs = Pairs.of(Counts.of(tallied(TIES)))
    at, imagined = likeliest(LINKS[name], pairs)
    assert imagined == 0
    against_a = np.eye(4)
    against_a[:3, 0] -= 1
    covariance = against_a @ curvature_inverse(LINKS[name], pairs, at) @ against_a.T
    assert (against_a @ at)[1:] == pytest.approx(expected[0], rel=2e-7)
    assert np.sqrt(covariance.diagonal())[1:] == pytest.approx(expected[1], rel=2e-7)


def test_a_board_of_ties_is_on_elos_scale():
    board = rate(tallied(TIES), RateOptions(method="bt-ties", intervals="model", anchors={"A": 0}))
    assert [row.rating for row in board.rows] == pytest.approx([0, *(POINTS * x for x in PSYCHOTOOLS[0][:2])], abs=1e-6)
    half = [row.upper - row.rating for row in board.rows]
    assert half == pytest.approx([0, *(1.959964 * POINTS * x for x in PSYCHOTOOLS[1][:2])], rel=1e-6, abs=1e-9)
    (ties,) = board.coefficients
    assert (ties.name, ties.value) == ("ties", pytest.approx(PSYCHOTOOLS[0][2]))
    assert ties.upper - ties.value == pytest.approx(1.959964 * PSYCHOTOOLS[1][2], rel=1e-6)


@given(st.sampled_from(sorted(LINKS)), st.floats(-6, 6), st.floats(0.05, 4))
def test_slopes_are_those_of_the_likelihood(name, d, t):
    link, h = LINKS[name], 1e-5
    at = np.array([d])
    slopes = link.slopes(at, t)
    by_d = (link.log_likelihood(at + h, t) - link.log_likelihood(at - h, t)) / (2 * h)
    by_t = (link.log_likelihood(at, t + h) - link.log_likelihood(at, t - h)) / (2 * h)
    assert slopes.d == pytest.approx(by_d, abs=1e-6)
    assert slopes.t == pytest.approx(by_t, abs=1e-5)
    further, nearer = link.slopes(at + h, t), link.slopes(at - h, t)
    assert slopes.dd == pytest.approx(-(further.d - nearer.d) / (2 * h), abs=1e-5)
    assert slopes.dt == pytest.approx(-(further.t - nearer.t) / (2 * h), abs=1e-5)
    assert slopes.tt == pytest.approx(
        -(link.slopes(at, t + h).t - link.slopes(at, t - h).t) / (2 * h), rel=1e-4, abs=1e-5
    )
    if link.has_ties:
        assert np.exp(link.log_likelihood(at, t)).sum() == pytest.approx(1)


@pytest.mark.parametrize("ties", ["davidson", "rao-kupper"])
def test_without_ties_it_is_bradley_terry(ties):
    battles = drawn(np.random.default_rng(0), 5, 400, tie=0.0)
    plain, with_ties = (rate(battles, RateOptions(method=name, ties=ties)) for name in ("bt", "bt-ties"))
    assert with_ties.rows == plain.rows
    assert with_ties.coefficients == ()


@pytest.mark.parametrize("ties", ["davidson", "rao-kupper"])
def test_strengths_that_nothing_bounds_stay_finite(ties):
    """A and B, B and C only tied, C only beat A: the more ties and the further apart A and C, the likelier."""
    board = rate(
        tallied([("A", "B", 0, 5, 0), ("B", "C", 0, 5, 0), ("C", "A", 5, 0, 0)]),
        RateOptions(method="bt-ties", ties=ties),
    )
    assert any("one tie of each model with an average one was imagined" in sentence for sentence in board.warnings)
    assert [row.name for row in board.rows] == ["C", "B", "A"]
    assert all(np.isfinite([row.rating, row.lower, row.upper]).all() for row in board.rows)


def test_davidson_on_llmfao_is_newman_on_elos_scale():
    ties, newman = (rate(llmfao(), RateOptions(method=name)) for name in ("bt-ties", "newman"))
    assert [row.name for row in ties.rows] == [row.name for row in newman.rows]
    gaps = [row.rating - 400 * np.log10(same.rating) for row, same in zip(ties.rows, newman.rows, strict=True)]
    assert max(gaps) - min(gaps) < 1e-9

"""Agreement with people: shares with Wilson's interval, and calibration, against SciPy and plain counting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from camelid.evals.agreement import Judged, agreement, wilson


@pytest.mark.parametrize(("right", "n"), [(0, 3), (7, 10), (60, 312), (5, 5), (1, 2)])
def test_wilson_is_scipys(right, n):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx((expected.low, expected.high))


def test_counts():
    pairs = [
        Judged("better", 2.0, 0.0),
        Judged("better", 0.0, 1.0),
        Judged(None, 1.0, 1.0),
        Judged("slightly better", 5, 1),
    ]
    found = agreement(pairs, {"both answers are the same": 2})
    assert (found.overall.n, found.overall.share, found.ties) == (4, 0.5, 1)
    assert {grade: (own.n, own.share) for grade, own in found.grades.items()} == {
        "better": (2, 0.5),
        "slightly better": (1, 1.0),
    }
    told = found.as_json()
    assert (told["n"], told["accuracy"], told["left_out"]) == (4, 0.5, {"both answers are the same": 2})


def test_a_model_that_knows_how_sure_it_may_be_is_calibrated():
    draw = np.random.default_rng(0)
    gaps = draw.normal(0, 2, 20000)
    agrees = draw.random(20000) < 1 / (1 + np.exp(-abs(gaps)))
    honest = agreement(
        [Judged(None, *((abs(g), 0.0) if a else (0.0, abs(g)))) for g, a in zip(gaps, agrees, strict=True)]
    )
    assert honest.calibration_error < 0.02
    boastful = agreement([Judged(None, 9.0, 0.0), Judged(None, 0.0, 9.0)])
    assert boastful.calibration_error == pytest.approx(1 / (1 + math.exp(-9)) - 0.5)
    assert [each.n for each in boastful.bins] == [2]
    assert agreement([Judged(None, 1e4, -1e4)]).bins[0].sureness == 1

"""Plots as geometry: what a template needs to draw them as SVG without a script, and the same figures as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from camelid.arena.board.boards import Shown
from camelid.arena.board.pairs import Floats, Table, mean_win_rate, met, share_of_wins
from camelid.arena.ratings import Counts, RateOptions, rate_counts
from camelid.errors import CamelidError
from camelid.serve.pages.run_curves import nice

TOP = 25  # models of a plot, as the deck's board has them
WIDTH, LEFT, RIGHT, ROW = 720, 200, 24, 22
CELL, NAMES, ABOVE, ASIDE = 34, 190, 150, 90  # ASIDE: for slanted names
MOMENTS = 24  # of the plot of ratings over time
LINES = 8  # models in it
HEIGHT, SIDE, FOOT = 320, 52, 28

Tick = tuple[float, str]


@dataclass(frozen=True)
class Bar:
    """A model in a plot of bars or intervals.

    Attributes:
        y: middle of its row; x, low, high: places across.
        text: its figure, and of intervals the ends.
    """

    name: str
    y: float
    x: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Bars:
    """Models below each other, on one scale."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    height: float
    zero: float | None


@dataclass(frozen=True)
class Cell:
    """A pair in a heat map.

    Attributes:
        strength: 0 to 1, how strong its colour is; `side`: `more` above the middle, else `less`.
        text: its figure; empty where the two have not met.
    """

    x: float
    y: float
    row: str
    column: str
    strength: float
    side: str
    text: str


@dataclass(frozen=True)
class Heat:
    """Models against models."""

    names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    width: float
    height: float


@dataclass(frozen=True)
class Curve:
    """A model over time; `points`: a path in SVG's words; `values`: a text for each moment, empty before its first."""

    name: str
    points: str
    end: tuple[float, float]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Curves:
    """Ratings over time."""

    curves: tuple[Curve, ...]
    moments: tuple[str, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def intervals(shown: Shown) -> Bars:
    """Ratings with their intervals, best first."""
    rows = shown.board.rows[:TOP]
    ends = [end for row in rows for end in (row.lower, row.rating, row.upper) if math.isfinite(end)]
    scale, ticks = _across(min(ends, default=0.0), max(ends, default=1.0))
    low, high = ticks[0][0], ticks[-1][0]
    bars = tuple(
        Bar(
            row.name,
            _middle(at),
            scale(row.rating),
            scale(row.lower) if math.isfinite(row.lower) else low,
            scale(row.upper) if math.isfinite(row.upper) else high,
            f"{row.rating:.0f} ({row.lower:.0f} to {row.upper:.0f})",
        )
        for at, row in enumerate(rows)
    )
    return Bars(bars, ticks, len(bars) * ROW + 30, None)


def win_rates(shown: Shown) -> Bars:
    """Mean share of wins against each other model alike, ties aside; the highest first."""
    rates = mean_win_rate(shown.table)
    known = [(float(rate), name) for name, rate in zip(shown.models, rates, strict=True) if not np.isnan(rate)]
    known = sorted(known, key=lambda each: (-each[0], each[1]))[:TOP]
    scale, ticks = _across(0.0, 1.0, lambda value: f"{value:.0%}")
    bars = tuple(
        Bar(name, _middle(at), scale(rate), scale(0.0), scale(rate), f"{rate:.1%}")
        for at, (rate, name) in enumerate(known)
    )
    return Bars(bars, ticks, len(bars) * ROW + 30, scale(0.0))


def wins_map(shown: Shown) -> Heat:
    """Of the battles that were no tie, the share that the row's model won; in the order of the board."""
    share = share_of_wins(shown.table)

    def cell(i: int, j: int) -> tuple[float, str, str]:
        value = float(share[i, j])
        return (0.0, "more", "") if math.isnan(value) else (abs(2 * value - 1), _side(value), f"{value:.2f}")

    return _heat(shown, cell)


def counts_map(shown: Shown) -> Heat:
    """Battles of each pair, ties and all."""
    n = met(shown.table)
    most = max(1, int(n.max(initial=1)))

    def cell(i: int, j: int) -> tuple[float, str, str]:
        count = int(n[i, j])
        return (math.sqrt(count / most), "more", brief(count)) if count else (0.0, "more", "")

    return _heat(shown, cell)


def over_time(shown: Shown, options: RateOptions) -> Curves | None:
    """Ratings from the votes up to each moment, of the models that lead now; None if votes have no times.

    Each moment's board is made anew of all votes until then, as they count today.
    """
    battles = shown.votes.battles
    timed = np.flatnonzero(~np.isnan(battles.time))
    if len(timed) < 2 or battles.time[timed].min() == battles.time[timed].max():
        return None
    first, last = float(battles.time[timed].min()), float(battles.time[timed].max())
    moments = np.linspace(first, last, MOMENTS + 1)[1:]
    part = np.searchsorted(moments, battles.time[timed], side="left").clip(0, MOMENTS - 1)
    leading = [row.name for row in shown.board.rows[:LINES]]
    table: Table = np.zeros_like(shown.table)
    found: list[dict[str, float]] = []
    for number in range(MOMENTS):
        table = table + Counts.of(battles.take(timed[part == number])).table
        found.append(_ratings(Counts(shown.models, table), options))
    return _curves(leading, found, moments)


def _ratings(counts: Counts, options: RateOptions) -> dict[str, float]:
    try:
        return {row.name: row.rating for row in rate_counts(counts, options).rows if math.isfinite(row.rating)}
    except CamelidError:
        return {}


def _curves(names: Sequence[str], found: Sequence[dict[str, float]], moments: Floats) -> Curves | None:
    values = [each[name] for each in found for name in names if name in each]
    if not values:
        return None
    bottom, top, y_ticks = nice(min(values), max(values))

    def place(at: int, value: float) -> tuple[float, float]:
        x = SIDE + (WIDTH - SIDE - LEFT) * at / (MOMENTS - 1)
        return round(x, 1), round(HEIGHT - FOOT - (value - bottom) / (top - bottom) * (HEIGHT - FOOT - 12), 1)

    curves = []
    for name in names:
        points = [place(at, each[name]) for at, each in enumerate(found) if name in each]
        if points:
            path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
            texts = tuple(f"{each[name]:.0f}" if name in each else "" for each in found)
            curves.append(Curve(name, path, points[-1], texts))
    days = [f"{datetime.fromtimestamp(float(moment), UTC):%Y-%m-%d %H:%M}" for moment in moments]
    x_ticks = tuple((place(at, bottom)[0], days[at].partition(" ")[0]) for at in (0, MOMENTS // 2, MOMENTS - 1))
    return Curves(_apart(curves), tuple(days), x_ticks, tuple((place(0, tick)[1], f"{tick:g}") for tick in y_ticks))


def _apart(curves: Sequence[Curve]) -> tuple[Curve, ...]:
    """Names at the right, moved down where they would lie over each other."""
    placed, y = [], -math.inf
    for curve in sorted(curves, key=lambda each: each.end[1]):
        y = max(curve.end[1], y + 15)
        placed.append(Curve(curve.name, curve.points, (curve.end[0], y), curve.values))
    return tuple(placed)


def _across(
    low: float, high: float, words: Callable[[float], str] = "{:g}".format
) -> tuple[Callable[[float], float], tuple[Tick, ...]]:
    bottom, top, values = nice(low, high, 5)

    def scale(value: float) -> float:
        return round(LEFT + (value - bottom) / (top - bottom) * (WIDTH - LEFT - RIGHT), 1)

    return scale, tuple((scale(value), words(round(value, 9))) for value in values)


def _middle(at: int) -> float:
    return 14 + at * ROW


def _side(share: float) -> str:
    return "more" if share >= 0.5 else "less"


def brief(count: int) -> str:
    """A count in at most four characters: `1234` is `1.2k`."""
    if count < 1000:
        return str(count)
    thousands = count / 1000
    return (
        f"{thousands:.1f}k" if thousands < 9.95 else f"{thousands:.0f}k" if thousands < 999.5 else f"{count / 1e6:.1f}M"
    )


def _heat(shown: Shown, cell: Callable[[int, int], tuple[float, str, str]]) -> Heat:
    number = {name: at for at, name in enumerate(shown.models)}
    names = tuple(row.name for row in shown.board.rows if row.name in number)[:TOP]
    rows = []
    for down, row in enumerate(names):
        cells = []
        for across, column in enumerate(names):
            strength, side, text = cell(number[row], number[column]) if row != column else (0.0, "more", "")
            cells.append(Cell(NAMES + across * CELL, ABOVE + down * CELL, row, column, round(strength, 2), side, text))
        rows.append(tuple(cells))
    size = len(names) * CELL
    return Heat(names, tuple(rows), NAMES + size + ASIDE, ABOVE + size + 2)

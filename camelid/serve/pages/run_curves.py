"""Curves of runs as geometry: what a template needs to draw a panel as SVG, without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from camelid.train.report.curves import AGAINST, BEST_OF, Against, best_of, curve_of, smoothed, title_of
from camelid.train.report.metrics import Metrics
from camelid.train.report.units import count, duration

WIDTH, HEIGHT = 440, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 26
_MOST_POINTS = 400  # of a line; beyond them, the lowest and the highest of neighbours

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One run in one panel.

    Attributes:
        number: of the run among those shown; its colour.
        raw, strong: paths in SVG's words, empty if there is nothing; the values, and their means.
        dots: single values, (x, y) in the picture.
        level: height of a line that goes through; None for none.
    """

    number: int
    raw: str
    strong: str
    dots: Points
    level: float | None


@dataclass(frozen=True)
class Panel:
    """One metric of all runs shown.

    Attributes:
        x_ticks, y_ticks: (place in the picture, label).
        summary: the panel in words, for those who do not see it.
        help: what is drawn beside the line, in words.
        range: x left, x right, y bottom, y top, so that a script can tell values from places.
    """

    name: str
    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    summary: str
    help: str
    range: tuple[float, float, float, float]


def panel(name: str, runs: Sequence[tuple[str, Metrics]], against: Against) -> Panel | None:
    """The panel of one metric against `step`, `tokens` or `time`; None if no run has a value yet."""
    if name == BEST_OF:
        return _best_of(runs)
    curve, column = curve_of(name), AGAINST[against]
    drawn = [_points(run, name, column, curve.scale) for _, run in runs]
    marks = [_points(run, f"validation_{name}", column, curve.scale) for _, run in runs]
    levels = [run.about("unigram_entropy") if name == "loss" else None for _, run in runs]
    if not any(drawn):
        return None
    ys = [y for points in (*drawn, *marks) for _, y in points] + [level for level in levels if level is not None]
    xs = [x for points in drawn for x, _ in points]
    bottom, top, y_ticks = nice(0.0 if curve.from_zero else min(ys), max(ys))
    left = min(xs)
    right = max(max(xs), left + 1e-9 * max(1.0, abs(left)))  # wider than nothing, however large they are
    scales = _Scales(left, right, bottom, top)
    lines = []
    for number, (points, dots, level) in enumerate(zip(drawn, marks, levels, strict=True)):
        means = smoothed([y for _, y in points], max(1, len(points) // 50)) if curve.smoothed else []
        strong = list(zip((x for x, _ in points), means, strict=True)) if means else points
        path = scales.path(thinned(points)) if curve.smoothed else ""
        height = None if level is None else scales.y(level)
        lines.append(Line(number, path, scales.path(thinned(strong)), [scales(*dot) for dot in dots], height))
    help = ["Circles: validation."] if name == "loss" or any(marks) else []
    if any(level is not None for level in levels):
        help += ["Broken line: unigram entropy, the loss of a model that knows how frequent each token is."]
    title = title_of(name, [run for _, run in runs])
    return Panel(
        name=name,
        title=title,
        lines=lines,
        x_ticks=[(scales.x(x), _label(x, against)) for x in nice(left, right, 4)[2] if left <= x <= right],
        y_ticks=[(scales.y(y), _short(y)) for y in y_ticks],
        summary=_summary(title, runs, drawn),
        help=" ".join(help),
        range=(left, right, bottom, top),
    )


def _best_of(runs: Sequence[tuple[str, Metrics]]) -> Panel | None:
    """The expected highest reward of K answers against K, and, pale, their median."""
    found = [best_of(run) for _, run in runs]
    if not any(found):
        return None
    highest = [[(point["k"], point["max"]) for point in points] for points in found]
    middle = [[(point["k"], point["median"]) for point in points] for points in found]
    ys = [y for points in (*highest, *middle) for _, y in points]
    left, right = 1.0, max(1.001, *(x for points in highest for x, _ in points))
    bottom, top, y_ticks = nice(min(ys), max(ys))
    scales = _Scales(left, right, bottom, top)
    ticks = [x for x in nice(left, right, 4)[2] if left <= x <= right and x == int(x)]
    title = "reward of the best of K answers, against K"
    return Panel(
        name=BEST_OF,
        title=title,
        lines=[
            Line(number, scales.path(low), scales.path(high), [], None)
            for number, (high, low) in enumerate(zip(highest, middle, strict=True))
        ],
        x_ticks=[(scales.x(x), f"{x:,.0f}") for x in ticks],
        y_ticks=[(scales.y(y), _short(y)) for y in y_ticks],
        summary=_summary(title, runs, highest),
        help="Strong: the highest of K, expected over all choices of K; pale: their median.",
        range=(left, right, bottom, top),
    )


def nice(low: float, high: float, parts: int = 4) -> tuple[float, float, list[float]]:
    """Round numbers around a range: the lowest and the highest of them, and about `parts` + 1 in all."""
    width = max(high - low, 1e-9 * max(abs(low), abs(high)), 1e-12)
    power = 10.0 ** math.floor(math.log10(width / parts))
    step = next(power * size for size in (1, 2, 2.5, 5, 10) if width / (power * size) <= parts)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = [number * step for number in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def thinned(points: Points, most: int = _MOST_POINTS) -> Points:
    """At most `most` points that look the same: of neighbours the lowest and the highest, in their order."""
    if len(points) <= most:
        return points
    parts, extremes = most // 2, []
    for part in range(parts):
        near = points[len(points) * part // parts : len(points) * (part + 1) // parts]
        low, high = min(near, key=lambda point: point[1]), max(near, key=lambda point: point[1])
        extremes += [low, high] if low[0] < high[0] else [high, low]
    return extremes


class _Scales:
    """From values to places in the picture."""

    def __init__(self, left: float, right: float, bottom: float, top: float) -> None:
        self._left, self._bottom = left, bottom
        self._across = (WIDTH - LEFT - RIGHT) / (right - left)
        self._up = (HEIGHT - TOP - BOTTOM) / (top - bottom)

    def x(self, value: float) -> float:
        return round(LEFT + (value - self._left) * self._across, 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - self._bottom) * self._up, 1)

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        return self.x(x), self.y(y)

    def path(self, points: Points) -> str:
        return "M" + "L".join(f"{self.x(x):g} {self.y(y):g}" for x, y in points) if points else ""


def _points(run: Metrics, name: str, against: str, scale: float) -> Points:
    if name not in run.columns or against not in run.columns:
        return []
    xs, ys = run.points(name, against)
    return [(x, y * scale) for x, y in zip(xs, ys, strict=True)]


def _label(x: float, against: str) -> str:
    if against == "time":
        return duration(x)
    return count(x) if against == "tokens" else f"{x:,.0f}"


def _short(value: float) -> str:
    return f"{round(value, 12):g}" if abs(value) < 10_000 else count(value)


def _summary(title: str, runs: Sequence[tuple[str, Metrics]], drawn: list[Points]) -> str:
    changes = [
        f"{name} from {points[0][1]:.4g} to {points[-1][1]:.4g}"
        for (name, _), points in zip(runs, drawn, strict=True)
        if points
    ]
    return f"{title}: {'; '.join(changes)}"

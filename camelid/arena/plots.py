"""A board's plots as pictures, those of Chatbot Arena's notebook, drawn by matplotlib, which only this file needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camelid.arena.board.pairs import Floats, Table, mean_win_rate, met, share_of_wins
from camelid.arena.ratings import Board, Counts
from camelid.errors import MissingError, OptionError, one_of
from camelid.train.report.plot import KINDS, STYLE, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from camelid.arena.battles import Battles

MOST_MODELS = 25  # of a picture
_COLOUR = "#0f5c63"
_UNIT = {"win-rate": "mean share of wins, a tie half", "newman": "strength"}  # others: rating


def plot_battles(battles: Battles, board: Board, out: Path, kind: str = "png", models: int = MOST_MODELS) -> list[Path]:
    """Draw each of `PLOTS` for the best models of a board, best first.

    Args:
        battles: the votes that the board was made of.
        out: a folder, made if it is not there; pictures in it are replaced.
        kind: png, svg or pdf.
        models: most of a picture.

    Raises:
        OptionError: no such kind; fewer than one model.
        MissingError: matplotlib is not installed.
        ResourceError: the place cannot be written.
    """
    if f".{kind}" not in KINDS:
        raise OptionError(f"kind: no {kind!r}; {one_of(kind, [each[1:] for each in KINDS])}", param="kind")
    if models < 1:
        raise OptionError(f"models: at least 1, got {models}", param="models")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingError("plots need matplotlib: pip install 'camelid[plots]'") from None
    table = ordered(Counts.of(battles), board)
    paths = []
    for name, draw in PLOTS.items():
        with mpl.rc_context({**STYLE, "axes.grid": False}):
            figure = Figure(layout="constrained")
            draw(figure, board, table, models)
            paths.append(write_figure(figure, out / f"{name}.{kind}"))
    return paths


def ordered(counts: Counts, board: Board) -> Table:
    """(M, M, 4): the votes, with models in the board's order."""
    place = {name: number for number, name in enumerate(counts.models)}
    rows = [place[row.name] for row in board.rows]
    found: Table = counts.table[np.ix_(rows, rows)]
    return found


def _intervals(figure: Figure, board: Board, table: Table, models: int) -> None:
    rows = board.rows[:models]
    axes = _across(figure, [row.name for row in rows])
    y, x = np.arange(len(rows)), np.array([row.rating for row in rows])
    sides = np.array([[row.rating - row.lower, row.upper - row.rating] for row in rows]).T
    axes.errorbar(x, y, xerr=np.maximum(sides, 0), fmt="o", color=_COLOUR, markersize=4, linewidth=1.4, capsize=3)
    axes.set_xlabel(_UNIT.get(board.method, "rating"))
    axes.set_title("Ratings and their intervals")
    axes.grid(axis="x")


def _win_rate(figure: Figure, board: Board, table: Table, models: int) -> None:
    rates = mean_win_rate(table)  # against all models, drawn or not
    best = [k for k in np.argsort(-rates, kind="stable") if not np.isnan(rates[k])][:models]
    axes = _across(figure, [board.rows[k].name for k in best])
    bars = axes.barh(np.arange(len(best)), rates[best], color=_COLOUR, height=0.7)
    axes.bar_label(bars, [f"{rates[k]:.2f}" for k in best], padding=3, fontsize=8.5)
    axes.set_xlim(0, 1.08)
    axes.set_xlabel("mean share of wins against each other model alike, ties aside")
    axes.set_title("Average win rate")


def _wins(figure: Figure, board: Board, table: Table, models: int) -> None:
    share = share_of_wins(table)[:models, :models]
    _matrix(figure, board, share, lambda value: f"{value:.2f}", cmap="RdBu", vmin=0, vmax=1)
    figure.axes[0].set_title("Share of A's wins among battles of A and B that were no tie")


def _counts(figure: Figure, board: Board, table: Table, models: int) -> None:
    counts = met(table)[:models, :models].astype(np.float64)
    np.fill_diagonal(counts, np.nan)
    most = max(1.0, np.nanmax(counts, initial=1.0))
    _matrix(figure, board, counts, lambda value: f"{value:,.0f}", cmap="Blues", vmin=0, vmax=most)
    figure.axes[0].set_title("Battles of each pair, ties included")


PLOTS: dict[str, Callable[[Figure, Board, Table, int], None]] = {
    "intervals": _intervals,
    "wins": _wins,
    "counts": _counts,
    "win-rate": _win_rate,
}


def _across(figure: Figure, names: list[str]) -> Axes:
    """Axes with a row for each model, the first on top."""
    figure.set_size_inches(7.5, 1.2 + 0.28 * len(names))
    axes: Axes = figure.add_subplot()
    axes.set_yticks(np.arange(len(names)), [_plain(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    return axes


def _matrix(figure: Figure, board: Board, values: Floats, text: Callable[[float], str], **colours: Any) -> None:
    """Rows: model A; columns: model B; each cell with its figure, if there is one."""
    names = [_plain(row.name) for row in board.rows[: len(values)]]
    size = 3.2 + 0.42 * len(names)
    figure.set_size_inches(size + 0.8, size)
    axes = figure.add_subplot()
    image = axes.imshow(np.ma.masked_invalid(values), **colours)
    axes.set_facecolor("#ecebe7")  # of pairs without a figure
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("model B")
    axes.set_ylabel("model A")
    figure.colorbar(image, shrink=0.7)
    shades = image.to_rgba(values)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            red, green, blue, _ = shades[row, column]
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axes.text(column, row, text(value), ha="center", va="center", fontsize=7, color="w" if dark else "k")


def _plain(name: str) -> str:
    return name.replace("$", r"\$")  # matplotlib's sign of a formula

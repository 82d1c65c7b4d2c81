"""How sure a reward model is, against how often it is right: a picture of what `camelid reward --file --json` says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camelid.evals.agreement import wilson


def draw(found: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """A reliability diagram (Guo et al. 2017, arXiv:1706.04599): a point for each bin of σ(difference), with Wilson's
    95 % interval; a model that knows itself is on the diagonal.

    Args:
        found: name → what was found, with `bins` and `calibration_error`.
        out: the picture; its ending says which kind.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0.5, 1], [0.5, 1], color="#8b8a84", linestyle="--", linewidth=1)
    for number, (name, each) in enumerate(found.items()):
        bins = each["bins"]
        xs, ys = [row["sureness"] for row in bins], [row["share"] for row in bins]
        ends = [wilson(round(row["share"] * row["n"]), row["n"]) for row in bins]
        errors = [[max(0.0, y - low) for y, (low, _) in zip(ys, ends, strict=True)]]
        errors += [[max(0.0, high - y) for y, (_, high) in zip(ys, ends, strict=True)]]
        label = f"{name}, calibration error {100 * each['calibration_error']:.1f} %"
        shifted = [x + 0.002 * number for x in xs]  # bars of two models stay apart
        axes.errorbar(shifted, ys, yerr=errors, marker="o", markersize=4, linewidth=1.4, capsize=2, label=label)
        for x, y, row in zip(shifted, ys, bins, strict=True):
            axes.annotate(str(row["n"]), (x, y), textcoords="offset points", xytext=(5, -9), fontsize=7)
    axes.set_xlabel("σ(difference of rewards): how sure the model is")
    axes.set_ylabel("how often people agree with it")
    axes.set_xlim(0.49, 1.01)
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=8, loc="upper left", frameon=False)
    figure.savefig(out, dpi=160)

"""What makes a board say less than it seems to: said in sentences, not hidden."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from camelid.arena.battles import Battles
from camelid.arena.ratings.counts import Counts
from camelid.arena.ratings.graph import parts
from camelid.arena.ratings.options import RateOptions
from camelid.errors import first_few


def warnings(counts: Counts, rated: Counts, battles: Battles | None, options: RateOptions, imagined: bool) -> list[str]:
    """Sentences about a board of the models `rated` among those counted; `imagined`: ties were."""
    said = list(_graph(rated))
    if imagined:
        said.append("no ratings are the likeliest: one tie of each model with an average one was imagined")
    if few := [name for name, n in zip(rated.models, rated.votes, strict=True) if n < options.min_votes]:
        said.append(f"fewer than {options.min_votes} votes: {first_few(few)}; their intervals are rough")
    if itself := counts.n_with_itself:
        said.append(f"{itself} battles of a model with itself say nothing and were not rated")
    if missing := [name for name in options.anchors if name not in rated.models]:
        left = "the mean of all models is 1000" if len(missing) == len(options.anchors) else "the others hold"
        said.append(f"anchors without votes here: {first_few(missing)}; {left}")
    if options.method == "elo" and battles is not None and (unsaid := int(np.isnan(battles.time).sum())):
        said.append(f"{unsaid} votes do not say their time: Elo took all in the log's order")
    return said


def _graph(rated: Counts) -> Iterator[str]:
    met = (rated.wins + rated.wins.T + rated.ties) > 0
    np.fill_diagonal(met, False)
    groups = parts(met)
    if len(groups) > 1:
        shown = "; ".join(first_few([rated.models[k] for k in group]) for group in groups[:4])
        more = f"; and {len(groups) - 4} more" if len(groups) > 4 else ""
        yield f"models fall into {len(groups)} parts that never met, whose ratings cannot be compared: {shown}{more}"
    beaten = (rated.wins + rated.ties) > 0
    np.fill_diagonal(beaten, False)
    won, lost = beaten.any(axis=1), beaten.any(axis=0)
    for alone, what in ((~lost, "only won"), (~won, "only lost")):
        if names := [rated.models[k] for k in np.flatnonzero(alone)]:
            yield f"{what}: {first_few(names)}"
    usual = int((won & lost).sum())
    kept = np.flatnonzero(won & lost)
    if usual and len(groups) == 1 and len(cut := parts(beaten[np.ix_(kept, kept)], one_way=True)) > 1:
        small = [rated.models[kept[k]] for k in cut[-1]]
        yield f"models fall into {len(cut)} groups that only won or only lost against each other: {first_few(small)}"

"""Votes as the pages list them: which ones, and what of each is shown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import Battles
from camelid.arena.board.boards import mask_of
from camelid.errors import NotFoundError
from camelid.serve.addresses import link

OUTCOMES = ("", "a", "b", "tie", "bad")
"""Of votes on a pair: all; the first better; the second better; tie; both bad."""


def found(battles: Battles, model_a: str, model_b: str, outcome: str, category: str) -> NDArray[np.intp]:
    """Places of votes, the last first. `outcome` is said of model_a against model_b.

    Raises:
        NotFoundError: no votes are on such a model.
    """
    number = {name: at for at, name in enumerate(battles.models)}
    for name in (model_a, model_b):
        if name and name not in number:
            raise NotFoundError(f"There is no vote on a model {name}.")
    wanted = mask_of(battles, category)
    chosen = np.ones(len(battles), bool) if wanted is None else wanted.copy()
    straight, turned = chosen, np.zeros(len(battles), bool)
    if model_a:
        a, b = number[model_a], number.get(model_b, -1)
        straight = chosen & (battles.a == a) & ((battles.b == b) if model_b else True)
        turned = chosen & (battles.b == a) & ((battles.a == b) if model_b else True)
    if outcome in OUTCOMES and outcome:
        code = OUTCOMES.index(outcome) - 1
        straight = straight & (battles.winner == code)
        turned = turned & (battles.winner == (1 - code if code < 2 else code))
    return np.flatnonzero(straight | turned)[::-1]


def shown(battles: Battles, place: int) -> dict[str, Any]:
    """A vote as a page shows it; who voted is not among it."""
    a, b, winner = battles.models[battles.a[place]], battles.models[battles.b[place]], int(battles.winner[place])
    id, language = str(battles.ids[place]), int(battles.language[place])
    return {
        "id": id,
        "address": link(f"/leaderboard/battles/{quote(id, safe='')}") if id else "",
        "model_a": a,
        "model_b": b,
        "winner": winner,
        "words": (f"{a} is better", f"{b} is better", "tie", "both are bad")[winner],
        "when": moment(float(battles.time[place])),
        "turns": int(battles.turns[place]),
        "language": battles.languages[language] if language >= 0 else "",
    }


def moment(seconds: float) -> str:
    """`2026-11-30 20:15 UTC`; empty if it is not said."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return ""

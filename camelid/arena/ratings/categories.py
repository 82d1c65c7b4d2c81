"""Kinds of battles that have boards of their own: functions from battles to the rows that count."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import BOTH_BAD, TIE, UNKNOWN, Battles
from camelid.errors import OptionError, one_of

Mask = NDArray[np.bool_]
LANGUAGES = ("English", "Chinese", "French", "German", "Spanish", "Russian", "Japanese", "Korean")
PER_VOTER = 5
LONG_TOKENS, SHORT_TOKENS, MULTI_TURNS = 500, 5, 2


def in_category(battles: Battles, name: str) -> Mask:
    """(N,) which battles are of a category.

    Raises:
        OptionError: no such category; a log that lacks the column that says it.
    """
    if name not in CATEGORIES:
        raise OptionError(f"category: {name!r}: no such category; {one_of(name, CATEGORIES)}", param="category")
    return CATEGORIES[name](battles)


def _lacks(what: str) -> OptionError:
    return OptionError(f"category: the log does not say {what}", param="category")


def _all(battles: Battles) -> Mask:
    return np.ones(len(battles), dtype=bool)


def _language(battles: Battles, *, name: str) -> Mask:
    if not len(battles.language) or (battles.language == UNKNOWN).all():
        raise _lacks("the language of battles")
    numbers = [k for k, each in enumerate(battles.languages) if each.casefold() == name.casefold()]
    return np.isin(battles.language, numbers)


def _without_ties(battles: Battles) -> Mask:
    return (battles.winner != TIE) & (battles.winner != BOTH_BAD)


def _multi_turn(battles: Battles) -> Mask:
    if not len(battles.turns) or not battles.turns.any():
        raise _lacks("how many turns a battle had")
    return np.asarray(battles.turns >= MULTI_TURNS)


def _column(battles: Battles, name: str) -> NDArray[np.float64]:
    """A column; the larger of two sides."""
    if name not in battles.numbers:
        raise _lacks(f"{name!r} (a column of battles.numbers)")
    column = battles.numbers[name]
    return np.fmax(column[:, 0], column[:, 1]) if column.ndim == 2 else column


def _tagged(battles: Battles, *, column: str) -> Mask:
    return np.asarray(_column(battles, column) > 0)


def _not_tagged(battles: Battles, *, column: str) -> Mask:
    return ~_tagged(battles, column=column)


def _long(battles: Battles) -> Mask:
    return np.asarray(_column(battles, "prompt_tokens") >= LONG_TOKENS)


def _not_short(battles: Battles) -> Mask:
    return np.asarray(_column(battles, "prompt_tokens") >= SHORT_TOKENS)


def _hard_english(battles: Battles) -> Mask:
    return _tagged(battles, column="hard") & _language(battles, name="English")


def _first_of_each(keys: NDArray[np.int64], most: int) -> Mask:
    """The first so many of each key, in the rows' order; a key below 0 is never too many."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(keys) else np.zeros(0, np.int64)
    place = np.arange(len(keys)) - np.repeat(starts, np.diff(np.append(starts, len(keys))))
    kept = np.empty(len(keys), dtype=bool)
    kept[order] = (place < most) | (ordered < 0)
    return kept


def _few_per_voter(battles: Battles) -> Mask:
    if (battles.voter == UNKNOWN).all():
        raise _lacks("who voted")
    return _first_of_each(battles.voter.astype(np.int64), PER_VOTER)


def _deduplicated(battles: Battles) -> Mask:
    """LMSYS: questions more frequent than the 99.99th percentile of questions are cut down to that
    count; the first ones stay."""
    if not len(battles.prompt) or (battles.prompt == UNKNOWN).all():
        raise _lacks("which question a battle asked")
    prompts = battles.prompt.astype(np.int64)
    asked = np.bincount(prompts[prompts >= 0])
    most = int(np.quantile(asked[asked > 0], 0.9999, method="higher"))
    return _first_of_each(prompts, most)


CATEGORIES: dict[str, Callable[[Battles], Mask]] = {
    "overall": _all,
    "exclude-ties": _without_ties,
    "multi-turn": _multi_turn,
    "long-query": _long,
    "exclude-short": _not_short,
    "exclude-refusal": partial(_not_tagged, column="refusal"),
    "few-per-voter": _few_per_voter,
    "deduplicated": _deduplicated,
    "coding": partial(_tagged, column="code"),
    "math": partial(_tagged, column="math"),
    "creative-writing": partial(_tagged, column="creative"),
    "instruction-following": partial(_tagged, column="instructions"),
    "hard-prompts": partial(_tagged, column="hard"),
    "hard-prompts-english": _hard_english,
    **{name.lower(): partial(_language, name=name) for name in LANGUAGES},
}

"""Boards of the votes as they are now, by category and style control; kept until somebody votes."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import Battles
from camelid.arena.board.following import Following, Votes
from camelid.arena.board.pairs import Table
from camelid.arena.fraud.influence import Flip, first_place
from camelid.arena.ratings import Board, Counts, RateOptions, rate, rate_counts
from camelid.arena.ratings.categories import CATEGORIES
from camelid.arena.ratings.covariates import STYLE
from camelid.errors import NotFoundError, OptionError

KEPT = 32  # boards
SLOW = 0.1  # seconds; a board that takes longer is made anew beside, and the last one is shown until then


@dataclass(frozen=True)
class Choice:
    """Which board. `category`: a name of `CATEGORIES`, or empty for all votes."""

    category: str = ""
    style: bool = False


@dataclass(frozen=True)
class Shown:
    """A board and what it was made of.

    Attributes:
        table: (M, M, 4) counts of its votes, by the models of `votes.battles`.
        votes: all votes at that moment.
        n_votes: of them, how many the board is made of.
        seconds: that it took.
    """

    choice: Choice
    board: Board
    table: Table
    votes: Votes
    n_votes: int
    seconds: float = field(default=0.0, compare=False)

    @property
    def models(self) -> tuple[str, ...]:
        """Names, by the numbers in `table`."""
        return self.votes.battles.models


class Boards:
    """Boards over votes that grow. Safe for threads.

    Args:
        following: the votes.
        options: how they are rated; category and style are the reader's choice.
        slow: a board that took longer, in seconds, is shown as it was while it is made anew.
    """

    def __init__(self, following: Following, options: RateOptions | None = None, slow: float = SLOW) -> None:
        self.following = following
        self.options = options if options is not None else RateOptions()
        self._slow = slow
        self._lock = threading.Lock()
        self._kept: OrderedDict[Choice, Shown] = OrderedDict()
        self._busy: dict[Choice, threading.Lock] = {}
        self._beside = ThreadPoolExecutor(1, "leaderboard")
        self._known: tuple[str, ...] = ()
        self._n_known = 0
        self._flips: dict[str, tuple[Votes, Flip | None]] = {}

    def categories(self) -> list[str]:
        """Those that the votes say something about, the one of all votes as the empty string first.

        Looked for anew when there are twice as many votes.
        """
        battles = self.following.votes().battles
        if len(battles) >= 2 * self._n_known or not self._known:
            self._n_known = len(battles)
            self._known = tuple(name for name in CATEGORIES if name != "overall" and _is_said(battles, name))
        return ["", *self._known]

    def has_style(self) -> bool:
        """Whether the votes say how long answers are and how they are set, so that style can be taken out."""
        return set(STYLE) <= self.following.votes().battles.numbers.keys()

    def get(self, choice: Choice) -> Shown:
        """The board of the votes until now; of a slow one, perhaps that of a moment ago.

        Raises:
            NotFoundError: there is no such category.
            CamelidError: it cannot be rated.
        """
        if choice.category not in self.categories():
            raise NotFoundError(f"category: there is no {choice.category!r}")
        votes = self.following.votes()
        with self._lock:
            kept = self._kept.get(choice)
            busy = self._busy.setdefault(choice, threading.Lock())
            if kept is not None:
                self._kept.move_to_end(choice)
        if kept is not None and kept.votes.number == votes.number:
            return kept
        if kept is not None and kept.seconds > self._slow:
            if not busy.locked():
                self._beside.submit(self._again, choice)
            return kept
        with busy:
            with self._lock:
                kept = self._kept.get(choice)
            if kept is not None and kept.votes.number >= votes.number:
                return kept
            return self._make(choice, votes)

    def influence(self, category: str) -> tuple[Votes, Flip | None]:
        """The few votes without which another model would be first; looked for once a board.

        Raises:
            NotFoundError: there is no such category.
            OptionError: fewer than two models with votes.
        """
        votes = self.get(Choice(category)).votes
        with self._lock:
            kept = self._flips.get(category)
        if kept is not None and kept[0].number == votes.number:
            return kept
        mask = mask_of(votes.battles, category)
        places = np.arange(len(votes.battles)) if mask is None else np.flatnonzero(mask)
        found = first_place(votes.battles if mask is None else votes.battles.take(mask))
        flip = None if found is None else replace(found, votes=places[found.votes])
        with self._lock:
            self._flips[category] = (votes, flip)
        return votes, flip

    def warm(self) -> None:
        """Begin to read the votes, so that whoever comes first need not wait for all of them."""
        self._beside.submit(self.get, Choice())

    def close(self) -> None:
        """Wait for what is being made beside."""
        self._beside.shutdown(cancel_futures=True)

    def _again(self, choice: Choice) -> None:
        with self._busy[choice]:
            votes = self.following.votes()
            with self._lock:
                kept = self._kept.get(choice)
            if kept is None or kept.votes.number < votes.number:
                self._make(choice, votes)

    def _make(self, choice: Choice, votes: Votes) -> Shown:
        start = time.perf_counter()
        battles = votes.battles
        mask = mask_of(battles, choice.category)
        chosen = battles if mask is None else battles.take(mask)
        counts = Counts.of(chosen)
        options = self.options.with_(style=choice.style)
        if not counts.votes.any():
            board = Board(options.method, 0, (), warnings=("There is no vote between two models yet.",))
        elif choice.style:
            board = rate(chosen, options)
        else:
            board = rate_counts(counts, options)
        shown = Shown(choice, board, counts.table, votes, len(chosen), time.perf_counter() - start)
        with self._lock:
            self._kept[choice] = shown
            self._kept.move_to_end(choice)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return shown


def mask_of(battles: Battles, category: str) -> NDArray[np.bool_] | None:
    """(N,) the votes of a category; None for all."""
    return CATEGORIES[category](battles) if category else None


def _is_said(battles: Battles, category: str) -> bool:
    try:
        return bool(CATEGORIES[category](battles).any())
    except OptionError:
        return False

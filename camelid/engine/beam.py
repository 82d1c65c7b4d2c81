"""Beam search: the likeliest texts rather than a drawn one.

Wu et al. 2016 (arXiv:1609.08144) without the coverage term: a text's score is its log-probability over its length to
the power of `length_penalty`. Ties and endings follow Hugging Face's generate, which is the test's oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from camelid.engine.batch import Batch, Span
from camelid.engine.engine import Engine
from camelid.engine.sampling import checked, raw_logprobs
from camelid.errors import OptionError, ResourceError


@dataclass(frozen=True)
class Beam:
    """A finished text: the ids after the prompt, their summed log-probability in nats, the score, and how it ended."""

    ids: tuple[int, ...]
    logprob: float
    score: float
    finish_reason: str


@dataclass
class _Live:
    """A text that still grows, on pages of its own (full ones may be shared with its siblings)."""

    ids: list[int]
    logprob: float
    pages: list[int] = field(default_factory=list)


def beam_search(
    engine: Engine,
    ids: Sequence[int],
    width: int,
    *,
    max_tokens: int | None = None,
    length_penalty: float = 1.0,
    stop_ids: Sequence[int] = (),
    early_stopping: bool = False,
) -> list[Beam]:
    """The `width` best texts after `ids`, best first. A stop id is not part of the text but counts in its length.

    Args:
        early_stopping: end as soon as `width` texts have ended, though a running one might still become better.

    Raises:
        OptionError: the width is not positive, or the prompt does not fit the context.
        ResourceError: the cache has no room for so many beams.
    """
    if width < 1:
        raise OptionError(f"beams: must be at least 1, got {width}", param="beams")
    if not 0 < len(ids) < engine.context:
        raise OptionError(
            f"prompt: has {len(ids)} tokens, the context is {engine.context} with room for the answer", param="prompt"
        )
    n_prompt = len(ids)
    limit = min(engine.context, n_prompt + (max_tokens or engine.context))
    search = _Search(engine, n_prompt, width, length_penalty, frozenset(stop_ids))
    try:
        search.start(list(ids))
        while len(search.live[0].ids) < limit and not search.is_done(early_stopping, limit):
            search.grow()
    finally:
        search.release()
    return search.best()


class _Search:
    """The state of one search."""

    def __init__(self, engine: Engine, n_prompt: int, width: int, penalty: float, stops: frozenset[int]) -> None:
        self.engine, self.n_prompt, self.width, self.penalty, self.stops = engine, n_prompt, width, penalty, stops
        self.live: list[_Live] = []
        self.ended: list[Beam] = []
        self._logits = np.empty((0, 0), np.float32)

    def start(self, ids: list[int]) -> None:
        """Read the prompt in chunks."""
        first = _Live(ids, 0.0)
        self.live = [first]
        self._make_room(first)
        chunk = self.engine.options.max_batch_tokens
        for at in range(0, len(ids), chunk):
            part = tuple(ids[at : at + chunk])
            self._logits = self._forward([_last_row(part, at, first.pages, self.n_prompt)])

    def grow(self) -> None:
        """Choose the best continuations of all beams, set ended ones aside, and run the others one id further."""
        before = np.array([beam.logprob for beam in self.live])
        table = np.stack([raw_logprobs(checked(row).astype(np.float32)) for row in self._logits]) + before[:, None]
        flat = np.argsort(-table.ravel(), kind="stable")[: 2 * self.width]
        chosen: list[tuple[int, int, float]] = []  # parent, id, log-probability
        for rank, place in enumerate(flat.tolist()):
            parent, id = divmod(place, table.shape[1])
            logprob = float(table[parent, id])
            if id in self.stops:
                if rank < self.width:
                    self._end(self.live[parent].ids, logprob, 1, "stop")
            elif len(chosen) < self.width:
                chosen.append((parent, id, logprob))
        self._branch(chosen)
        self._logits = self._forward(
            [_last_row((beam.ids[-1],), len(beam.ids) - 1, beam.pages, self.n_prompt) for beam in self.live]
        )

    def is_done(self, early_stopping: bool, limit: int) -> bool:
        """Whether no running text can still come among the best."""
        if len(self.ended) < self.width:
            return False
        if early_stopping:
            return True
        length = len(self.live[0].ids) - self.n_prompt
        best = max(beam.logprob for beam in self.live) / max(length, 1) ** self.penalty
        return best <= min(beam.score for beam in self.ended)

    def best(self) -> list[Beam]:
        """The best texts, ended or not."""
        for beam in self.live:
            self._end(beam.ids, beam.logprob, 0, "length")
        return self.ended

    def release(self) -> None:
        """Give all pages back."""
        for beam in self.live:
            self.engine.pages.release(beam.pages)
            beam.pages = []

    def _forward(self, spans: list[Span]) -> NDArray[np.float32]:
        """Logits of one row of each span, (spans, V)."""
        own = tuple(replace(span, adapter=self.engine.adapter) for span in spans)
        return np.concatenate(self.engine.backend.forward(Batch(own)))

    def _end(self, ids: list[int], logprob: float, extra: int, reason: str) -> None:
        length = len(ids) - self.n_prompt + extra
        score = logprob / max(length, 1) ** self.penalty
        self.ended.append(Beam(tuple(ids[self.n_prompt :]), logprob, score, reason))
        self.ended = sorted(self.ended, key=lambda beam: -beam.score)[: self.width]

    def _branch(self, chosen: list[tuple[int, int, float]]) -> None:
        """Make the new beams from their parents: full pages are shared, the page being written is copied."""
        pages, width = self.engine.pages, self.engine.pages.page_size
        children = []
        for parent, id, logprob in chosen:
            beam = self.live[parent]
            child = _Live([*beam.ids, id], logprob, list(beam.pages))
            for page in child.pages:
                pages.hold(page)
            children.append(child)
        self.release()
        self.live = children
        for child in children:
            filled = len(child.ids) - 1  # positions already computed
            if filled % width and pages.is_shared(child.pages[filled // width]):
                shared = child.pages[filled // width]
                child.pages[filled // width] = own = self._take()
                self.engine.backend.copy_page(shared, own)
                pages.release([shared])
            self._make_room(child)

    def _make_room(self, beam: _Live) -> None:
        if not self.engine.pages.grow(beam.pages, len(beam.ids)):
            raise _no_room()

    def _take(self) -> int:
        page = self.engine.pages.take()
        if page is None:
            raise _no_room()
        return page


def _no_room() -> ResourceError:
    return ResourceError("cache: no room for so many beams; raise --cache-tokens or take fewer")


def _last_row(ids: tuple[int, ...], start: int, pages: list[int], n_prompt: int) -> Span:
    return Span(ids, start, tuple(pages), range(len(ids) - 1, len(ids)), n_prompt=n_prompt)

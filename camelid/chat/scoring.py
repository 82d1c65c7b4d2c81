"""Many texts at once: how likely they are, and what the model writes after them.

All are requests of one engine, so that they are computed together and beside whatever else runs. Texts are taken in
windows, so that any number of them fits into memory. Those of a window form a tree by what their ids begin with: each
id of it is computed once, and each row of logits is asked for all that goes on after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from camelid.chat.answer import Answer, TextRequest, collect
from camelid.chat.results import Delta, Generation, Likelihood
from camelid.engine.engine import Engine
from camelid.engine.request import Request, Scored, Token
from camelid.engine.sequence import common_prefix
from camelid.errors import OptionError
from camelid.model.rope import scaled_length
from camelid.tokens.tokenizer import Tokenizer

WINDOW, WINDOW_IDS = 4096, 2**20  # texts that are sorted together, and ids of them: some 50 MB
MOST_OPEN = 2048  # requests that the engine has at a time
CLOSE = 3  # rows that nobody wants are computed between others, if they are fewer
CONTEXTS = 16  # whose ids are kept, for the continuations that follow


@dataclass(frozen=True)
class Text:
    """A context and its continuation, as ids; the continuation begins at `start`.

    Attributes:
        continuation: as it was given.
        n_moved: ids of the context alone that the whole text does not begin with.
    """

    ids: tuple[int, ...]
    start: int
    continuation: str = ""
    n_moved: int = 0


class PairEncoder:
    """Pairs of context and continuation as ids: of the whole text, where it parts from the context's own ids.

    Spaces that end the context count to the continuation, as lm-eval has it: a token often starts with its space. A
    token may hold the end of the context and more: then it belongs to the continuation, too. Before an empty context
    stands the id that begins texts, or where a model has none the one that ends them.

    Args:
        tokenizer: of the model.
        prompt_ids: makes ids of a text as a prompt.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Callable[[str], list[int]]) -> None:
        self._tokenizer, self._prompt_ids = tokenizer, prompt_ids
        self._contexts: dict[str, list[int]] = {}

    def encode(self, context: str | Sequence[int], continuation: str) -> Text:
        """A pair as ids."""
        if not isinstance(context, str):
            ids = (*context, *self._tokenizer.encode_segment(continuation))
            return Text(ids, len(context), continuation)
        alone = self._context_ids(context.rstrip())
        whole = self._ids(context + continuation, is_bare=not context.strip())
        start = common_prefix(alone, whole)
        return Text(tuple(whole), start, continuation, len(alone) - start)

    def _context_ids(self, context: str) -> list[int]:
        if context not in self._contexts:
            if len(self._contexts) == CONTEXTS:
                self._contexts.pop(next(iter(self._contexts)))
            self._contexts[context] = self._ids(context, is_bare=not context)
        return self._contexts[context]

    def _ids(self, text: str, is_bare: bool) -> list[int]:
        tokenizer = self._tokenizer
        if not is_bare or tokenizer.adds_bos:
            return self._prompt_ids(text)
        first = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
        ids = tokenizer.encode(text, bos=False)
        if first is None:
            raise OptionError(
                "loglikelihood: the context is empty, and this model has no id that begins a text", param="context"
            )
        return ids if ids[:1] == [first] else [first, *ids]


@dataclass(eq=False)
class _Open:
    """A text of which not all is known yet."""

    place: int
    text: Text
    logprobs: list[float]
    n_missing: int
    is_greedy: bool = True

    def take(self, place: int, logprob: float, is_best: bool) -> None:
        """The id after a place is so likely."""
        self.logprobs[place + 1 - self.text.start] = logprob
        self.n_missing -= 1
        self.is_greedy &= is_best

    def likelihood(self) -> Likelihood:
        text = self.text.continuation
        return Likelihood(
            logprob=float(np.array(self.logprobs).sum()),
            is_greedy=self.is_greedy,
            n_tokens=len(self.logprobs),
            n_chars=len(text),
            n_bytes=len(text.encode()),
            n_moved=self.text.n_moved,
        )


Item = TypeVar("Item")
Wanted = dict[int, dict[int, list[_Open]]]  # place → id that follows → texts in which it does


@dataclass(eq=False)
class _Branch:
    """Ids of the tree that are computed in line, from `start` on; those before are another branch's."""

    ids: tuple[int, ...]
    start: int
    wanted: Wanted = field(default_factory=dict)

    def requests(self) -> Iterator[tuple[Request, Wanted]]:
        """What is asked of the engine: one request, or several where wanted rows lie far from each other."""
        places, first = sorted(self.wanted), 0
        for at in range(1, len(places) + 1):
            if at == len(places) or places[at] - places[at - 1] > CLOSE:
                rows = range(places[first], places[at - 1] + 1)
                wanted = {place: self.wanted[place] for place in places[first:at]}
                asked = tuple((place, id) for place, ids in wanted.items() for id in ids)
                yield Request(ids=self.ids, wants="logprobs", rows=rows, asked=asked), wanted
                first = at


def loglikelihoods(engine: Engine, texts: Iterable[Text]) -> Iterator[tuple[int, Likelihood]]:
    """How likely each continuation is after its context, with the text's place, as it becomes known.

    Raises:
        OptionError, ContextError: a text has no continuation, or is too long; those that are on their way end too.
    """
    owners: dict[int, Wanted] = {}
    for index, scored in engine.stream_all(_tree(engine, texts, owners), MOST_OPEN):
        assert isinstance(scored, Scored)
        wanted = owners.pop(index)
        best, logprobs = scored.best.tolist(), iter(scored.asked.tolist())
        first = min(wanted)
        for place, by_id in wanted.items():
            for id, members in by_id.items():
                logprob = next(logprobs)
                for each in members:
                    each.take(place, logprob, best[place - first] == id)
                    if not each.n_missing:
                        yield each.place, each.likelihood()


def _tree(engine: Engine, texts: Iterable[Text], owners: dict[int, Wanted]) -> Iterator[Request]:
    """The requests, window by window; `owners` says by their indexes who wants what of them."""
    indexes = count()
    for window in _windows(enumerate(texts), lambda each: len(each[1].ids)):
        for branch in _branches(engine, [_opened(place, text) for place, text in window]):
            for request, wanted in branch.requests():
                owners[next(indexes)] = wanted
                yield request


def _opened(place: int, text: Text) -> _Open:
    if not 0 < text.start < len(text.ids):
        raise OptionError(
            "loglikelihood: both the context and the continuation must have at least one token",
            param="loglikelihood",
        )
    n_tokens = len(text.ids) - text.start
    return _Open(place, text, [0.0] * n_tokens, n_tokens)


def _branches(engine: Engine, texts: list[_Open]) -> list[_Branch]:
    """The tree of the texts' ids, in the order of ids: each branch behind the one it leaves.

    The last id of a text is none of it. Where a model's angles depend on a text's length, only texts that turn alike
    share a tree.
    """
    config = engine.backend.config
    branches: list[_Branch] = []
    path: list[_Branch] = []  # who computes the ids of the longest text that began as the last one
    last: tuple[int, ...] = ()
    turns: int | None = None
    order = sorted(((scaled_length(config, len(each.text.ids)), each.text.ids, each) for each in texts), key=_by_ids)
    for length, ids, each in order:
        if length != turns:
            path, last, turns = [], (), length
        n_ids, n_last = len(ids) - 1, len(last) - 1
        n_common = min(common_prefix(last, ids), n_ids, n_last) if path else 0
        if path and n_common == n_last:
            path[-1].ids = last = ids  # it goes on where the last one ends
        elif n_common < n_ids:
            while path and path[-1].start >= n_common:
                path.pop()
            path.append(_Branch(ids, n_common))
            branches.append(path[-1])
            last = ids
        owner = len(path) - 1
        for place in range(n_ids - 1, each.text.start - 2, -1):
            while path[owner].start > place:
                owner -= 1
            path[owner].wanted.setdefault(place, {}).setdefault(ids[place + 1], []).append(each)
    return branches


def _by_ids(each: tuple[int, tuple[int, ...], _Open]) -> tuple[int, tuple[int, ...]]:
    return each[:2]


def _windows(items: Iterable[Item], n_ids: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Items in groups that are sorted together."""
    window: list[Item] = []
    total = 0
    for item in items:
        window.append(item)
        total += n_ids(item)
        if len(window) == WINDOW or total >= WINDOW_IDS:
            yield window
            window, total = [], 0
    if window:
        yield window


def negative_loglikelihoods(engine: Engine, texts: Sequence[Sequence[int]]) -> list[tuple[float, int]]:
    """For each text in nats how unlikely its ids are, read in parts of the whole context, and how many count.

    Each id counts once. A part's first id is seen only as context.
    """
    parts = [
        (number, tuple(ids[start : start + engine.context]))
        for number, ids in enumerate(texts)
        for start in range(0, len(ids) - 1, engine.context - 1)
    ]
    order = sorted(range(len(parts)), key=lambda place: parts[place][1])
    requests = (Request(ids=parts[place][1], wants="logprobs") for place in order)
    logprobs: dict[int, NDArray[np.float64]] = {}
    for index, scored in engine.stream_all(requests, MOST_OPEN):
        assert isinstance(scored, Scored)
        logprobs[order[index]] = scored.logprobs
    totals, counts = [0.0] * len(texts), [0] * len(texts)
    for place, (number, _) in enumerate(parts):
        totals[number] -= float(logprobs[place].sum())
        counts[number] += len(logprobs[place])
    return list(zip(totals, counts, strict=True))


def generate_all(
    engine: Engine, tokenizer: Tokenizer, requests: Iterable[TextRequest]
) -> Iterator[tuple[int, Generation]]:
    """The answers to many requests, each with its request's place, as they are finished."""
    running: dict[int, tuple[int, Answer, list[Delta]]] = {}  # by their indexes in the stream

    def ordered() -> Iterator[TextRequest]:
        indexes = count()
        for window in _windows(enumerate(requests), lambda each: len(each[1].ids)):
            for place, request in sorted(window, key=lambda each: each[1].ids):
                running[next(indexes)] = place, Answer(tokenizer, request), []
                yield request

    for index, token in engine.stream_all(ordered(), MOST_OPEN):
        assert isinstance(token, Token)
        if index not in running:
            continue  # it was written behind a stop string
        place, answer, deltas = running[index]
        delta = answer.push(token)
        if delta is not None:
            deltas.append(delta)
        if answer.done:
            engine.cancel(token.request)  # it may be writing on
            del running[index]
            yield place, collect(deltas)

"""Many texts at once: how likely they are, and what the model writes after them.

All are requests of one engine, so that they are computed together and beside whatever else runs. They are queued in
the order of their ids, and what two of them begin with is computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from camelid.chat.answer import Answer, TextRequest, collect
from camelid.chat.results import Delta, Generation, Likelihood
from camelid.engine.engine import Engine
from camelid.engine.request import Request, Scored, Token
from camelid.errors import OptionError
from camelid.model.rope import scaled_length
from camelid.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Text:
    """A context and its continuation, as ids; the continuation begins at `start`."""

    ids: tuple[int, ...]
    start: int

    @property
    def context(self) -> tuple[int, ...]:
        """The ids before the continuation."""
        return self.ids[: self.start]


@dataclass
class _Parts:
    """What is known of a text's continuation: log-probabilities and likeliest ids, of its first id and of the rest."""

    first: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    rest: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    best: list[int] = field(default_factory=list)


def loglikelihoods(engine: Engine, texts: Sequence[Text]) -> list[Likelihood]:
    """How likely each continuation is after its context, in the order of `texts`.

    A context that several have is computed once, and the probabilities of all their first ids come from its last row.

    Raises:
        OptionError, ContextError: a text has no continuation, or is too long.
    """
    for text in texts:
        if not 0 < text.start < len(text.ids):
            raise OptionError(
                "loglikelihood: both the context and the continuation must have at least one token",
                param="loglikelihood",
            )
    parts = {text: _Parts() for text in texts}
    requests: list[Request] = []
    owners: list[Sequence[Text]] = []
    for group in _groups(engine, parts):
        for request, members in _requests(group):
            requests.append(request)
            owners.append(members)
    for index, scored in engine.stream_all(requests):
        assert isinstance(scored, Scored)
        if requests[index].candidates:
            for column, text in enumerate(owners[index]):
                parts[text].first = scored.candidates[:, column]
                parts[text].best[:0] = scored.best.tolist()
        else:
            (text,) = owners[index]
            parts[text].rest = scored.logprobs
            parts[text].best += scored.best.tolist()
    return [_likelihood(text, parts[text]) for text in texts]


def _groups(engine: Engine, texts: Iterable[Text]) -> list[list[Text]]:
    """Texts with the same context together, in the order of their ids.

    Where a model's angles depend on a prompt's length, contexts are only shared by texts that turn as they do.
    """
    groups: dict[tuple[tuple[int, ...], int], list[Text]] = {}
    config = engine.backend.config
    for text in sorted(texts, key=lambda each: each.ids):
        alike = scaled_length(config, len(text.ids)) == scaled_length(config, text.start)
        groups.setdefault((text.context, 0 if alike else len(groups) + 1), []).append(text)
    return list(groups.values())


def _requests(group: list[Text]) -> Iterator[tuple[Request, list[Text]]]:
    """What is asked for a group: the last row of its context once, then the rows of each continuation."""
    if len(group) == 1:
        (text,) = group
        yield Request(ids=text.ids, wants="logprobs", rows=range(text.start - 1, len(text.ids) - 1)), group
        return
    firsts = tuple(text.ids[text.start] for text in group)
    yield Request(ids=group[0].context, wants="logprobs", candidates=firsts), group
    for text in group:
        if len(text.ids) > text.start + 1:
            yield Request(ids=text.ids, wants="logprobs", rows=range(text.start, len(text.ids) - 1)), [text]


def _likelihood(text: Text, parts: _Parts) -> Likelihood:
    logprobs = np.concatenate([parts.first, parts.rest])
    return Likelihood(float(logprobs.sum()), tuple(parts.best) == text.ids[text.start :], len(logprobs))


def negative_loglikelihoods(engine: Engine, texts: Sequence[Sequence[int]]) -> list[tuple[float, int]]:
    """For each text in nats how unlikely its ids are, read in windows of the whole context, and how many count.

    Each id counts once. A window's first id is seen only as context.
    """
    windows = [
        (number, tuple(ids[start : start + engine.context]))
        for number, ids in enumerate(texts)
        for start in range(0, len(ids) - 1, engine.context - 1)
    ]
    order = sorted(range(len(windows)), key=lambda place: windows[place][1])
    logprobs: dict[int, NDArray[np.float64]] = {}
    for index, scored in engine.stream_all(Request(ids=windows[place][1], wants="logprobs") for place in order):
        assert isinstance(scored, Scored)
        logprobs[order[index]] = scored.logprobs
    totals, counts = [0.0] * len(texts), [0] * len(texts)
    for place, (number, _) in enumerate(windows):
        totals[number] -= float(logprobs[place].sum())
        counts[number] += len(logprobs[place])
    return list(zip(totals, counts, strict=True))


def generate_all(engine: Engine, tokenizer: Tokenizer, requests: Sequence[TextRequest]) -> list[Generation]:
    """The answers to many requests, in their order."""
    order = sorted(range(len(requests)), key=lambda place: requests[place].ids)
    answers = [Answer(tokenizer, request) for request in requests]
    deltas: list[list[Delta]] = [[] for _ in requests]
    for index, token in engine.stream_all(requests[place] for place in order):
        assert isinstance(token, Token)
        place = order[index]
        delta = answers[place].push(token)
        if delta is not None:
            deltas[place].append(delta)
        if answers[place].done:
            engine.cancel(token.request)  # it may be writing behind a stop string
    return [collect(parts) for parts in deltas]

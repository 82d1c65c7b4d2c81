"""The next id of an answer: chosen from logits, with all that is known of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from camelid.engine import sampling
from camelid.engine.request import Alternative, Constraint, Token
from camelid.engine.sequence import DraftToken, Sequence


@dataclass(eq=False)
class Writer:
    """How the ids of one sample's answer are chosen.

    Attributes:
        limit: ids that prompt and answer may have together.
    """

    sequence: Sequence
    seed: int
    limit: int
    constraint: Constraint | None


def choose_token(writer: Writer, logits: NDArray[np.float32], draft: DraftToken | None) -> Token:
    """Choose the next id of an answer and append it; whether the text ends with it is asked afterwards.

    Raises:
        NumericsError: the logits are not numbers, or no id may come.
        OptionError: the form cannot be gone on with.
    """
    sequence = writer.sequence
    request, params, output = sequence.request, sequence.request.params, sequence.output
    allowed = sampling.allowed(logits, request, len(output), writer.constraint)
    probabilities = sampling.distribution(allowed, params, request.ids, output)
    if sampling.is_greedy(params):
        id = int(probabilities.argmax())
    else:
        id = choose_id(probabilities, draft, writer.seed, sequence.sample, len(output))
    if writer.constraint is not None:
        writer.constraint.push(id)
    sequence.ids.append(id)
    log_sum = sampling.raw_log_sum(logits)
    return Token(
        request=sequence.number,
        sample=sequence.sample,
        index=len(output),
        id=id,
        logprob=float(logits[id]) - log_sum,
        rank=rank(logits, id),
        sampled_logprob=math.log(probabilities[id]),
        top=likeliest(logits, log_sum, probabilities, params.logprobs),
        finish_reason=None,
        n_cached=sequence.n_cached or 0,
    )


def choose_id(p: NDArray[np.float64], draft: DraftToken | None, seed: int, sample: int, index: int) -> int:
    """An id with probabilities p, (V,), that is the draft's as often as can be.

    A drawn draft token x is accepted with probability min(1, p(x) / q(x)), else an id is drawn from what p has more
    than q: over all x that is p. Which id it is depends on the arguments only, not on how many draft tokens a pass
    verified. The rule is that of Leviathan et al. 2023 (arXiv:2211.17192) and Chen et al. 2023 (arXiv:2302.01318).
    """
    if draft is None or draft.q is None:
        return sampling.draw(p, seed, sample, index)
    if sampling.chance(seed, sample, index, sampling.ACCEPT) * draft.q[draft.id] < p[draft.id]:
        return draft.id
    return sampling.draw(residual(p, draft.q), seed, sample, index, sampling.REDRAW)


def residual(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """What p has more than q, (V,), to be drawn from when a draft token was rejected; sums to the rejected share."""
    more = np.maximum(p - q, 0)
    return more if more.any() else p  # equal but for rounding


def finish_reason(writer: Writer) -> Literal["stop", "length"] | None:
    """Whether an answer ends with its last id, and why; waits for what the form says.

    Raises:
        OptionError: the form cannot be gone on with.
    """
    sequence = writer.sequence
    if sequence.ids[-1] in sequence.request.all_stop_ids:
        return "stop"
    if writer.constraint is not None and writer.constraint.finished:
        return "stop"
    return "length" if len(sequence.ids) >= writer.limit else None


def rank(logits: NDArray[np.float32], id: int) -> int:
    """1 for the likeliest id; ids as likely as each other share a rank."""
    return int(np.count_nonzero(logits > logits[id])) + 1


def likeliest(
    logits: NDArray[np.float32], log_sum: float, probabilities: NDArray[np.float64] | None, n: int | None
) -> tuple[Alternative, ...]:
    """The n likeliest ids, the lower id first where they are equal; without `probabilities` nothing is drawn."""
    if not n:
        return ()
    n = min(n, len(logits))
    ids = np.flatnonzero((logits >= np.partition(logits, -n)[-n]) & (logits > -np.inf))
    ranked = ids[np.argsort(-logits[ids], kind="stable")][:n].tolist()
    drawn = [0.0 if probabilities is None else probabilities[id] for id in ranked]
    return tuple(
        Alternative(id, float(logits[id]) - log_sum, math.log(p) if p else None)
        for id, p in zip(ranked, drawn, strict=True)
    )

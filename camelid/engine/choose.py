"""The next id of a sequence: chosen from logits, and told with all that is known of it."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from camelid.engine import sampling, speculate
from camelid.engine.readers import likeliest, rank
from camelid.engine.request import Token
from camelid.engine.scheduler import Sequence
from camelid.engine.speculate import Guess


def choose_token(sequence: Sequence, logits: NDArray[np.float32], guess: Guess | None) -> Token:
    """Choose the next id of a sequence and append it; whether the text ends with it is asked afterwards.

    Raises:
        NumericsError: the logits are not numbers, or no id may come.
        OptionError: the form cannot be gone on with.
    """
    request, params, output = sequence.request, sequence.request.params, sequence.output
    allowed = sampling.allowed(logits, request, len(output), sequence.constraint)
    probabilities = sampling.distribution(allowed, params, request.ids, output)
    if sampling.is_greedy(params):
        id = int(probabilities.argmax())
    else:
        id = speculate.choose(probabilities, guess, sequence.seed, sequence.sample, len(output))
    if sequence.constraint is not None:
        sequence.constraint.push(id)
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


def finish_reason(sequence: Sequence) -> Literal["stop", "length"] | None:
    """Whether a text ends with its last id, and why; waits for what the form says.

    Raises:
        OptionError: the form cannot be gone on with.
    """
    if sequence.ids[-1] in sequence.request.all_stop_ids:
        return "stop"
    if sequence.constraint is not None and sequence.constraint.finished:
        return "stop"
    return "length" if len(sequence.ids) >= sequence.limit else None

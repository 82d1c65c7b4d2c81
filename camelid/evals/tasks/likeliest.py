"""The answer that a model finds likeliest, by the field's ways to compare answers of different lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from camelid.evals.task import Likelihoods, Metric, Verdict

PLAIN = Metric("acc", "acc")
BY_LENGTH = (
    Metric("acc_norm", "acc_norm"),
    Metric("acc_per_char", "acc_per_char"),
    Metric("acc_bytes", "acc_bytes"),
    Metric("acc_per_token", "acc_per_token"),
)
BY_PMI = Metric("acc_pmi", "acc_pmi")


def likeliest(found: Likelihoods, choices: Sequence[str], gold: int, lengths: bool) -> Verdict:
    """Whether the gold answer is the likeliest; of equals the first, as numpy's argmax has it.

    acc compares sums of log-probabilities. With `lengths`: acc_norm divides them by characters and acc_bytes by bytes
    of the answer (lm-eval), acc_per_char by characters of the answer and the space before it (OLMES), acc_per_token
    by tokens. acc_pmi subtracts the log-probability after a context that knows nothing of the question.

    Args:
        choices: the answers' texts, without the space before them.
    """
    sums = np.array(found.logprobs)
    ways = {"acc": sums}
    if lengths:
        characters = np.array([max(1, len(choice)) for choice in choices])
        ways["acc_norm"] = sums / characters
        ways["acc_per_char"] = sums / (characters + 1)
        ways["acc_bytes"] = sums / np.array([max(1, len(choice.encode())) for choice in choices])
        ways["acc_per_token"] = sums / np.array(found.n_tokens)
    if found.unconditioned:
        ways["acc_pmi"] = sums - np.array(found.unconditioned)
    picks = {name: int(np.argmax(values)) for name, values in ways.items()}
    tied = np.count_nonzero(sums == sums.max()) > 1
    return Verdict({name: float(pick == gold) for name, pick in picks.items()}, picks, ("tie",) if tied else ())

"""Notices answers that no working model gives, before hours are spent on them."""

from __future__ import annotations

import math

from camelid.errors import NumericsError, VerifyError
from camelid.evals.ask import Reply
from camelid.evals.records import Key
from camelid.evals.task import Likelihoods, TextLoss, Written

EARLY = 32  # answers after which it looks for the first time
FEWEST = 4  # answers below which nothing is concluded


class Canary:
    """Sees all answers; raises when all say the same.

    Raises:
        NumericsError: log-probabilities are not numbers, or all scores are equal: a score of exactly chance.
        VerifyError: every answer is empty.
    """

    def __init__(self, task: str, model: str) -> None:
        self._where = f"{task}: {model}"
        self._likelihoods: set[tuple[float, ...]] = set()
        self._n_likelihoods = self._n_written = self._n_empty = 0
        self._is_flat = True  # every item's choices are equally likely

    def see(self, key: Key, reply: Reply) -> None:
        """An answer came."""
        answer = reply.answer
        if isinstance(answer, TextLoss) and not math.isfinite(answer.nll):
            raise NumericsError(f"{self._where}: a document's log-probability is not a number; check the weights")
        if isinstance(answer, Likelihoods):
            if any(math.isnan(each) for each in answer.logprobs):
                raise NumericsError(f"{self._where}: log-probabilities are not numbers; check the weights")
            self._n_likelihoods += 1
            if self._is_flat:
                self._likelihoods.add(answer.logprobs)
                self._is_flat = len(self._likelihoods) == 1 or len(set(answer.logprobs)) == 1 < len(answer.logprobs)
        elif isinstance(answer, Written) and key[1] == "turn":
            self._n_written += 1
            self._n_empty += not any(text.strip() for text in answer.texts)
        if self._n_likelihoods + self._n_written == EARLY:
            self.end()

    def end(self) -> None:
        """Conclude from what was seen."""
        if self._n_likelihoods >= FEWEST and self._is_flat:
            raise NumericsError(
                f"{self._where}: all {self._n_likelihoods} items have equal scores for all their choices, which would "
                f"be a score of exactly chance; check the weights, or the endpoint's log-probabilities"
            )
        if self._n_written >= FEWEST and self._n_empty == self._n_written:
            raise VerifyError(
                f"{self._where}: all {self._n_written} answers are empty; check the chat format and what ends a text"
            )

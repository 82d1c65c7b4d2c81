"""The next id of an answer: chosen from logits, with what is wanted of it.

C++ chooses, for a whole step at once. `steps.py` is the definition: it is asked where C++ is not sure to choose as
it would, finds an error, or is not built; and for what a draft model proposes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from camelid.engine.load import has_cpu
from camelid.engine.request import Alternative, Constraint, SamplingParams, Token
from camelid.engine.sampling import steps as sampling
from camelid.engine.sequence import Sequence

if TYPE_CHECKING:
    from camelid.engine import _cpu

Row = NDArray[np.float32]
MOST = 2**31 - 1  # larger choices mean the same: no vocabulary and no text is larger


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

    @cached_property
    def chain(self) -> _cpu.Chain:
        """The same for C++, with what its steps have seen of the text."""
        from camelid.engine import _cpu

        request, params = self.sequence.request, self.sequence.request.params
        order = sampling.ORDERS[params.order]
        return _cpu.Chain(
            steps=[(name, _steering(name, params)) for name in sampling.active_steps(params)],
            bias=list(params.logit_bias.items()),
            banned=_ids(request.stop_ids) if params.ignore_stop else [],
            banned_early=_ids(request.all_stop_ids),
            min_tokens=min(params.min_tokens, MOST),
            is_greedy=sampling.is_greedy(params),
            keeps_ties=order.keeps_ties,
            counts_prompt=order.counts_prompt,
            window=min(params.penalty_window or order.window or 0, MOST),
            n_prompt=self.sequence.n_prompt,
            seed=self.seed,
            sample=self.sequence.sample,
            alternatives=-1 if params.logprobs is None else params.logprobs,
        )


def _steering(name: str, params: SamplingParams) -> float:
    """What steers a step of C++."""
    if name == "bias":
        return 0.0
    value = float(getattr(params, sampling.STEPS[name].field))
    return float(np.log(value)) if name == "min_p" else min(value, float(MOST))


def _ids(ids: Many[int] | set[int]) -> list[int]:
    return [id for id in ids if 0 <= id <= MOST]


class Choice(NamedTuple):
    """An id and what is known of it: see `Token`."""

    id: int
    sampled_logprob: float
    logprob: float | None
    rank: int | None
    top: tuple[tuple[int, float, float | None], ...]


class Chooser:
    """Chooses the ids of many answers, for one thread.

    Args:
        isa: an instruction set of this machine, else the best.
    """

    def __init__(self, isa: str = "") -> None:
        self._sampler: _cpu.Sampler | None = None
        if has_cpu():
            from camelid.engine import _cpu

            self._sampler = _cpu.Sampler(isa)

    def choose(self, writers: Many[Writer], rows: Many[Row]) -> list[Choice | None]:
        """The next ids of answers without a form; None where `steps.py` is to be asked. Changes nothing."""
        if self._sampler is None or not writers:
            return [None] * len(writers)
        return self._ask([writer.chain for writer in writers], rows, writers, [None] * len(writers))

    def token(self, writer: Writer, logits: Row, choice: Choice | None = None) -> Token:
        """Choose the next id of an answer, if that was not done by `choose`, and append it.

        Whether the text ends with it is asked afterwards.

        Raises:
            NumericsError: the logits are not numbers, or no id may come.
            OptionError: the form cannot be gone on with.
        """
        sequence = writer.sequence
        if choice is None and self._sampler is not None:
            mask = writer.constraint.mask() if writer.constraint is not None else None
            (choice,) = self._ask([writer.chain], [logits], [writer], [mask])
        id, sampled_logprob, logprob, place, top = choice or slow_choice(writer, logits)
        if writer.constraint is not None:
            writer.constraint.push(id)
        sequence.ids.append(id)
        return Token(
            request=sequence.number,
            sample=sequence.sample,
            index=len(sequence.ids) - sequence.n_prompt - 1,
            id=id,
            logprob=logprob,
            rank=place,
            sampled_logprob=sampled_logprob,
            top=tuple(Alternative(*each) for each in top),
            finish_reason=None,
            n_cached=sequence.n_cached or 0,
        )

    def _ask(
        self,
        chains: list[_cpu.Chain],
        rows: Many[Row],
        writers: Many[Writer],
        masks: Many[NDArray[np.bool_] | None],
    ) -> list[Choice | None]:
        assert self._sampler is not None
        texts = [writer.sequence.ids for writer in writers]
        found = self._sampler.choose(list(rows), chains, texts, list(masks))
        return [None if each is None else Choice(*each) for each in found]


def slow_choice(writer: Writer, logits: Row) -> Choice:
    """What `steps.py` chooses.

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
        id = sampling.draw(probabilities, writer.seed, sequence.sample, len(output))
    sampled_logprob = math.log(probabilities[id])
    if params.logprobs is None:
        return Choice(id, sampled_logprob, None, None, ())
    log_sum = sampling.log_sum(logits.astype(np.float64))
    top = tuple(
        (each.id, each.logprob, each.sampled_logprob)
        for each in likeliest(logits, log_sum, probabilities, params.logprobs)
    )
    return Choice(id, sampled_logprob, float(logits[id]) - log_sum, rank(logits, id), top)


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

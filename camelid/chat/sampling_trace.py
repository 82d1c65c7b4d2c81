"""The last stage of generation: what sampling makes of the model's scores, token by token and step by step."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from camelid.chat.activations import likeliest
from camelid.engine.request import SamplingParams
from camelid.engine.sampling import steps as sampling
from camelid.engine.sampling.steps import ORDERS, STEPS, Seen, softmax


@dataclass(frozen=True)
class StepReport:
    """What a step did: how many ids it left, a note in words, and the logits after it, (V,)."""

    name: str
    n_left: int
    note: str
    logits: NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True)
class Chance:
    """A row of the table of next tokens.

    Attributes:
        probability: before any sampling step.
        left: after all of them; 0 if one removed it.
        begins: the share of what is left that lies before this id, in the order of ids: a random number from `begins`
            to `begins + left` draws it.
        fell: the step that removed it; the last one when another token is taken.
    """

    id: int
    probability: float
    left: float
    begins: float
    fell: str | None


@dataclass(frozen=True)
class Chosen:
    """The id that comes next, its probability when it was chosen, and the random number that drew it, if one did."""

    id: int
    probability: float
    number: float | None


@dataclass(frozen=True)
class Outcome:
    """The distribution over the vocabulary before and after sampling.

    Attributes:
        rows: the likeliest tokens, before sampling or after, likeliest before it first.
        others: what all other tokens hold together, before and after.
        steps: the active steps in order, between `all` and `greedy` or `draw`.
        probabilities: of being drawn, (V,).
    """

    rows: tuple[Chance, ...]
    others: tuple[float, float]
    steps: tuple[StepReport, ...]
    probabilities: NDArray[np.float64] = field(repr=False)

    def draw(self, params: SamplingParams, n_written: int) -> Chosen:
        """Choose as the engine does after `n_written` ids: with a seed, the same id from the same probabilities."""
        if sampling.is_greedy(params):
            return self.take(int(self.probabilities.argmax()))
        seed = params.seed if params.seed is not None else secrets.randbits(63)
        id = sampling.draw(self.probabilities, seed, 0, n_written)
        return Chosen(id, float(self.probabilities[id]), sampling.chance(seed, 0, n_written))

    def take(self, id: int) -> Chosen:
        """Choose this id, however unlikely."""
        return Chosen(id, float(self.probabilities[id]), None)


def outcome(
    logits: NDArray[np.float32], params: SamplingParams, prompt: Sequence[int], output: Sequence[int] = (), n: int = 10
) -> Outcome:
    """Follow the n likeliest tokens through the sampling steps. `prompt` and `output` are the ids before them.

    Raises:
        OptionError: the order of steps has none for a choice.
        NumericsError: logits are not numbers, or no id is left.
    """
    sampling.check(params, len(logits))
    raw = softmax(sampling.checked(logits))
    left = sampling.distribution(logits, params, prompt, output)
    steps = follow(logits, params, prompt, output)
    begins = np.cumsum(left) - left
    drawable = likeliest(left, min(n, 3))
    shown = np.union1d(likeliest(raw, n), drawable[left[drawable] > 0])
    rows = tuple(
        Chance(id, float(raw[id]), float(left[id]), float(begins[id]), _fell(steps, id, left[id]))
        for id in shown[np.argsort(-raw[shown], kind="stable")].tolist()
    )
    others = (1 - sum(row.probability for row in rows), 1 - sum(row.left for row in rows))
    return Outcome(rows, (max(0.0, others[0]), max(0.0, others[1])), tuple(steps), left)


def follow(
    logits: NDArray[np.float32], params: SamplingParams, prompt: Sequence[int], output: Sequence[int] = ()
) -> list[StepReport]:
    """The active steps one after the other."""
    current = sampling.checked(logits)
    reports = [StepReport("all", _left(current), "the whole vocabulary", current)]
    for name in sampling.active_steps(params):
        before = current
        current = STEPS[name].apply(before.copy(), params, Seen(prompt, output), ORDERS[params.order])
        removed, alive = _left(before) - _left(current), current > -np.inf
        changed = int((softmax(before)[alive] != softmax(current)[alive]).sum())
        value = getattr(params, STEPS[name].field)
        did = f"removes {removed:,}" if removed else f"changes {changed:,} probabilities"
        reports.append(StepReport(name, _left(current), f"{STEPS[name].field} {value}: {did}", current))
    name, note = ("greedy", "the likeliest is taken") if sampling.is_greedy(params) else ("draw", "one is drawn")
    return [*reports, StepReport(name, 1, note, current)]


def _left(logits: NDArray[np.float64]) -> int:
    return int((logits > -np.inf).sum())


def _fell(steps: Sequence[StepReport], id: int, left: float) -> str | None:
    removed = (step.name for step in steps if step.logits[id] == -np.inf)
    return next(removed, None if left else steps[-1].name)

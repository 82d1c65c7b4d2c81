"""From logits to the next id: an ordered table of steps, then a draw.

A step takes logits and gives logits; what it removes becomes -inf. The order of steps and a few details differ between
engines, so each order is a row of `ORDERS`; a choice that an order has no step for is an error, not ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camelid.engine.request import Constraint, Request, SamplingParams
from camelid.errors import NumericsError, OptionError

Logits = NDArray[np.float64]
GREEDY = 1e-5  # temperatures below are greedy: dividing by them would leave the numbers
LARGEST_BIAS = 1e100  # squared, over the smallest temperature and times the largest penalty it is still a number


@dataclass(frozen=True)
class Seen:
    """Ids before the one to be drawn."""

    prompt: Sequence[int]
    output: Sequence[int] = ()


@dataclass(frozen=True)
class Order:
    """One engine's way: its steps in order, and where its details differ.

    Attributes:
        steps: names of `STEPS`, in order.
        counts_prompt: presence and frequency penalties look at the prompt too.
        window: penalties look at so many ids, when the request does not say.
        keeps_ties: top-k keeps every token as likely as the k-th, typical sampling every one as typical as its last.
        keeps_boundary: top-p keeps a token when the mass before it is p exactly.
        typical_keeps_boundary: the same for typical sampling.
    """

    steps: tuple[str, ...]
    counts_prompt: bool = False
    window: int | None = None
    keeps_ties: bool = False
    keeps_boundary: bool = False
    typical_keeps_boundary: bool = False


ORDERS: dict[str, Order] = {
    "camelid": Order(
        (
            *("bias", "repetition", "presence", "frequency", "temperature"),
            *("top_n_sigma", "top_k", "top_p", "min_p", "typical", "epsilon", "eta"),
        )
    ),
    "llama.cpp": Order(
        (
            *("bias", "repetition", "frequency", "presence"),
            *("top_n_sigma", "top_k", "typical", "top_p", "min_p", "temperature"),
        ),
        counts_prompt=True,
        window=64,
        typical_keeps_boundary=True,
    ),
    "vllm": Order(
        ("bias", "repetition", "frequency", "presence", "temperature", "min_p", "top_k", "top_p"),
        keeps_ties=True,
    ),
    "hf": Order(
        ("bias", "repetition", "temperature", "top_k", "top_p", "min_p", "typical", "epsilon", "eta"),
        keeps_ties=True,
    ),
    "meta": Order(("temperature", "top_p"), keeps_boundary=True),
}


def _bias(logits: Logits, params: SamplingParams, seen: Seen, order: Order) -> Logits:
    for id, value in params.logit_bias.items():
        logits[id] += value
    return logits


def _recent(ids: Sequence[int], params: SamplingParams, order: Order) -> NDArray[np.int64]:
    window = params.penalty_window or order.window
    return np.asarray(ids[-window:] if window else ids, np.int64)


def _repetition(logits: Logits, params: SamplingParams, seen: Seen, order: Order) -> Logits:
    """Keskar et al. 2019 (arXiv:1909.05858): seen ids lose, whichever sign their logit has."""
    ids = np.unique(_recent([*seen.prompt, *seen.output], params, order))
    values = logits[ids]
    logits[ids] = np.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
    return logits


def _counted(params: SamplingParams, seen: Seen, order: Order) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = [*seen.prompt, *seen.output] if order.counts_prompt else list(seen.output)
    unique, counts = np.unique(_recent(ids, params, order), return_counts=True)
    return unique, counts


def _presence(logits: Logits, params: SamplingParams, seen: Seen, order: Order) -> Logits:
    ids, _ = _counted(params, seen, order)
    logits[ids] -= params.presence_penalty
    return logits


def _frequency(logits: Logits, params: SamplingParams, seen: Seen, order: Order) -> Logits:
    ids, counts = _counted(params, seen, order)
    logits[ids] -= counts * params.frequency_penalty
    return logits


def _temperature(logits: Logits, params: SamplingParams, seen: Seen, order: Order) -> Logits:
    return logits / params.temperature


def _top_k(logits: Logits, params: SamplingParams, seen: Seen, order: Order) -> Logits:
    if params.top_k >= len(logits):
        return logits
    kth = np.partition(logits, -params.top_k)[-params.top_k]
    keep = logits >= kth
    if not order.keeps_ties:
        surplus = int(keep.sum()) - params.top_k
        if surplus:
            keep[np.flatnonzero(logits == kth)[-surplus:]] = False
    return _only(logits, keep)


def _top_n_sigma(logits: Logits, params: SamplingParams, seen: Seen, order: Order) -> Logits:
    """Tang et al. 2024 (arXiv:2411.07641): not further below the highest logit than n standard deviations."""
    deviation = logits[_alive(logits)].std()
    return _only(logits, logits >= logits.max() - params.top_n_sigma * deviation)


def _top_p(logits: Logits, params: SamplingParams, seen: Seen, order: Order) -> Logits:
    """Nucleus sampling (Holtzman et al. 2019, arXiv:1904.09751): the likeliest ids, until their mass reaches p."""
    probabilities = softmax(logits)
    # Ids below (1 - p) / 2V hold less than (1 - p) / 2 together, so the others exceed p: only those need sorting.
    ids = np.flatnonzero(probabilities > (1 - params.top_p) / (2 * len(logits)))
    ranked = ids[np.argsort(-logits[ids], kind="stable")]
    n = _reaching(probabilities[ranked], params.top_p, order.keeps_boundary)
    return _keep(logits, ranked[:n])


def _min_p(logits: Logits, params: SamplingParams, seen: Seen, order: Order) -> Logits:
    """Nguyen et al. 2024 (arXiv:2407.01082): at least a share of the likeliest probability."""
    return _only(logits, logits >= logits.max() + np.log(params.min_p))


def _typical(logits: Logits, params: SamplingParams, seen: Seen, order: Order) -> Logits:
    """Locally typical sampling (Meister et al. 2022, arXiv:2202.00666): surprise near the entropy comes first."""
    ids = _alive(logits)
    logs = logits[ids] - log_sum(logits[ids])
    distances = np.abs(-logs - _entropy(logs))
    ranked = np.argsort(distances, kind="stable")
    n = _reaching(np.exp(logs[ranked]), params.typical, order.typical_keeps_boundary)
    if order.keeps_ties:
        n = int(np.searchsorted(distances[ranked], distances[ranked[n - 1]], side="right"))
    return _keep(logits, ids[ranked[:n]])


def _epsilon(logits: Logits, params: SamplingParams, seen: Seen, order: Order) -> Logits:
    """Hewitt et al. 2022 (arXiv:2210.15191): at least a fixed probability; the likeliest always stays."""
    return _at_least(logits, params.epsilon)


def _eta(logits: Logits, params: SamplingParams, seen: Seen, order: Order) -> Logits:
    """The same paper: less is enough where the distribution is flat."""
    entropy = _entropy(logits[_alive(logits)] - log_sum(logits))
    return _at_least(logits, min(params.eta, params.eta**0.5 * float(np.exp(-entropy))))


@dataclass(frozen=True)
class SamplingStep:
    """A row of the table: what turns it off, and what it does. `field` is the parameter that steers it."""

    field: str
    off: object
    apply: Callable[[Logits, SamplingParams, Seen, Order], Logits]


STEPS: dict[str, SamplingStep] = {
    "bias": SamplingStep("logit_bias", {}, _bias),
    "repetition": SamplingStep("repetition_penalty", 1.0, _repetition),
    "presence": SamplingStep("presence_penalty", 0.0, _presence),
    "frequency": SamplingStep("frequency_penalty", 0.0, _frequency),
    "temperature": SamplingStep("temperature", 1.0, _temperature),
    "top_n_sigma": SamplingStep("top_n_sigma", 0.0, _top_n_sigma),
    "top_k": SamplingStep("top_k", 0, _top_k),
    "top_p": SamplingStep("top_p", 1.0, _top_p),
    "min_p": SamplingStep("min_p", 0.0, _min_p),
    "typical": SamplingStep("typical", 1.0, _typical),
    "epsilon": SamplingStep("epsilon", 0.0, _epsilon),
    "eta": SamplingStep("eta", 0.0, _eta),
}
_BEFORE_GREEDY = ("bias", "repetition", "presence", "frequency")


def check(params: SamplingParams, vocab_size: int, absent: NDArray[np.int64] | None = None) -> None:
    """Refuse choices that would be ignored or cannot be. `absent` are ids in the vocabulary that are no token.

    Raises:
        OptionError: the order has no step for a choice, choices contradict each other, or an id is not in the
            vocabulary.
    """
    order = ORDERS[params.order]
    for name, step in STEPS.items():
        if name not in order.steps and getattr(params, step.field) != step.off:
            raise OptionError(
                f"{step.field}: order {params.order!r} has no such step; leave it out or choose another",
                param=step.field,
            )
    for id, value in params.logit_bias.items():
        if not (value == -math.inf or abs(value) <= LARGEST_BIAS):
            wanted = f"-inf or a number from {-LARGEST_BIAS:g} to {LARGEST_BIAS:g}"
            raise OptionError(f"logit_bias: for id {id} must be {wanted}, got {value}", param="logit_bias")
    for name, ids in (("logit_bias", params.logit_bias), ("stop_ids", params.stop_ids)):
        for id in ids:
            if not 0 <= id < vocab_size:
                raise OptionError(f"{name}: id {id} lies outside the vocabulary of {vocab_size} ids", param=name)
            if absent is not None and id in absent:
                raise OptionError(
                    f"{name}: id {id} is no token of this model, and never written; leave it out", param=name
                )
    if params.max_tokens is not None and params.min_tokens > params.max_tokens:
        raise OptionError(
            f"min_tokens: {params.min_tokens} is more than max_tokens, {params.max_tokens}; lower it",
            param="min_tokens",
        )


def active_steps(params: SamplingParams) -> list[str]:
    """Names of the steps that do something, in order."""
    steps = [name for name in ORDERS[params.order].steps if getattr(params, STEPS[name].field) != STEPS[name].off]
    return [name for name in steps if name in _BEFORE_GREEDY] if is_greedy(params) else steps


def is_greedy(params: SamplingParams) -> bool:
    """Whether the likeliest id is taken instead of a drawn one."""
    return params.temperature < GREEDY


def process(logits: NDArray[np.float32], params: SamplingParams, seen: Seen) -> Logits:
    """Logits after all active steps, float64 (V,).

    Raises:
        NumericsError: logits are not numbers, or no id is left.
    """
    result = checked(logits)
    for name in active_steps(params):
        result = STEPS[name].apply(result, params, seen, ORDERS[params.order])
        if name == "bias":
            _checked(result)  # later steps need an id that may come
    return _checked(result)


def checked(logits: NDArray[np.float32]) -> Logits:
    """A float64 copy of logits that are numbers; -inf (an id that may not come) is fine.

    Raises:
        NumericsError: NaN or +inf among them, or nothing but -inf.
    """
    return _checked(logits.astype(np.float64))


def _checked(logits: Logits) -> Logits:
    highest = logits.max()
    if np.isnan(highest) or highest == np.inf:
        raise NumericsError("logits are not finite; the weights are damaged or overflow in this dtype: try float32")
    if highest == -np.inf:
        raise NumericsError("no id may come next; loosen logit_bias or the constrained form")
    return logits


def distribution(
    logits: NDArray[np.float32], params: SamplingParams, prompt: Sequence[int], output: Sequence[int] = ()
) -> NDArray[np.float64]:
    """Probabilities that an id is drawn from, (V,); a single one when greedy. `prompt` and `output` come before it."""
    processed = process(logits, params, Seen(prompt, output))
    if is_greedy(params):
        chosen = np.zeros_like(processed)
        chosen[processed.argmax()] = 1
        return chosen
    return softmax(processed)


def allowed(
    logits: NDArray[np.float32], request: Request, n_written: int, constraint: Constraint | None
) -> NDArray[np.float32]:
    """Logits with what the form forbids, and stops that must not come or come too early, at -inf."""
    if constraint is not None:
        return np.where(constraint.mask(), logits, np.float32(-np.inf))
    banned = set(request.stop_ids) if request.params.ignore_stop else set()
    if n_written < request.params.min_tokens:
        banned |= request.all_stop_ids
    if banned:
        logits = logits.copy()
        logits[[id for id in banned if 0 <= id < len(logits)]] = -np.inf
    return logits


def chance(seed: int, sample: int, index: int, purpose: int = 0) -> float:
    """A random number below 1: the same for the same arguments, whatever runs beside."""
    generator = np.random.Generator(np.random.Philox(key=[seed, sample], counter=[index, purpose, 0, 0]))
    return generator.random()


def draw(probabilities: NDArray[np.float64], seed: int, sample: int, index: int) -> int:
    """An id drawn with these probabilities, (V,), by `chance`."""
    possible = np.flatnonzero(probabilities)
    cumulative = np.cumsum(probabilities[possible])
    place = np.searchsorted(cumulative, chance(seed, sample, index) * cumulative[-1], side="right")
    return int(possible[min(place, len(possible) - 1)])  # rounding may carry past the last possible id


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Probabilities of logits, (V,)."""
    left = _alive(logits)
    if 4 * len(left) < len(logits):  # steps leave few ids as a rule: nothing else needs a power
        result = np.zeros_like(logits)
        result[left] = softmax(logits[left])
        return result
    powers = np.exp(logits - logits.max())
    powers /= powers.sum()
    return powers


def log_sum(logits: Logits) -> float:
    """What a logit exceeds its log-probability by, in float64."""
    highest = logits.max()
    return float(highest + np.log(np.exp(logits - highest).sum()))


def raw_logprobs(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities before any step, (V,)."""
    wide = logits.astype(np.float64)
    return wide - log_sum(wide)


def raw_log_sum(logits: NDArray[np.float32]) -> float:
    """What a logit exceeds its raw log-probability by. Powers in float32, their sum in float64: good to 1e-7."""
    highest = logits.max()
    return float(highest) + math.log(np.exp(logits - highest).sum(dtype=np.float64))


def _alive(logits: Logits) -> NDArray[np.int64]:
    return np.flatnonzero(logits > -np.inf)


def _only(logits: Logits, keep: NDArray[np.bool_]) -> Logits:
    return np.where(keep, logits, -np.inf)


def _at_least(logits: Logits, probability: float) -> Logits:
    keep = softmax(logits) >= probability
    keep[logits == logits.max()] = True
    return _only(logits, keep)


def _keep(logits: Logits, ids: NDArray[np.int64]) -> Logits:
    keep = np.zeros(len(logits), np.bool_)
    keep[ids] = True
    return _only(logits, keep)


def _reaching(masses: NDArray[np.float64], mass: float, keeps_boundary: bool) -> int:
    """How many of the ranked masses are kept until they hold `mass`; the first one always."""
    before = np.concatenate([[0.0], np.cumsum(masses)[:-1]])
    return int((before <= mass if keeps_boundary else before < mass).sum())


def _entropy(logs: Logits) -> float:
    """Entropy in nats of finite log-probabilities."""
    return float(-(np.exp(logs) * logs).sum())

"""Sampling choices: as keywords of Python's functions, and those that a model's files recommend."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from camelid.engine.request import Order, SamplingParams
from camelid.errors import OptionError
from camelid.weights.weights import Weights

if TYPE_CHECKING:
    from camelid.chat.constrain import Form

log = logging.getLogger(__name__)


class OrderlessKeywords(TypedDict, total=False):
    """The fields of `SamplingParams` but `order` as keywords; what they mean, their ranges and defaults stand there."""

    temperature: float
    top_n_sigma: float
    top_k: int
    top_p: float
    min_p: float
    typical: float
    epsilon: float
    eta: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    penalty_window: int | None
    logit_bias: Mapping[int, float]
    seed: int | None
    n: int
    max_tokens: int | None
    min_tokens: int
    ignore_stop: bool
    stop: Sequence[str]
    stop_ids: Sequence[int]
    logprobs: int | None
    draft_tokens: int | Literal["auto"]


class SamplingKeywords(OrderlessKeywords, total=False):
    """All fields of `SamplingParams` as keywords."""

    order: Order


class GenerateKeywords(SamplingKeywords, total=False):
    """What `Llama.request` takes beside the prompt."""

    form: Form | None


class ChatKeywords(GenerateKeywords, total=False):
    """What `Llama.chat_request` takes beside the conversation."""

    tools: Sequence[Mapping[str, Any]]
    parallel_tool_calls: bool
    continue_final_message: bool | None


class InfillKeywords(OrderlessKeywords, total=False):
    """What `Llama.infill_request` takes beside the text: `order` is that of prefix and suffix."""

    order: Literal["psm", "spm"]


def recommended(weights: Weights, absent: NDArray[np.int64]) -> SamplingParams:
    """`SamplingParams` with what the files say. What lies outside our ranges is named in the log and left at our
    default, so that no model is unusable for it.

    Args:
        weights: the opened model.
        absent: ids that are no token.
    """
    used: dict[str, Any] = {}
    for name, value in weights.sampling.items():
        if name == "logit_bias":
            there = {*range(weights.config.vocab_size)} - {*absent.tolist()}
            value = {id: bias for id, bias in value.items() if id in there}
        try:
            SamplingParams(**{name: value})
        except OptionError as error:
            log.warning("%s: recommends what is not used: %s", weights.path, error)
        else:
            used[name] = value
    return SamplingParams(**used)

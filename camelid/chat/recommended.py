"""The sampling choices that a model's files recommend, as far as they can be used here."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.engine.request import SamplingParams
from camelid.errors import OptionError
from camelid.weights.weights import Weights

log = logging.getLogger(__name__)


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

"""Rotary position embedding: the cosine and sine tables for every scaling rule. All forwards are given these tables.

Angles follow the field's float32 arithmetic on purpose: at position 100,000 a float32 angle is exact to 0.008 only, so
agreement with other implementations means rounding where they round.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from camelid.model.config import ModelConfig, RopeScaling

Array = NDArray[np.float32]


def rope_table(config: ModelConfig, positions: NDArray[np.int64], read: int = 0) -> tuple[Array, Array]:
    """Cosine and sine of every position's angles, each (len(positions), head_dim / 2).

    Args:
        config: the shape.
        positions: of the ids.
        read: how many ids the text had when it was first read, all at once: its prompt. Rules that depend on a text's
            length take this one for the prompt, and for each id written after it the length up to this id, which is
            what transformers' `generate` with a cache does.
    """
    where = np.asarray(positions)
    frequencies = inverse_frequencies(config)  # (head_dim / 2,)
    if depends_on_length(config):
        lengths = [scaled_length(config, int(length)) for length in np.maximum(where + 1, read)]
        rows = {length: inverse_frequencies(config, length) for length in set(lengths)}
        frequencies = np.array([rows[length] for length in lengths]).reshape(-1, len(frequencies))  # (n, head_dim / 2)
    angles = where.astype(np.float32)[:, None] * frequencies  # (n, head_dim / 2)
    exact = angles.astype(np.float64)
    scale = attention_scale(config.rope_scaling)
    return (np.cos(exact) * scale).astype(np.float32), (np.sin(exact) * scale).astype(np.float32)


def depends_on_length(config: ModelConfig) -> bool:
    """Whether a position's angles depend on how long the text is."""
    return config.rope_scaling is not None and config.rope_scaling.rule in ("dynamic", "longrope")


def scaled_length(config: ModelConfig, length: int) -> int:
    """What counts of a text's length: texts with the same have the same angles. 0: within the original context."""
    scaling = config.rope_scaling
    if scaling is None or not depends_on_length(config) or length <= scaling.original_context:
        return 0
    return length if scaling.rule == "dynamic" else scaling.original_context + 1


def inverse_frequencies(config: ModelConfig, length: int = 0) -> Array:
    """Radians per position of each rotating pair, (head_dim / 2,), in a text of `length` ids by the scaling rule."""
    plain = _plain_frequencies(config.head_dim, config.rope_theta)
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    if depends_on_length(config):
        return (_dynamic if scaling.rule == "dynamic" else _longrope)(plain, scaling, config, length)
    rules = {"linear": _linear, "llama3": _llama3, "yarn": _yarn, "divisors": _divisors}
    return rules[scaling.rule](plain, scaling, config)


def divisors(config: ModelConfig) -> Array:
    """By how much the scaling rule divides each plain frequency, (head_dim / 2,): GGUF's `rope_freqs` tensor."""
    plain = _plain_frequencies(config.head_dim, config.rope_theta).astype(np.float64)
    return (plain / inverse_frequencies(config).astype(np.float64)).astype(np.float32)


def recognise_divisors(head_dim: int, theta: float, values: NDArray[np.float32]) -> RopeScaling:
    """The rule behind GGUF's `rope_freqs` (head_dim / 2,): Llama 3's if its constants explain them, else the values.

    Knowing the rule lets a file be converted to formats that name rules instead of listing divisors.
    """
    given = np.asarray(values, np.float64)
    guess = RopeScaling(rule="llama3", factor=float(given.max()))
    plain = _plain_frequencies(head_dim, theta)
    scaled = _llama3(plain, guess, None).astype(np.float64)
    if guess.factor > 1 and np.allclose(plain / scaled, given, rtol=1e-5):
        return guess
    return RopeScaling(rule="divisors", divisors=tuple(float(value) for value in given))


def attention_scale(scaling: RopeScaling | None) -> float:
    """Factor on both tables: YaRN's attention temperature (arXiv:2309.00071, equation 22), LongRoPE's, else 1."""
    if scaling is None or scaling.rule not in ("yarn", "longrope"):
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0


def _plain_frequencies(head_dim: int, theta: float) -> Array:
    return np.reciprocal(_powers(head_dim, theta))


def _powers(head_dim: int, theta: float) -> Array:
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    # The power in float64, rounded once, meets other float32 implementations to the last bit nearly everywhere.
    powers: Array = np.power(np.float64(theta), exponents.astype(np.float64)).astype(np.float32)
    return powers


def _linear(plain: Array, scaling: RopeScaling, config: ModelConfig | None) -> Array:
    return np.divide(plain, np.float32(scaling.factor))


def _dynamic(plain: Array, scaling: RopeScaling, config: ModelConfig, length: int) -> Array:
    """A longer text turns more slowly, by a higher base; in float32 step by step, as transformers reckons."""
    if length <= scaling.original_context:
        return plain
    f32, width = np.float32, config.head_dim
    stretch = f32(f32(scaling.factor * length) / f32(scaling.original_context)) - f32(scaling.factor - 1)
    base = f32(config.rope_theta) * f32(np.float64(stretch) ** (width / (width - 2)))
    return _plain_frequencies(width, float(base))


def _longrope(plain: Array, scaling: RopeScaling, config: ModelConfig, length: int) -> Array:
    by = scaling.long_divisors if length > scaling.original_context else scaling.divisors
    return np.reciprocal(np.asarray(by, np.float32) * _powers(config.head_dim, config.rope_theta))


def _divisors(plain: Array, scaling: RopeScaling, config: ModelConfig | None) -> Array:
    return np.divide(plain, np.asarray(scaling.divisors, np.float32))


def _llama3(plain: Array, scaling: RopeScaling, config: ModelConfig | None) -> Array:
    """Llama 3.1's rule: short wavelengths stay, long ones are divided, those between are blended."""
    wavelength = np.float32(2 * math.pi) / plain
    low, high = np.float32(scaling.low_freq_factor), np.float32(scaling.high_freq_factor)
    share = (np.float32(scaling.original_context) / wavelength - low) / (high - low)
    divided = plain / np.float32(scaling.factor)
    blended = (1 - share) * divided + share * plain
    long, short = wavelength > scaling.original_context / low, wavelength < scaling.original_context / high
    return np.where(short, plain, np.where(long, divided, blended)).astype(np.float32)


def _yarn(plain: Array, scaling: RopeScaling, config: ModelConfig | None) -> Array:
    """YaRN's "NTK by parts": pairs that turn often keep their speed, pairs that turn rarely are interpolated."""
    assert config is not None
    width = config.head_dim

    def pair_that_turns(turns: float) -> float:
        return width * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low = max(math.floor(pair_that_turns(scaling.beta_fast)), 0)  # below it, pairs turn often and keep their speed
    high = min(math.ceil(pair_that_turns(scaling.beta_slow)), width - 1)
    pairs = np.arange(width // 2, dtype=np.float32)
    interpolated = np.clip((pairs - low) / max(high - low, 0.001), 0, 1).astype(np.float32)
    return (plain / np.float32(scaling.factor)) * interpolated + plain * (1 - interpolated)

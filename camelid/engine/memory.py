"""What a model needs of memory, and what fits into it: said before anything is loaded."""

from __future__ import annotations

import logging

from camelid.engine.options import EngineOptions
from camelid.errors import OptionError, ResourceError
from camelid.model.config import ModelConfig
from camelid.weights.weights import Weights

log = logging.getLogger(__name__)

GB = 10**9
SCRATCH = 0.3 * GB  # Python, NumPy, and the intermediates of a chunk
CACHE_SHARE = 0.25  # of the free memory may become key/value cache beyond one context


def cache_bytes_per_token(config: ModelConfig, bytes_per_number: int) -> int:
    """Keys and values of one position in all layers."""
    return 2 * config.n_layers * config.kv_dim * bytes_per_number


def check_fits(
    weights: Weights,
    bytes_per_weight: float,
    options: EngineOptions,
    backend: str,
    free: int,
    bytes_per_number: int | None = None,
) -> None:
    """Refuse a model that cannot fit into `free` bytes, before it is loaded.

    `bytes_per_number` is of keys and values, where they are not stored as weights are.

    Raises:
        ResourceError: says what is needed, what is free, and which settings would fit.
    """
    config = weights.config
    needed = config.n_parameters * bytes_per_weight + SCRATCH
    context = options.context or min(config.context, 2048)
    positions = max(context, options.cache_tokens or 0)
    bytes_per_number = bytes_per_number or int(bytes_per_weight)
    cache = positions * cache_bytes_per_token(config, bytes_per_number)
    if needed + cache <= free:
        return
    raise ResourceError(
        f"{weights.path}: needs {(needed + cache) / GB:.1f} GB of memory on the {backend} backend "
        f"({needed / GB:.1f} for weights, {cache / GB:.1f} for {positions} tokens of cache), {free / GB:.1f} GB free; "
        f"{_advice(config, bytes_per_number, free - needed, options)}"
    )


def _advice(config: ModelConfig, bytes_per_number: int, left: float, options: EngineOptions) -> str:
    room = int(left // cache_bytes_per_token(config, bytes_per_number)) // 64 * 64
    if room >= 128:
        flags = f"--context {room}" + (f" --cache-tokens {room}" if options.cache_tokens is not None else "")
        return f"{flags} would fit"
    if bytes_per_number > 2:
        return "try --backend cpu, which leaves quantised weights as they are, or a smaller model"
    return "choose a smaller model, or a machine with more memory"


def fitting_context(config: ModelConfig, options: EngineOptions, bytes_per_number: int, free: int) -> int:
    """The context asked for, else the model's own, reduced (and said so) only if `free` bytes demand it."""
    asked = options.context
    if asked is not None:
        if asked > config.context:
            log.warning("context %d: beyond %d, which the model was made for, text gets worse", asked, config.context)
        return asked
    room = int(0.8 * free // cache_bytes_per_token(config, bytes_per_number))
    if room >= config.context:
        return config.context
    log.warning("context reduced from %d to %d tokens: memory for the cache ends there", config.context, room)
    return max(room, 1)


def cache_tokens(config: ModelConfig, options: EngineOptions, context: int, bytes_per_number: int, free: int) -> int:
    """Positions the pool has room for: what was asked for, else a context and more while `free` bytes are plenty.

    Raises:
        OptionError: less than a context was asked for, so that a long request could never end.
    """
    if options.cache_tokens is None:
        plenty = int(free * CACHE_SHARE // cache_bytes_per_token(config, bytes_per_number))
        return max(context, min(plenty, 8 * context))
    if options.cache_tokens < context:
        raise OptionError(
            f"cache_tokens: {options.cache_tokens} is less than the context, {context}; raise it or give "
            f"--context {options.cache_tokens}",
            param="cache_tokens",
        )
    return options.cache_tokens

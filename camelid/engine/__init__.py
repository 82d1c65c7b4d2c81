"""Ids in, ids out, many requests at once: scheduling, the key/value cache, sampling, and who computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camelid.engine.engine import Engine
    from camelid.engine.options import EngineOptions
    from camelid.engine.request import Request, SamplingParams, Token

__all__ = ["Engine", "EngineOptions", "Request", "SamplingParams", "Token"]

_HOMES = {
    "Engine": "engine",
    "EngineOptions": "options",
    "Request": "request",
    "SamplingParams": "request",
    "Token": "request",
}


def __getattr__(name: str) -> Any:
    from camelid._lazy import load_name

    return load_name(__name__, _HOMES, name)

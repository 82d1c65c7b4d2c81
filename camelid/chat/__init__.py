"""Text in, text out: load a model, generate, converse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camelid.chat.constrain import Form
    from camelid.chat.llama import Llama
    from camelid.chat.load import load
    from camelid.chat.results import Generation

__all__ = ["Form", "Generation", "Llama", "load"]

_HOMES = {"Form": "constrain", "Generation": "results", "Llama": "llama", "load": "load"}


def __getattr__(name: str) -> Any:
    from camelid._lazy import load_name

    return load_name(__name__, _HOMES, name)

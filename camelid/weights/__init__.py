"""Files become arrays, arrays become files: GGUF, Hugging Face and Meta folders, read, written and converted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camelid.weights.convert import save_weights
    from camelid.weights.open import Weights, open_weights
    from camelid.weights.quants import QUANTS
    from camelid.weights.tensor import Tensor

__all__ = ["QUANTS", "Tensor", "Weights", "open_weights", "save_weights"]

_HOMES = {
    "QUANTS": "quants",
    "Tensor": "tensor",
    "Weights": "open",
    "open_weights": "open",
    "save_weights": "convert",
}


def __getattr__(name: str) -> Any:
    from camelid._lazy import load_name

    return load_name(__name__, _HOMES, name)

"""What a Llama is: its shape, its family, and the forward pass as a definition (NumPy) and for training (PyTorch)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camelid.model.config import ModelConfig, RopeScaling
    from camelid.model.family import ARCHITECTURES, FAMILY
    from camelid.model.rope import rope_table

__all__ = ["ARCHITECTURES", "FAMILY", "ModelConfig", "RopeScaling", "rope_table"]

_HOMES = {
    "ARCHITECTURES": "family",
    "FAMILY": "family",
    "ModelConfig": "config",
    "RopeScaling": "config",
    "rope_table": "rope",
}


def __getattr__(name: str) -> Any:
    from camelid._lazy import load_name

    return load_name(__name__, _HOMES, name)

"""camelid: the whole life of an open Llama in one package.

    import camelid

    llama = camelid.load()                       # the small default model; or a folder, a .gguf file, a name
    print(llama.chat("What is the capital of France?").text)

Names load on first use: `import camelid` itself loads neither NumPy nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camelid.chat.llama import Llama
    from camelid.chat.load import load
    from camelid.engine.request import SamplingParams
    from camelid.errors import CamelidError
    from camelid.tokens.templates.message import Message

__version__ = "0.1.0"
__all__ = ["CamelidError", "Llama", "Message", "SamplingParams", "__version__", "load"]

_HOMES = {
    "CamelidError": "errors",
    "Llama": "chat.llama",
    "Message": "tokens.templates.message",
    "SamplingParams": "engine.request",
    "load": "chat.load",
}


def __getattr__(name: str) -> Any:
    from camelid._lazy import load_name

    return load_name(__name__, _HOMES, name)

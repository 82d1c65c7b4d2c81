"""Text and conversations become ids, and back: tokenizers of every file form, streams, chat formats, infilling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camelid.tokens.chat_format import FORMATS, Message, choose_format
    from camelid.tokens.infill import encode_infill
    from camelid.tokens.stream import TextStream
    from camelid.tokens.tokenizer import Tokenizer

__all__ = ["FORMATS", "Message", "TextStream", "Tokenizer", "choose_format", "encode_infill"]

_HOMES = {
    "FORMATS": "chat_format",
    "Message": "chat_format",
    "TextStream": "stream",
    "Tokenizer": "tokenizer",
    "choose_format": "chat_format",
    "encode_infill": "infill",
}


def __getattr__(name: str) -> Any:
    from camelid._lazy import load_name

    return load_name(__name__, _HOMES, name)

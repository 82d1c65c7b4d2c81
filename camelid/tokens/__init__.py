"""Text and conversations become ids, and back: every file form, learned ones, streams, chat formats, infilling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camelid.tokens.files.save import save_tokenizer
    from camelid.tokens.infill import encode_infill
    from camelid.tokens.stream import TextStream
    from camelid.tokens.templates.chat_format import FORMATS, ChatFormat, Image, Message, Rendered, Text, choose_format
    from camelid.tokens.tokenizer import Tokenizer
    from camelid.tokens.training import TokenizerOptions, learn

__all__ = [
    "FORMATS",
    "ChatFormat",
    "Image",
    "Message",
    "Rendered",
    "Text",
    "TextStream",
    "Tokenizer",
    "TokenizerOptions",
    "choose_format",
    "encode_infill",
    "learn",
    "save_tokenizer",
]

_HOMES = {
    "FORMATS": "templates.chat_format",
    "ChatFormat": "templates.chat_format",
    "Image": "templates.chat_format",
    "Message": "templates.chat_format",
    "Rendered": "templates.chat_format",
    "Text": "templates.chat_format",
    "TextStream": "stream",
    "Tokenizer": "tokenizer",
    "TokenizerOptions": "training",
    "choose_format": "templates.chat_format",
    "encode_infill": "infill",
    "learn": "training",
    "save_tokenizer": "files.save",
}


def __getattr__(name: str) -> Any:
    from camelid._lazy import load_name

    return load_name(__name__, _HOMES, name)

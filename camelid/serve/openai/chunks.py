"""Chunks of streamed answers, as bytes of server-sent events.

Nearly all chunks are a piece of text and nothing else, so what they have in common is written once a stream.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from camelid.serve.event_stream import event
from camelid.serve.openai.choices import Piece
from camelid.serve.openai.replies import ChatLogprobs, TextLogprobs, Usage
from camelid.tokens.templates.tool_calls import Arguments, CallBegun

DONE = b"data: [DONE]\n\n"


class Chunks:
    """Writes the chunks of one stream.

    Args:
        head: id, object, created, model and system_fingerprint.
        with_usage: the stream ends with counts, and every chunk before says `"usage":null`.
        choice: a choice that holds this text, with the finish reason and the log-probabilities null.
    """

    def __init__(self, head: Mapping[str, Any], with_usage: bool, choice: Callable[[int, str], dict[str, Any]]) -> None:
        self._head, self._choice = head, choice
        self._rest: dict[str, Any] = {"usage": None} if with_usage else {}
        self._around: dict[int, tuple[bytes, bytes]] = {}  # index → what stands before and after its text

    def one(self, choice: Mapping[str, Any]) -> bytes:
        """A chunk of one choice."""
        return event({**self._head, "choices": [choice], **self._rest})

    def text(self, index: int, text: str) -> bytes:
        """A chunk that only brings text."""
        if index not in self._around:
            place = secrets.token_hex(16)  # stands where the text will, and nowhere else
            before, after = self.one(self._choice(index, place)).split(json.dumps(place).encode())
            self._around[index] = before, after
        before, after = self._around[index]
        return before + json.dumps(text).encode() + after

    def usage(self, usage: Usage) -> bytes:
        """The last chunk, of no choices."""
        return event({**self._head, "choices": [], "usage": usage.model_dump()})


class ChatChunks:
    """The chunks of a streamed chat answer."""

    def __init__(self, head: Mapping[str, Any], with_usage: bool) -> None:
        self._chunks = Chunks(head, with_usage, lambda index, text: _chat_choice(index, {"content": text}))
        self._begun: set[int] = set()
        self.usage = self._chunks.usage

    def piece(self, piece: Piece) -> bytes:
        """What one piece adds, as one chunk or several."""
        if piece.index in self._begun and piece.text and not (piece.calls or piece.logged or piece.finish_reason):
            return self._chunks.text(piece.index, piece.text)
        written = []
        if piece.index not in self._begun:
            self._begun.add(piece.index)
            written.append(_chat_choice(piece.index, {"role": "assistant", "content": "", "refusal": None}))
        if piece.text or piece.logged:
            logprobs = ChatLogprobs.of(piece.logged).model_dump() if piece.logged else None
            written.append(_chat_choice(piece.index, {"content": piece.text}, logprobs))
        written += [_chat_choice(piece.index, {"tool_calls": [_call(call)]}) for call in piece.calls]
        if piece.finish_reason:
            written.append(_chat_choice(piece.index, {}, None, piece.finish_reason))
        return b"".join(map(self._chunks.one, written))


def _chat_choice(
    index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _call(call: CallBegun | Arguments) -> dict[str, Any]:
    if isinstance(call, CallBegun):
        function = {"name": call.name, "arguments": ""}
        return {"index": call.index, "id": call.id, "type": "function", "function": function}
    return {"index": call.index, "function": {"arguments": call.text}}


class TextChunks:
    """The chunks of streamed completions; `n_top` is how many alternatives each token has, None: none are reported."""

    def __init__(self, head: Mapping[str, Any], with_usage: bool, n_top: int | None) -> None:
        self._chunks = Chunks(head, with_usage, _text_choice)
        self._n_top = n_top
        self.usage = self._chunks.usage

    def piece(self, piece: Piece) -> bytes:
        """What one piece adds, as one chunk."""
        if not piece.logged and not piece.finish_reason:
            return self._chunks.text(piece.index, piece.text)
        logprobs = TextLogprobs.of(piece.logged, self._n_top or 0).model_dump() if piece.logged else None
        return self._chunks.one(_text_choice(piece.index, piece.text, logprobs, piece.finish_reason))


def _text_choice(
    index: int, text: str, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

"""Answers of both sides as HTML while they are written: the events of a battle, for a page."""

from __future__ import annotations

from typing import Any

from camelid.serve.pages.markdown import Block, MarkdownStream


class Rendering:
    """Makes the texts of one turn's events HTML, in blocks as Direct Chat shows them.

    A `delta` loses its `text` and gets `blocks`, a list of places with their HTML; `end` gets those that are left. All
    blocks of a side in a row are `to_html` of its whole text.
    """

    def __init__(self) -> None:
        self._streams: dict[str, MarkdownStream] = {}

    def of(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event for a page; others than `delta` and `end` stay as they are."""
        kind = event.get("type")
        if kind not in ("delta", "end"):
            return event
        stream = self._streams.setdefault(event["side"], MarkdownStream())
        blocks = stream.push(event["text"]) if kind == "delta" else stream.finish()
        rest = {name: value for name, value in event.items() if name != "text"}
        return {**rest, "blocks": [_pair(block) for block in blocks]}


def _pair(block: Block) -> tuple[int, str]:
    return block.index, block.html

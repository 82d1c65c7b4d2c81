"""Document: one text with where it comes from; what passes between the stages of data preparation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """One text.

    Attributes:
        text: what a model will read.
        id: names the document, unique within its source and the same each time: `python-docs/asyncio.txt#3`.
        source: `name` of the source in the recipe.
        url: where it was found on the web, if it was.
        licence: its own or its source's licence, an SPDX name where there is one.
        meta: what else is known of it, as JSON values.
    """

    text: str
    id: str
    source: str
    url: str | None = None
    licence: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def with_text(self, text: str) -> Document:
        """The same document with another text."""
        return Document(text, self.id, self.source, self.url, self.licence, self.meta)

    def with_meta(self, **known: Any) -> Document:
        """The same document with more known of it."""
        return Document(self.text, self.id, self.source, self.url, self.licence, {**self.meta, **known})

    def as_json(self) -> dict[str, Any]:
        """Keys of a line in `documents/*.jsonl.gz`; `id`, `text`, `source` and `metadata` are Dolma's."""
        line: dict[str, Any] = {"id": self.id, "text": self.text, "source": self.source}
        if self.url is not None:
            line["url"] = self.url
        if self.licence:
            line["licence"] = self.licence
        if self.meta:
            line["metadata"] = dict(self.meta)
        return line

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Document:
        """What `as_json` wrote."""
        return cls(
            text=line["text"],
            id=line["id"],
            source=line["source"],
            url=line.get("url"),
            licence=line.get("licence", ""),
            meta=line.get("metadata", {}),
        )


def n_bytes(text: str) -> int:
    """Length of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))

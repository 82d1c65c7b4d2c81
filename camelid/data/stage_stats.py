"""What a stage did: documents in, out, and dropped, by reason and with examples. Nothing leaves without a count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from camelid.data.document import Document, n_bytes

MOST_EXAMPLES = 10  # of each reason
_EXCERPT = 200  # characters


@dataclass
class StageStats:
    """The statistics of one stage; those of parts of the work add up by `merge`, in the order of the parts.

    Attributes:
        name: of the stage, as in the recipe.
        documents_in, documents_out: `documents_in - documents_out` is the sum of `dropped`.
        bytes_in, bytes_out: of the texts in UTF-8.
        dropped: reason → documents.
        changed: what was done to documents that stay → how often: lines removed, addresses masked.
        examples: reason → the first dropped documents, each {id, excerpt}.
        filters: its work is to drop, so that dropping nothing or everything is worth a warning.
        seconds: of work, over all workers. Not part of `as_json`: two runs of one recipe give one manifest.
    """

    name: str
    documents_in: int = 0
    documents_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    filters: bool = True
    seconds: float = 0.0

    def keep(self, before: Document, after: Document | None = None) -> None:
        """Count a document that goes on, changed or as it was."""
        size = n_bytes(before.text)
        self.documents_in += 1
        self.documents_out += 1
        self.bytes_in += size
        self.bytes_out += size if after is None or after.text is before.text else n_bytes(after.text)

    def drop(self, document: Document, reason: str) -> None:
        """Count a document that ends here."""
        self.documents_in += 1
        self.bytes_in += n_bytes(document.text)
        self.refuse(reason, document.id, document.text)

    def refuse(self, reason: str, id: str, text: str) -> None:
        """Note a reason, with what was dropped; for what never became a document, such as a line that is no JSON."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self.example(reason, id, text)

    def example(self, reason: str, id: str, text: str) -> None:
        """Keep a document as an example of a reason, if there are few yet."""
        seen = self.examples.setdefault(reason, [])
        if len(seen) < MOST_EXAMPLES:
            seen.append({"id": id, "excerpt": text[:_EXCERPT]})

    def change(self, what: str, times: int = 1) -> None:
        """Count something done to a document that stays."""
        if times:
            self.changed[what] = self.changed.get(what, 0) + times

    def merge(self, other: StageStats) -> None:
        """Add the statistics of a later part of the work."""
        self.documents_in += other.documents_in
        self.documents_out += other.documents_out
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.seconds += other.seconds
        for reason, count in other.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        for what, times in other.changed.items():
            self.change(what, times)
        for reason, later in other.examples.items():
            examples = self.examples.setdefault(reason, [])
            examples += later[: MOST_EXAMPLES - len(examples)]

    def warnings(self) -> list[str]:
        """What a person should look at: a filter without effect, or one that leaves nothing."""
        if self.documents_in and not self.documents_out:
            most = max(self.dropped, key=lambda reason: self.dropped[reason], default="no reason given")
            return [f"{self.name}: dropped all of {self.documents_in} documents, most for {most!r}"]
        if self.filters and self.documents_in and not self.dropped and not self.changed:
            return [f"{self.name}: dropped and changed nothing in {self.documents_in} documents"]
        return []

    def as_json(self) -> dict[str, Any]:
        """For the manifest: the same for every run of one recipe, so without times."""
        return {
            "name": self.name,
            "documents_in": self.documents_in,
            "documents_out": self.documents_out,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "dropped": dict(sorted(self.dropped.items())),
            "changed": dict(sorted(self.changed.items())),
            "examples": dict(sorted(self.examples.items())),
            "filters": self.filters,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StageStats:
        """What `as_json` gave."""
        return cls(**values)


def merge_stats(name: str, parts: Iterable[StageStats]) -> StageStats:
    """The statistics of a stage from those of its parts, in their order."""
    parts = list(parts)
    merged = StageStats(name, filters=any(part.filters for part in parts))
    for part in parts:
        merged.merge(part)
    return merged

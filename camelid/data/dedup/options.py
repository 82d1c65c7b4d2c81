"""What a recipe's table `data.dedup` may say."""

from __future__ import annotations

from pydantic import Field

from camelid.options import Options


class DedupOptions(Options):
    """Which documents are the same. Later ones are dropped, in the order of the recipe's sources."""

    url: bool = Field(True, description="Documents with an URL seen before.")
    exact: bool = Field(True, description="Documents with a text seen before.")
    minhash: bool = Field(True, description="Documents nearly the same as one before, by MinHash.")
    paragraph: bool = Field(False, description="Paragraphs seen before are taken out of the documents that stay.")
    words: int = Field(5, ge=1, le=50, description="Words in a row that MinHash compares.")
    bands: int = Field(14, ge=1, le=256, description="Chances that two documents have to be found alike.")
    rows: int = Field(8, ge=1, le=64, description="Values that must agree for each chance.")
    paragraph_words: int = Field(10, ge=1, description="Words that a paragraph has at least to be compared.")

    def stages(self) -> tuple[str, ...]:
        """Those asked for, in the order in which they cluster_duplicates."""
        return tuple(name for name in STAGES if getattr(self, name))

    def chance(self, similarity: float) -> float:
        """How likely MinHash finds two documents whose sets of word runs have this Jaccard similarity."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


STAGES = ("url", "exact", "minhash", "paragraph")

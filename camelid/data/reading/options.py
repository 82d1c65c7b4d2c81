"""What every source of documents has in a recipe, whatever its kind."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from camelid.options import Options


class SourceOptions(Options):
    """One source of documents: what all kinds have. Each kind adds its own in `data/sources/KIND.py`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="Names files and rows of tables.")
    kind: str = Field(description="A file of data/sources: corpus, docstrings, text, jsonl, parquet, dataset.")
    weight: float = Field(
        1.0, ge=1e-9, le=1e9, description="Share of the tokens that training sees, relative to the others'."
    )
    licence: str = Field("", description="Of documents that name none themselves; an SPDX name.")
    malformed: Literal["drop", "error"] = Field("drop", description="What becomes of records that cannot be read.")
    longest: int = Field(4_000_000, ge=1, description="Characters of the longest document; longer ones are dropped.")
    unit_bytes: int = Field(
        32 * 2**20, ge=1, description="Work is shared and resumed in parts of about so many bytes; large files are cut."
    )
    max_documents: int | None = Field(None, ge=1, description="Read no more than so many.")

"""What a recipe's table `data` may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from camelid.data.dedup.options import DedupOptions
from camelid.data.reading.options import SourceOptions
from camelid.data.sources import source_options
from camelid.options import Options


def _source(value: Any) -> Any:
    return source_options(value) if isinstance(value, dict) else value


Source = Annotated[SerializeAsAny[SourceOptions], BeforeValidator(_source)]


class EvaluationFile(Options):
    """One file of test items."""

    path: str = Field(min_length=1, description="JSON lines, a JSON list, or text with blank lines between items.")
    fields: tuple[str, ...] = Field((), description="Of JSON: an item counts where all of these occur.")
    name: str = Field("", description="In reports; the file's name if left out.")


class DecontaminateOptions(Options):
    """Documents that hold text of tests."""

    against: tuple[EvaluationFile, ...] = Field((), description="Files of test items, relative to the recipe.")
    words: int = Field(13, ge=1, le=50, description="So many words in a row are the same text.")
    shortest: int = Field(8, ge=1, description="Items without a field of so many words are not looked for.")
    action: Literal["drop", "cut"] = Field("drop", description="Drop the document, or cut the lines out of it.")


class DataOptions(Options):
    """From documents to tokens."""

    sources: tuple[Source, ...] = Field((), description="Where documents come from.")
    validation: float = Field(0.01, ge=0, lt=1, description="Share of documents held out, chosen by their id.")
    rules: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Filters by name (data/filters), each with the thresholds that differ."
    )
    dedup: DedupOptions = Field(DedupOptions(), description="Which documents are the same.")
    decontaminate: DecontaminateOptions = Field(DecontaminateOptions(), description="Text of tests in documents.")

"""What a stage's table says of the conversations, preferences or prompts that it learns from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from camelid.data.dedup.options import DedupOptions
from camelid.data.options import DataOptions
from camelid.data.reading.fields import FieldOptions
from camelid.errors import OptionError

Form = Literal["conversations", "preferences", "prompts"]
FORMS: tuple[Form, ...] = ("conversations", "preferences", "prompts")
TooLong = Literal["drop", "cut", "error"]


class ChatDataOptions(DataOptions):
    """From records of conversations to ids with a mask. A source's weight is how often each of its records is taken in
    an epoch: 1 once, 2 twice, .5 every other epoch.

    Raises:
        OptionError: a source of text, or one that names a field for its text.
    """

    validation: float = Field(0.0, ge=0, lt=1, description="Share of records held out, chosen by their id.")
    rules: dict[str, dict[str, Any]] = Field(
        default_factory=dict, max_length=0, description="None: filters are for documents."
    )
    dedup: DedupOptions = Field(
        DedupOptions(url=False, minhash=False), description="Which records are the same: to the letter, if not given."
    )
    too_long: TooLong = Field(
        "drop",
        description="What is longer than the context: drop it, cut whole turns from its beginning, or end with an "
        "error. Both of the first are counted.",
    )
    most_refused: float = Field(
        0.05, ge=0, le=1, description="Share of a source's records that may not fit; more is an error."
    )
    chat_format: str | None = Field(None, description="Instead of the model's own template: llama2, chatml …")

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        sources = []
        for source in self.sources:
            if not isinstance(source, FieldOptions):
                raise OptionError(f"sources: {source.name}: kind {source.kind} holds no records; take jsonl or parquet")
            if source.text_field not in (None, "text"):
                raise OptionError(f"sources: {source.name}: text_field is for documents; leave it out")
            sources.append(source.model_copy(update={"text_field": None}))
        if self.dedup.paragraph or self.decontaminate.action == "cut":
            raise OptionError(
                "conversations are kept or dropped whole: no dedup.paragraph, no decontaminate.action = cut"
            )
        object.__setattr__(self, "sources", tuple(sources))

"""Records with fields (a line of JSON, a row of a table) become documents; what cannot is named, not lost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from camelid.data.document import Document
from camelid.data.options import SourceOptions
from camelid.errors import OptionError

_PLAIN = (str, int, float, bool, type(None))


class RecordOptions(SourceOptions):
    """Which field is what. A field named here must be there; `id` and `url` are taken where there are such."""

    text_field: str = Field("text", min_length=1)
    id_field: str | None = Field(None, description="`id` if there is one, else the place in the file.")
    url_field: str | None = Field(None, description="`url` if there is one.")
    licence_field: str | None = Field(None, description="Of one document; the source's `licence` where it is empty.")
    keep_fields: tuple[str, ...] = Field((), description="Other fields to keep as metadata.")


@dataclass(frozen=True, slots=True)
class Malformed:
    """Something that became no document.

    Attributes:
        reason: one of few, as a row of a table.
        id: where it was.
        text: the beginning of what was there.
    """

    reason: str
    id: str
    text: str = ""


def check_fields(options: RecordOptions, known: Iterable[str], where: str) -> None:
    """Refuse a source whose records lack a field that the recipe names.

    Raises:
        OptionError: tells the fields that there are.
    """
    has = sorted(known)
    named = {"text_field": options.text_field, "id_field": options.id_field, "url_field": options.url_field}
    named |= {"licence_field": options.licence_field, **{f"keep_fields {name}": name for name in options.keep_fields}}
    for option, field in named.items():
        if field is not None and field not in has:
            there = ", ".join(has) or "none"
            raise OptionError(
                f"data.sources {options.name}: {where}: no field {field!r} ({option}); its fields: {there}"
            )


def fields(options: RecordOptions, known: Iterable[str]) -> list[str]:
    """The fields that `to_document` looks at, of those there are."""
    wanted = [options.text_field, options.id_field or "id", options.url_field or "url", options.licence_field or ""]
    has = set(known)
    return [name for name in dict.fromkeys([*wanted, *options.keep_fields]) if name in has]


def to_document(record: Mapping[str, Any], options: RecordOptions, place: str) -> Document | Malformed:
    """A record as a document; `place` names it where it has no id."""
    id = record.get(options.id_field or "id")
    id = place if id is None or id == "" else str(id)
    text = record.get(options.text_field)
    if not isinstance(text, str):
        missing = options.text_field not in record
        return Malformed("no text field" if missing else "text is no string", id, repr(record)[:300])
    url = record.get(options.url_field or "url")
    licence = record.get(options.licence_field) if options.licence_field else None
    return Document(
        text=text,
        id=id,
        source=options.name,
        url=url if isinstance(url, str) and url else None,
        licence=licence if isinstance(licence, str) and licence else options.licence,
        meta={name: _plain(record[name]) for name in options.keep_fields if record.get(name) is not None},
    )


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: dates and the like as their text."""
    if isinstance(value, _PLAIN):
        return value
    return json.loads(json.dumps(value, default=str))

"""Records with fields (a line of JSON, a row of a table) become documents; what cannot is named, not lost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from camelid.data.document import Document
from camelid.data.reading.options import SourceOptions
from camelid.errors import OptionError

_MISSING = object()
_PLAIN = (str, int, float, bool, type(None))


class FieldOptions(SourceOptions):
    """Which field is what; `doc.text` is the field `text` in `doc`.

    A field named here must be there; `id` and `url` are taken where there are such.
    """

    text_field: str | None = Field("text", min_length=1)
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


def check_fields(options: FieldOptions, known: Iterable[str], where: str) -> None:
    """Refuse a source whose records lack a field that the recipe names.

    Raises:
        OptionError: tells the fields that there are.
    """
    has = sorted(known)
    record: Mapping[str, Any] = known if isinstance(known, Mapping) else dict.fromkeys(has)
    named = {"text_field": options.text_field, "id_field": options.id_field, "url_field": options.url_field}
    named |= {"licence_field": options.licence_field, **{f"keep_fields {name}": name for name in options.keep_fields}}
    for option, field in named.items():
        nested = field is not None and not isinstance(known, Mapping) and field.partition(".")[0] in has
        if field is not None and not nested and value_of(record, field, _MISSING) is _MISSING:
            there = ", ".join(has) or "none"
            raise OptionError(
                f"data.sources {options.name}: {where}: no field {field!r} ({option}); its fields: {there}"
            )


def fields(options: FieldOptions, known: Iterable[str]) -> list[str]:
    """The fields that `to_document` looks at, of those there are."""
    if options.text_field is None:
        return list(known)
    wanted = [options.text_field, options.id_field or "id", options.url_field or "url", options.licence_field or ""]
    has = set(known)
    tops = (name if name in has else name.partition(".")[0] for name in [*wanted, *options.keep_fields])
    return [name for name in dict.fromkeys(tops) if name in has]


def value_of(record: Mapping[str, Any], field: str, default: Any = None) -> Any:
    """The value of a field: of this very name, or `doc.text` for the field `text` in `doc`."""
    if field in record:
        return record[field]
    value: Any = record
    for part in field.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def to_document(record: Mapping[str, Any], options: FieldOptions, place: str) -> Document | Malformed:
    """A record as a document; `place` names it where it has no id. Without a field for the text the document has none,
    and the whole record as its metadata."""
    id = value_of(record, options.id_field or "id")
    id = place if id is None or id == "" else str(id)
    text = "" if options.text_field is None else value_of(record, options.text_field, _MISSING)
    if not isinstance(text, str):
        missing = text is _MISSING
        return Malformed("no text field" if missing else "text is no string", id, repr(record)[:300])
    url = value_of(record, options.url_field or "url")
    licence = value_of(record, options.licence_field) if options.licence_field else None
    kept = list(record) if options.text_field is None else options.keep_fields
    others = {name: value_of(record, name) for name in kept}
    return Document(
        text=text,
        id=id,
        source=options.name,
        url=url if isinstance(url, str) and url else None,
        licence=licence if isinstance(licence, str) and licence else options.licence,
        meta={name: _plain(value) for name, value in others.items() if value is not None},
    )


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: dates and the like as their text."""
    if isinstance(value, _PLAIN):
        return value
    return json.loads(json.dumps(value, default=str))

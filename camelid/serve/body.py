"""What bodies of requests have in common: what is not known in one is refused by name, or dropped and told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, model_validator
from pydantic_core import PydanticCustomError

IGNORED: ContextVar[list[str] | None] = ContextVar("ignored", default=None)
"""The unknown fields of this request that were dropped; None: they are refused."""

MOST_NAMES = 20  # of ignored fields that are told
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Body(BaseModel):
    """A JSON object. A field that is not known here is left out where it says nothing, else refused by its name.

    Null says nothing. In a message and what belongs to it nor do an empty text, list or object: clients send back all
    fields that some other server's answer once had.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    empty_says_nothing: ClassVar[bool] = False

    @model_validator(mode="wrap")
    @classmethod
    def _without_unknown(cls, given: Any, inner: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(given, dict):
            return inner(given)
        known = {field.alias or name for name, field in cls.model_fields.items()}
        made = inner({name: value for name, value in given.items() if name in known})
        ignored = IGNORED.get()
        for name in (name for name in given if name not in known):
            value = given[name]
            if value is None or (cls.empty_says_nothing and _says_nothing(value)):
                continue
            if ignored is None:
                shown = {"name": str(name).encode("ascii", "backslashreplace").decode()}
                raise PydanticCustomError("unknown_field", "is not supported here; leave it out", shown)
            ignored.append(name if _NAME.fullmatch(name) else "other")
        return made


def ignored_header(names: list[str]) -> str:
    """Names of dropped fields, each once, as a header has them."""
    return ", ".join(list(dict.fromkeys(names))[:MOST_NAMES])


def _says_nothing(value: object) -> bool:
    """Whether there is no number, no flag and no text in it."""
    if isinstance(value, Mapping):
        return all(map(_says_nothing, value.values()))
    if isinstance(value, list):
        return all(map(_says_nothing, value))
    return value is None or value == ""

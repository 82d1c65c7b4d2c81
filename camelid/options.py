"""What a person chooses for a run: frozen, strict, with one home for each default.

An `Options` class is written beside the code it steers. Flags, help texts and JSON fields are made from its
fields; an unknown key or a value out of range is an `OptionError` that names the key.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from camelid.errors import OptionError, one_of


class Options(BaseModel):
    """Base of every group of options: immutable, refuses what it does not know and numbers that are not finite.

    Raises:
        OptionError: unknown key (with the nearest known one) or a value that its field refuses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _first_problem(type(self), error) from None

    def with_(self, **changes: Any) -> Self:
        """A copy with some values changed, checked like a new one."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})

    def over(self, base: Self) -> Self:
        """`base`, changed by the values that were given here; defaults here change nothing."""
        return base.with_(**{name: getattr(self, name) for name in self.model_fields_set})


def _first_problem(kind: type[BaseModel], error: ValidationError) -> OptionError:
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"]) or None
    if param is not None and first["type"] == "extra_forbidden":
        return OptionError(f"{param}: no such option; {one_of(param, kind.model_fields)}", param=param)
    message = first["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "must be")
    given = first["input"]
    got = f", got {given!r}" if isinstance(given, str | int | float | bool) else ""
    return OptionError(f"{param or kind.__name__}: {message}{got}", param=param)

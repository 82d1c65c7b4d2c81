"""Output that must have a form: a regular expression, a JSON schema or a grammar becomes a mask over ids.

The automata are llguidance's. Masks are made on bytes, so a token that straddles punctuation, or half a character, is
judged rightly. Stop ids are allowed exactly where the text so far is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from camelid.chat.forms import Constraint, FormProcess
from camelid.errors import OptionError
from camelid.tokens.tokenizer import Tokenizer

MOST_CHARACTERS = 1 << 20  # of a form
Promise = Literal["json", "calls", "arguments"]  # arguments: of those calls that there are


@dataclass(frozen=True)
class Form:
    """What the output must be: one of `json_schema`, `regex`, `grammar` (Lark, as llguidance reads it).

    A regular expression is Rust's kind: it must match the whole text, and `\\d` is any digit of Unicode.

    Attributes:
        place: what messages call it, if not by the name of what is given.
        schemas: for a grammar: rules that are JSON schemas, by name, and what messages call each.
        promise: what a complete answer is: JSON, calls and nothing else, or text and calls whose arguments are JSON.

    Raises:
        OptionError: none or several are given, or the form itself is wrong, not supported or too complex.
    """

    json_schema: dict[str, Any] | str | None = None
    regex: str | None = None
    grammar: str | None = None
    place: str | None = None
    schemas: Mapping[str, tuple[dict[str, Any], str]] = field(default_factory=dict)
    promise: Promise | None = None

    def written(self) -> tuple[str, dict[str, Any]]:
        """What messages call it, and the form as `form_process.py` reads it."""
        given = [name for name in ("json_schema", "regex", "grammar") if getattr(self, name) is not None]
        if len(given) != 1:
            raise OptionError(
                f"form: give one of json_schema, regex and grammar, got {', '.join(given) or 'none'}", param="form"
            )
        kind = given[0]
        place = self.place or kind
        text = _as_json(self.json_schema, place) if kind == "json_schema" else getattr(self, kind)
        schemas = {name: (_as_json(schema, where), where) for name, (schema, where) in self.schemas.items()}
        n_characters = len(text) + sum(len(schema) for schema, _ in schemas.values())
        if n_characters > MOST_CHARACTERS:
            raise OptionError(
                f"{place}: has {n_characters} characters, the most are {MOST_CHARACTERS}; shorten it", param=place
            )
        return place, {"kind": kind, "text": text, "schemas": schemas}


def _as_json(given: dict[str, Any] | str | None, place: str) -> str:
    """A JSON schema as text; numbers keep the digits they were written with."""
    if isinstance(given, str):
        return given
    if not isinstance(given, dict):
        raise OptionError(f"{place}: must be a JSON object, got {type(given).__name__}", param=place)
    try:
        return json.dumps(given)
    except RecursionError:
        raise OptionError(f"{place}: is nested too deep; flatten it", param=place) from None
    except (TypeError, ValueError) as error:
        raise OptionError(f"{place}: not JSON: {error}", param=place) from None


class Constrainer:
    """Makes constraints for one tokenizer, in a process that the first form starts.

    Args:
        tokenizer: whose ids are masked.
        stop_ids: ids that end a text; at least one.
        vocab_size: length of the logits, which may be longer than the tokenizer's vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer, stop_ids: tuple[int, ...], vocab_size: int) -> None:
        if not stop_ids:
            raise OptionError("constrained output needs a model that has a stop id; this one names none")
        self._vocab_size = vocab_size
        self._process = FormProcess(tokenizer, stop_ids)

    def start(self, form: Form) -> Constraint:
        """A fresh automaton for `form`.

        Raises:
            OptionError: the form is wrong, uses something that is not supported, or is too complex.
            ResourceError: other forms take all the time or memory that there is for them.
        """
        return self._process.compiled(*form.written()).start(self._vocab_size)

    def close(self) -> None:
        """End the process; whoever waits for it is told so."""
        self._process.close()

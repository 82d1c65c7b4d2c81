"""Output that must have a form: a regular expression, a JSON schema or a grammar becomes a mask over ids.

The automata are llguidance's. Masks are made on bytes, so a token that straddles punctuation, or half a character, is
judged rightly. Stop ids are allowed exactly where the text so far is complete.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from camelid.errors import OptionError
from camelid.tokens.tokenizer import Tokenizer

_QUOTED = re.compile(r"\s*\d+ \|")  # a line of a grammar, in a message
# One way to write white space: with free white space a weak model may write blanks for ever.
COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True)
class Form:
    """What the output must be: one of `json_schema`, `regex`, `grammar` (Lark, as llguidance reads it).

    A regular expression is Rust's kind: it must match the whole text, and `\\d` is any digit of Unicode.

    Raises:
        OptionError: none or several are given, or the form itself is wrong or not supported.
    """

    json_schema: dict[str, Any] | str | None = None
    regex: str | None = None
    grammar: str | None = None

    def compiled(self) -> str:
        """The form as a grammar for llguidance."""
        given = [name for name in ("json_schema", "regex", "grammar") if getattr(self, name) is not None]
        if len(given) != 1:
            raise OptionError(f"form: give one of json_schema, regex and grammar, got {', '.join(given) or 'none'}")
        if self.regex is not None:
            return LLMatcher.grammar_from_regex(self.regex)
        if self.grammar is not None:
            return LLMatcher.grammar_from_lark(self.grammar)
        try:
            return LLMatcher.grammar_from_json_schema(_schema(self.json_schema), overrides=COMPACT)
        except ValueError as error:  # such as half a character of UTF-16
            raise OptionError(f"json_schema: {_one_line(str(error))}") from None


def _schema(given: dict[str, Any] | str | None) -> str:
    try:
        schema = json.loads(given) if isinstance(given, str) else given
    except ValueError as error:
        raise OptionError(f"json_schema: not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise OptionError(f"json_schema: must be a JSON object, got {type(schema).__name__}")
    return json.dumps(schema)


class Constraint:
    """The automaton of one running request, as the engine uses it."""

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self._matcher, self._size = matcher, size

    @property
    def finished(self) -> bool:
        """Is the text complete, with nothing that could follow?"""
        return self._matcher.is_stopped()

    def mask(self) -> NDArray[np.bool_]:
        """Which ids may come next, (V,)."""
        allowed = np.frombuffer(self._matcher.compute_logit_bias(), np.uint8) != 0
        self._check()
        mask = np.zeros(self._size, np.bool_)
        mask[: len(allowed)] = allowed[: self._size]
        return mask

    def push(self, id: int) -> None:
        """Take the id that was chosen."""
        self._matcher.consume_token(id)
        self._check()

    def fork(self) -> Constraint:
        """A copy that goes its own way, for another sample of the same request."""
        return Constraint(self._matcher.deep_copy(), self._size)

    def _check(self) -> None:
        if self._matcher.is_error():
            reason, _, _ = self._matcher.get_error().partition("<state>")  # what follows is the automaton's own
            raise OptionError(f"constrained output: the form cannot be gone on with: {_one_line(reason)}")


class Constrainer:
    """Makes constraints for one tokenizer; preparing the vocabulary takes a moment, so it is done once.

    Args:
        tokenizer: whose ids are masked.
        stop_ids: ids that end a text; at least one.
        vocab_size: length of the logits, which may be longer than the tokenizer's vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer, stop_ids: tuple[int, ...], vocab_size: int) -> None:
        if not stop_ids:
            raise OptionError("constrained output needs a model that has a stop id; this one names none")
        self._vocab_size = vocab_size
        wrapper = TokenizerWrapper(_Vocabulary(tokenizer, stop_ids))
        self._tokenizer = LLTokenizer(wrapper, n_vocab=tokenizer.vocab_size, eos_token=list(stop_ids))

    def start(self, form: Form) -> Constraint:
        """A fresh automaton for `form`.

        Raises:
            OptionError: the form is wrong, or uses something that is not supported.
        """
        grammar = form.compiled()
        problem = LLMatcher.validate_grammar(grammar, self._tokenizer)
        if problem and not problem.startswith("WARNING"):
            raise OptionError(f"form: {_one_line(problem)}")
        return Constraint(LLMatcher(self._tokenizer, grammar, log_level=0), self._vocab_size)


class _Vocabulary:
    """A tokenizer in the shape that llguidance asks for."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: tuple[int, ...]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = stop_ids[0], tokenizer.bos_id
        special = {id: text.encode() for text, id in tokenizer.special_ids.items() if not tokenizer.token_bytes(id)}
        self.special_token_ids = sorted({*special, *stop_ids})
        self.tokens = [special.get(id) or tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode_segment(text)


def _one_line(message: str) -> str:
    """Without the lines of the grammar that llguidance quotes with their numbers."""
    return " ".join(line.strip() for line in message.splitlines() if not _QUOTED.match(line))[:300]

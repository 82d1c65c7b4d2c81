"""RULES: what can be asked for in `[data.rules.NAME]`, in the order in which it is done. A new rule is a row here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camelid.data.document import Document
from camelid.data.filters.blocked import Licence, Url, blocked, licence, url
from camelid.data.filters.c4 import C4, c4
from camelid.data.filters.fineweb import FineWeb, fineweb
from camelid.data.filters.gopher import GopherQuality, GopherRepetition, gopher_quality, gopher_repetition
from camelid.data.filters.language import Language, language
from camelid.data.filters.pii import Pii, pii
from camelid.data.stage_stats import StageStats
from camelid.data.word_hashes import Words
from camelid.errors import OptionError, one_of
from camelid.options import Options

# The document (as it was, or changed) if it stays, else why not. Changes are counted in the statistics by the rule.
Check = Callable[[Document, Words, Any, StageStats], Document | str]


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        name: in the recipe, the manifest and tables.
        options: its thresholds.
        check: the rule itself.
    """

    name: str
    options: type[Options]
    check: Check


RULES = (
    Rule("url", Url, url),
    Rule("licence", Licence, licence),
    Rule("language", Language, language),
    Rule("gopher_quality", GopherQuality, gopher_quality),
    Rule("gopher_repetition", GopherRepetition, gopher_repetition),
    Rule("c4", C4, c4),
    Rule("fineweb", FineWeb, fineweb),
    Rule("pii", Pii, pii),
)


class Filters:
    """The rules that a recipe asks for, in the order of RULES, each with its statistics in `stage_stats`."""

    def __init__(self, rules: Mapping[str, Mapping[str, Any]], folder: Path = Path()) -> None:
        """Take the recipe's table.

        Args:
            rules: rule → thresholds that differ from the defaults.
            folder: of the recipe; files named in a rule are relative to it.

        Raises:
            OptionError: an unknown rule or threshold, or a value that is refused.
        """
        chosen = {name: rule_options(name, values, folder) for name, values in rules.items()}
        self._rules = [(rule, chosen[rule.name], StageStats(rule.name)) for rule in RULES if rule.name in chosen]

    @property
    def stage_stats(self) -> Sequence[StageStats]:
        """The statistics of each rule."""
        return [stats for _, _, stats in self._rules]

    def __call__(self, document: Document) -> tuple[Document, Words] | None:
        """The document after all rules, with its words; None if one dropped it."""
        words: Words | None = None
        for rule, options, stats in self._rules:
            started = time.perf_counter()
            if words is None or words.text is not document.text:
                words = Words(document.text)
            result = rule.check(document, words, options, stats)
            if isinstance(result, str):
                stats.drop(document, result)
                stats.seconds += time.perf_counter() - started
                return None
            stats.keep(document, result)
            document = result
            stats.seconds += time.perf_counter() - started
        if words is None or words.text is not document.text:
            words = Words(document.text)
        return document, words


def rule_options(name: str, values: Mapping[str, Any], folder: Path = Path()) -> Options:
    """The options of one rule.

    Raises:
        OptionError: an unknown rule or threshold, or a value that is refused.
        MissingError: a list that is not there.
    """
    rule = next((rule for rule in RULES if rule.name == name), None)
    if rule is None:
        raise OptionError(f"data.rules.{name}: no such rule; {one_of(name, (rule.name for rule in RULES))}")
    try:
        options = rule.options(**values)
    except OptionError as error:
        raise OptionError(f"data.rules.{name}.{error}") from None
    if isinstance(options, Url):
        options = options.with_(files=tuple(str(folder / file) for file in options.files))
        blocked(options)  # a list that is not there is said at once
    return options

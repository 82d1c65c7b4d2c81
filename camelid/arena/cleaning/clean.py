"""Cleaning: every vote gets a state, counts or left out, and a reason; nothing is deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from camelid.arena.battles import Battles
from camelid.arena.cleaning.candidates import Candidate
from camelid.arena.cleaning.rules import RULES, Check, CleanOptions
from camelid.arena.logs.vote import Vote, gather
from camelid.errors import OptionError, one_of

_NEW_NAMES = {  # of FastChat's models, as LMSYS's boards call them
    "bard": "palm-2",
    "claude-v1": "claude-1",
    "claude-instant-v1": "claude-instant-1",
    "oasst-sft-1-pythia-12b": "oasst-pythia-12b",
    "claude-2": "claude-2.0",
}
_DATED = ("gpt-4", "gpt-3.5-turbo")
_JUNE_2023 = 1687849200  # from then on these names meant newer models


@dataclass(frozen=True, slots=True)
class Judged:
    """A vote and what cleaning says of it. `rule` and `reason` are None where it counts."""

    candidate: Candidate
    rule: str | None
    reason: str | None


@dataclass(frozen=True)
class Cleaned:
    """Votes after cleaning.

    Attributes:
        options: by which they were judged.
        judged: all of them, in their order.
        counts: rule → votes that it left out, in the order of the rules.
    """

    options: CleanOptions
    judged: tuple[Judged, ...]
    counts: Mapping[str, int]

    @property
    def words(self) -> Mapping[str, int]:
        """Identity word → votes that it cost, the costliest first."""
        reasons = (each.reason for each in self.judged if each.rule == "identity")
        return dict(Counter(reason.removeprefix("identity: ") for reason in reasons if reason).most_common())

    @property
    def others(self) -> Mapping[str, int]:
        """How many votes the identity rule of each kind would leave out; it reads all texts again."""
        every = [each.candidate for each in self.judged]
        rules = {name: next(rule for rule in RULES[name] if rule.name == "identity") for name in RULES}
        checks = {name: rule.make(self.options, every) for name, rule in rules.items()}
        return {name: sum(check(each) is not None for each in every) for name, check in checks.items()}

    @property
    def votes(self) -> list[Vote]:
        """Those that count, by time; of those without a time in the log's order, first."""
        kept = [each.candidate.vote for each in self.judged if each.rule is None]
        return sorted(kept, key=lambda vote: vote.time or 0.0)

    @property
    def battles(self) -> Battles:
        """The same as columns. OptionError: none counts."""
        return gather(self.votes)


def clean(candidates: Iterable[Candidate], options: CleanOptions | None = None) -> Cleaned:
    """Judge votes by the rules of `options.rules`; old names of FastChat's models become those of LMSYS's boards.

    Raises:
        OptionError: no such rules.
    """
    options = options or CleanOptions()
    if options.rules not in RULES:
        raise OptionError(f"rules: {options.rules!r}: no such rules; {one_of(options.rules, RULES)}", param="rules")
    every = [replace(each, vote=_renamed(each.vote)) for each in candidates]
    checks = [(rule.name, rule.make(options, every)) for rule in RULES[options.rules]]
    judged = tuple(_judge(each, checks) for each in every)
    found = Counter(each.rule for each in judged if each.rule is not None)
    return Cleaned(options, judged, {name: found[name] for name, _ in checks})


def _judge(candidate: Candidate, checks: Sequence[tuple[str, Check]]) -> Judged:
    for name, check in checks:
        if (reason := check(candidate)) is not None:
            return Judged(candidate, name, reason)
    return Judged(candidate, None, None)


def _renamed(vote: Vote) -> Vote:
    a, b = (_new_name(name, vote.time) for name in (vote.model_a, vote.model_b))
    return vote if (a, b) == (vote.model_a, vote.model_b) else replace(vote, model_a=a, model_b=b)


def _new_name(name: str, time: float | None) -> str:
    if name in _DATED and time is not None:
        return name + ("-0613" if time > _JUNE_2023 else "-0314")
    return _NEW_NAMES.get(name, name)

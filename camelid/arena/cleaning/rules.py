"""Rules of cleaning, in order: the first that speaks decides. A variant of cleaning is a list of them."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from camelid.arena.cleaning import words
from camelid.arena.cleaning.candidates import Candidate
from camelid.options import Options

Check = Callable[[Candidate], str | None]
"""What a candidate is left out for, in a few words; None: nothing."""


class CleanOptions(Options):
    """What a person chooses for cleaning."""

    rules: str = Field("default", description="default, or compat: FastChat's, its slips included.")
    exclude: tuple[str, ...] = Field((), description="Models whose votes are left out.")
    ban: tuple[str, ...] = Field((), description="Voters whose votes are left out.")
    most_a_day: int = Field(100, ge=1, description="default: votes of one voter that count in a day (UTC).")
    prompt_quantile: float = Field(
        0.9999,
        gt=0,
        le=1,
        description="default: a question asked oftener than this share of questions counts so often.",
    )


@dataclass(frozen=True)
class Rule:
    """A rule: its name, and what makes its check for one pass over all candidates."""

    name: str
    make: Callable[[CleanOptions, Sequence[Candidate]], Check]


def _plain(check: Check) -> Callable[[CleanOptions, Sequence[Candidate]], Check]:
    return lambda options, all_of_them: check


def _shown(candidate: Candidate) -> str | None:
    return None if candidate.vote.anony else "the names were shown"


def _no_text(candidate: Candidate) -> str | None:
    return "an answer is missing" if any(content is None for content in candidate.contents()) else None


def _empty(candidate: Candidate) -> str | None:
    """An answer that is empty lost to one that is not; of two, nothing can be said."""
    said = [str(content).strip() for content in candidate.contents("assistant") if content is not None]
    return "both answers are empty" if said and not any(said) else None


def _leaked_anywhere(candidate: Candidate) -> str | None:
    word = words.identity_part("".join(str(content) for content in candidate.contents() if content))
    return f"identity: {word}" if word else None


def _leaked(candidate: Candidate) -> str | None:
    """Whole words, in answers alone: who asks about Google gives nobody away."""
    for content in candidate.contents("assistant"):
        if content and (word := words.identity_word(str(content))):
            return f"identity: {word}"
    return None


def _failed(role: str | None) -> Check:
    """In what this role said; None: anywhere."""

    def check(candidate: Candidate) -> str | None:
        over = any(content and words.failed(str(content)) for content in candidate.contents(role))
        return "an error stands in it" if over else None

    return check


def _unfinished(candidate: Candidate) -> str | None:
    over = any(content and words.unfinished(str(content)) for content in candidate.contents("assistant"))
    return "an answer is unfinished" if over else None


def _excluded(options: CleanOptions, every: Sequence[Candidate]) -> Check:
    models = frozenset(options.exclude)
    return lambda each: "a model is excluded" if models & {each.vote.model_a, each.vote.model_b} else None


def _banned(options: CleanOptions, every: Sequence[Candidate]) -> Check:
    banned = frozenset(options.ban)
    return lambda each: "the voter is banned" if each.vote.voter in banned else None


def _itself(candidate: Candidate) -> str | None:
    return "a model met itself" if candidate.vote.model_a == candidate.vote.model_b else None


def _often_asked(options: CleanOptions, every: Sequence[Candidate]) -> Check:
    """A question that is asked very often counts as often as the most frequent ordinary one (LMSYS's
    de-duplication)."""
    asked = Counter(each.vote.prompt for each in every if each.vote.prompt is not None)
    most = int(np.quantile(list(asked.values()), options.prompt_quantile, method="higher")) if asked else 0
    seen: Counter[str] = Counter()

    def check(candidate: Candidate) -> str | None:
        prompt = candidate.vote.prompt
        if prompt is None:
            return None
        seen[prompt] += 1
        return "the question is asked too often" if seen[prompt] > most else None

    return check


def _too_many(options: CleanOptions, every: Sequence[Candidate]) -> Check:
    seen: Counter[tuple[str, datetime.date]] = Counter()

    def check(candidate: Candidate) -> str | None:
        vote = candidate.vote
        if vote.voter is None or vote.time is None:
            return None
        day = datetime.datetime.fromtimestamp(vote.time, datetime.UTC).date()
        seen[vote.voter, day] += 1
        return "the voter's day is full" if seen[vote.voter, day] > options.most_a_day else None

    return check


def _invalid(candidate: Candidate) -> str | None:
    return candidate.invalid


RULES: Mapping[str, Collection[Rule]] = {
    "default": (
        Rule("invalid", _plain(_invalid)),
        Rule("shown", _plain(_shown)),
        Rule("itself", _plain(_itself)),
        Rule("no answer", _plain(_no_text)),
        Rule("empty answers", _plain(_empty)),
        Rule("identity", _plain(_leaked)),
        Rule("error", _plain(_failed("assistant"))),
        Rule("unfinished", _plain(_unfinished)),
        Rule("excluded", _excluded),
        Rule("banned", _banned),
        Rule("often asked", _often_asked),
        Rule("too many", _too_many),
    ),
    "compat": (
        Rule("invalid", _plain(_invalid)),
        Rule("no answer", _plain(_no_text)),
        Rule("identity", _plain(_leaked_anywhere)),
        Rule("error", _plain(_failed(None))),
        Rule("unfinished", _plain(_unfinished)),
        Rule("excluded", _excluded),
        Rule("banned", _banned),
        Rule("shown", _plain(_shown)),
    ),
}

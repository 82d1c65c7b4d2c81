"""Where a board's votes come from: a log that does not change, or a store that people vote into."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from camelid.arena.battles import Battles

_SIZE = re.compile(r"(?<![\w.])(?:(\d+)x)?(\d+(?:\.\d+)?)\s?([bm])(?![a-z0-9])", re.IGNORECASE)
MOST = 50_000  # votes that a live source gives at once
CLOSED = ("", "proprietary", "closed", "unknown")  # licences that open nothing, in small letters


@dataclass(frozen=True)
class Facts:
    """What is known of a model beside its votes; what is not known is empty.

    Attributes:
        name: as in votes.
        link: where more is said; http or https.
        parameters: in billions.
        results: the name that results of `camelid eval` have for it, where that is another one.
        run: the training run that made it, as `tiny/pretrain`.
    """

    name: str
    organisation: str = ""
    licence: str = ""
    cutoff: str = ""
    link: str = ""
    parameters: float | None = None
    results: str = ""
    run: str = ""

    @property
    def address(self) -> str:
        """The link, if it is one that a page may lead to."""
        return self.link if self.link.startswith(("https://", "http://")) else ""

    @property
    def is_open(self) -> bool:
        """Whether anyone may have its weights: it has a licence, and not a proprietary one."""
        return self.licence.strip().lower() not in CLOSED

    @property
    def billions(self) -> float | None:
        """Parameters; where nobody said how many, those that its name tells, as 70 of `llama-2-70b-chat`."""
        return self.parameters if self.parameters is not None else named_size(self.name)


def named_size(name: str) -> float | None:
    """Billions of parameters in a name: `8x7B` is 56, `135m` is .135; None if it tells none."""
    found = _SIZE.search(name.replace("_", " ").replace("-", " ").replace(":", " "))
    if found is None:
        return None
    times, size, unit = found.groups()
    return int(times or 1) * float(size) / (1 if unit.lower() == "b" else 1000)


Turn = tuple[str, str]  # role, text


@dataclass(frozen=True)
class Text:
    """The two conversations of a battle."""

    id: str
    model_a: str
    model_b: str
    conversation_a: Sequence[Turn]
    conversation_b: Sequence[Turn]


class Source(Protocol):
    """Votes that count, in the order in which they came, and what belongs to them."""

    name: str

    def state(self) -> object:
        """Something that changes when votes that were given out already no longer count, or count again."""

    def since(self, number: int) -> tuple[Battles, int]:
        """Votes behind the first `number` of the source's own count, and the count that they reach.

        Whoever gets on by `MOST` or more asks again, for there may be others.
        """

    def facts(self) -> Mapping[str, Facts]:
        """What is known of models, by name; models without votes may be among them."""

    def text(self, id: str) -> Text | None:
        """What may be published of a battle; None where nothing may, or the id is unknown."""


class LogSource:
    """A published log.

    Args:
        battles: its votes.
        texts: gives what people and models wrote, battle by battle; gone through when somebody asks for one.
        facts: of models.
        name: what the page calls it.
    """

    def __init__(
        self,
        battles: Battles,
        texts: Callable[[], Iterable[Text]] = tuple,
        facts: Iterable[Facts] = (),
        name: str = "",
    ) -> None:
        self.battles, self.name = battles, name
        self._texts, self._facts = texts, {each.name: each for each in facts}

    def state(self) -> object:
        """A log stays as it is."""
        return None

    def since(self, number: int) -> tuple[Battles, int]:
        """All at once, and then none."""
        n = len(self.battles)
        return self.battles.take(np.arange(number, n)), n

    def facts(self) -> Mapping[str, Facts]:
        """As given."""
        return self._facts

    def text(self, id: str) -> Text | None:
        """The first of this name."""
        return next((each for each in self._texts() if each.id == id), None)

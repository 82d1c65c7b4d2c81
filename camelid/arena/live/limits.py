"""How often something may be done: by a person, from an address, by a model; counted in the database."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from camelid.arena.config import LimitOptions
from camelid.arena.live.clock import DAY, HOUR, Clock
from camelid.errors import CamelidError


class Limited(CamelidError):  # noqa: N818 - what a person has come to
    """A limit; `seconds` until it ends."""

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True)
class Uses:
    """One more of something.

    Attributes:
        name, period: what is counted, and in which hour or day.
        most: of them; 0: no limit.
        refuses: whether more are refused; else they are counted only.
        seconds: until the period ends.
    """

    name: str
    period: str
    most: int
    refuses: bool
    seconds: int
    message: str = ""


@dataclass(frozen=True)
class Limits:
    """What one question uses.

    Attributes:
        models: name → most answers in an hour and in a day. A model that has given them is not drawn any more; the
            conversations in which it is go on.
    """

    options: LimitOptions
    models: Mapping[str, tuple[int, int]]

    @property
    def turns(self) -> int:
        """Questions of one conversation."""
        return self.options.turns

    def of(self, person: str, address: str | None, models: tuple[str, str], clock: Clock) -> list[Uses]:
        """The uses of a question to two models; in one order always, so that transactions do not wait in a circle."""
        options = self.options
        yours = "You have asked as much as one may for now; come back later."
        theirs = "Too much was asked from this address for now; come back later."
        uses = _both(f"person {person}", options.person_hour, options.person_day, clock, True, yours)
        if address is not None:
            uses += _both(f"address {address}", options.address_hour, options.address_day, clock, True, theirs)
        for name in models:
            uses += self.model_uses(name, *self.models.get(name, (0, 0)), clock)
        return sorted((use for use in uses if use.most), key=lambda use: (use.name, use.period))

    @staticmethod
    def model_uses(name: str, hourly: int, daily: int, clock: Clock) -> list[Uses]:
        """Of a model; none that would tell who it is refuses a question."""
        return _both(f"model {name}"[:160], hourly, daily, clock, False, "")


def _both(name: str, hourly: int, daily: int, clock: Clock, refuses: bool, message: str) -> list[Uses]:
    now = clock.now()
    return [
        Uses(name, f"{letter}{int(now // length)}", most, refuses, math.ceil(length - now % length), message)
        for letter, length, most in (("h", HOUR, hourly), ("d", DAY, daily))
    ]

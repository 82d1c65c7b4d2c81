"""The whole search: who is named, why, and which votes a board without them leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import UNKNOWN, Battles
from camelid.arena.fraud.copies import alike, too_quick
from camelid.arena.fraud.newcomers import favoured, newcomers
from camelid.arena.fraud.options import FraudOptions
from camelid.arena.fraud.voters import judge_voters

Mask = NDArray[np.bool_]
SINGLE, COPIES, TOGETHER = 0.5, 0.25, 0.25  # how the bound on false alarms is shared out


@dataclass(frozen=True)
class Suspect:
    """A voter whose votes a board may leave out, and why."""

    voter: str
    votes: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What the search found.

    Attributes:
        suspects: voters that are named, by their number.
        together: what voters of few votes do together; a sentence for each model.
        suspicious: (N,) votes of suspects, and of newcomers in the battles of a model that these favour or avoid.
        voters: how many voters the log names.
        alarm: the chance that any honest voter is named is at most this.
    """

    suspects: tuple[Suspect, ...]
    together: tuple[str, ...]
    suspicious: Mask
    voters: int
    alarm: float

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "voters": self.voters,
            "alarm": self.alarm,
            "suspicious_votes": int(self.suspicious.sum()),
            "suspects": [vars(each) for each in self.suspects],
            "together": list(self.together),
        }


def find_fraud(battles: Battles, options: FraudOptions | None = None) -> Found:
    """Search a log for votes that are not a person's opinion; nothing is removed, only named.

    The bound: half of `alarm` for the sequential test over all voters and rounds, a quarter for copies, a quarter for
    newcomers together. It holds for voters whose expected scores lie within `taste` of the board that the others' votes
    give; somebody who really thinks otherwise is named, too, and rightly: an operator must look at the reason.
    """
    options = options or FraudOptions()
    reasons: dict[int, list[str]] = {}
    for voter, why in _copies(battles, options):
        reasons.setdefault(voter, []).append(why)
    voters = len(np.unique(battles.voter[battles.voter != UNKNOWN]))
    together: dict[tuple[int, int], str] = {}
    suspicious = np.isin(battles.voter, list(reasons))
    for _ in range(options.rounds):
        kept = np.flatnonzero(~suspicious)
        more = _round(battles, kept, voters, options, reasons, together)
        if not more.any():
            break
        suspicious |= more
    votes = np.bincount(battles.voter[battles.voter != UNKNOWN], minlength=len(battles.voters))
    named = tuple(Suspect(battles.voters[k], int(votes[k]), tuple(reasons[k])) for k in sorted(reasons))
    return Found(named, tuple(together.values()), suspicious, voters, options.alarm)


def _round(
    battles: Battles,
    kept: NDArray[np.int64],
    voters: int,
    options: FraudOptions,
    reasons: dict[int, list[str]],
    together: dict[tuple[int, int], str],
) -> Mask:
    """(N,) votes that this round finds among those kept; what it finds is added to the reasons."""
    more, some = np.zeros(len(battles), bool), battles.take(kept)
    if not len(kept) or not voters:
        return more
    alarm = options.alarm / options.rounds
    limit = float(np.log(voters / (SINGLE * alarm)))
    for each in judge_voters(some, limit, options.taste):
        reasons.setdefault(each.voter, []).append(
            f"{each.votes} votes unlike the others' board: {each.bet}; stake e^{each.stake:.1f}, limit e^{limit:.1f}"
        )
        more |= battles.voter == each.voter
    new = newcomers(some, options.few) & ~more[kept]
    for group in favoured(some, new, TOGETHER * alarm, options.taste):
        model = battles.models[group.model]
        together[(group.model, group.way)] = (
            f"voters of fewer than {options.few} votes {'favour' if group.way > 0 else 'avoid'} {model}: "
            f"{len(group.votes)} votes, stake e^{group.stake:.1f}"
        )
        more[kept[group.votes]] = True
    return more


def _copies(battles: Battles, options: FraudOptions) -> Iterator[tuple[int, str]]:
    """(voter, why) of copies, all but the one who voted first, and of voters at a script's pace."""
    for x in alike(battles, COPIES * options.alarm, options.alike):
        whom = battles.voters[x.first]
        yield x.second, f"the same votes as {whom} on {x.same} of {x.items} items; chance at most {x.chance:.2g}"
    for pace in too_quick(battles, options.fastest, options.hasty):
        if pace.hasty >= options.hasty:
            yield pace.voter, f"{pace.hasty} votes within {options.fastest:g} s of the one before"
        if pace.steady:
            yield pace.voter, f"a vote every {pace.median:.4g} s, as a clock"

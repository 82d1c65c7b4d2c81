"""The arena's log in FastChat's form: `YYYY-MM-DD-conv.json`, one JSON object a line, only ever appended to.

A deletion does not reach into it; whoever keeps one says so in the notice.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from camelid.arena.battles import WINNERS
from camelid.arena.live.store import Whole
from camelid.arena.logs.fastchat import WINNERS as FASTCHATS
from camelid.arena.logs.fastchat import FastChatLog, vote_row
from camelid.arena.logs.vote import BattleText, Vote
from camelid.errors import ResourceError

_MADE = ("seed", "sampling", "prompt_hash", "made_with", "names_maker")  # of an answer
TYPES = {winner: kind for kind, winner in FASTCHATS.items()}

log = logging.getLogger(__name__)


class Log:
    """A folder with a file for each day, in UTC.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = FastChatLog(folder)

    def vote(self, whole: Whole) -> None:
        """Append a vote that the database has; a battle whose answer was asked for twice may stand twice, with one
        `conv_id`. What cannot be written is told to the operators, and loses no vote."""
        assert whole.vote is not None
        try:
            self._files.append(row_of(whole), whole.vote.made)
        except ResourceError as error:
            log.error("arena: the log %s was not written: %s", self.folder, error)


def row_of(whole: Whole) -> dict[str, Any]:
    """A vote as FastChat writes it, and what is needed to have the answers written again."""
    vote, battle = whole.vote, whole.battle
    assert vote is not None
    said: dict[str, list[dict[str, str]]] = {"a": [], "b": []}
    made: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
    for turn, answers in whole.turns:
        if turn.state != "complete":
            continue
        for side, answer in answers.items():
            question = {"role": "user", "content": turn.question or ""}
            said[side] += [question, {"role": "assistant", "content": answer.text or ""}]
            made[side].append({name: getattr(answer, name) for name in _MADE})
    winner = WINNERS[vote.winner]
    told = Vote(vote.model_a, vote.model_b, winner, battle.id, vote.made, battle.address, anony=vote.anony)
    row = vote_row(TYPES[winner], told, BattleText(battle.id, vote.model_a, vote.model_b, said["a"], said["b"]))
    for side, state in zip("ab", row["states"], strict=True):
        state["made"] = made[side]
    return {**row, "person": battle.person or ""}

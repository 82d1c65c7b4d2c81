"""The arena's log in FastChat's form: `YYYY-MM-DD-conv.json`, one JSON object a line, only ever appended to.

A deletion does not reach into it; whoever keeps one says so in the notice.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from camelid.arena.battles import BOTH_BAD, TIE, A, B
from camelid.arena.live.store import Whole

TYPES = {A: "leftvote", B: "rightvote", TIE: "tievote", BOTH_BAD: "bothbad_vote"}

log = logging.getLogger(__name__)


class Log:
    """A folder with a file for each day, in UTC.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def vote(self, whole: Whole) -> None:
        """Append a vote that the database has; a battle whose answer was asked for twice may stand twice, with one
        `conv_id`. What cannot be written is told to the operators, and loses no vote."""
        assert whole.vote is not None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            day = datetime.fromtimestamp(whole.vote.made, UTC).strftime("%Y-%m-%d")
            line = (json.dumps(row_of(whole), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
            file = os.open(self.folder / f"{day}-conv.json", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, line)  # one write: lines of several processes do not mix
            finally:
                os.close(file)
        except OSError as error:
            log.error("arena: the log %s was not written: %s", self.folder, error)


def row_of(whole: Whole) -> dict[str, Any]:
    """A vote as FastChat writes it; public names are empty where they were hidden."""
    vote, battle = whole.vote, whole.battle
    assert vote is not None
    hidden = vote.anony
    names = (vote.model_a, vote.model_b)
    states = [_state(whole, side, name) for side, name in zip("ab", names, strict=True)]
    return {
        "tstamp": round(vote.made, 4),
        "type": TYPES[vote.winner],
        "models": ["", ""] if hidden else list(names),
        "states": states,
        "ip": battle.address or "",
        "person": battle.person or "",
    }


def _state(whole: Whole, side: str, name: str) -> dict[str, Any]:
    messages: list[list[str]] = []
    made: list[dict[str, Any]] = []
    for turn, answers in whole.turns:
        if turn.state != "complete":
            continue
        answer = answers[side]
        messages += [["user", turn.question or ""], ["assistant", answer.text or ""]]
        made.append(
            {
                "seed": answer.seed,
                "sampling": answer.sampling,
                "prompt_hash": answer.prompt_hash,
                "made_with": answer.made_with,
                "names_maker": answer.names_maker,
            }
        )
    return {
        "template_name": "camelid",
        "system_message": "",
        "roles": ["user", "assistant"],
        "messages": messages,
        "offset": 0,
        "conv_id": whole.battle.id,
        "model_name": name,
        "made": made,
    }

"""FastChat's log, `YYYY-MM-DD-conv.json`: a line for each thing that people do, votes among them.

Names that were hidden stand as empty strings in `models`, and the true ones inside of `states`.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camelid.arena.logs.forms import time_of
from camelid.arena.logs.rows import Row
from camelid.arena.logs.vote import BattleText, Conversation, Vote
from camelid.errors import FormatError
from camelid.files import writing

WINNERS = {
    "leftvote": "model_a",
    "rightvote": "model_b",
    "tievote": "tie",
    "bothbad_vote": "tie (bothbad)",
}
_HIDDEN = ("", "Model A", "Model B")


@dataclass(frozen=True)
class LoggedVote:
    """A vote of such a log, whole.

    Attributes:
        text: conversations with the true names; contents may be None where an answer failed.
        public: the names that were shown.
        invalid: why it cannot count, whatever the rules: its names contradict each other, or nobody said anything.
    """

    vote: Vote
    text: BattleText
    public: tuple[str, str]
    invalid: str | None


def logged_vote(row: Row, place: str) -> LoggedVote | None:
    """The vote of a line; None: it is none, or its public names are null, which FastChat passes over.

    Raises:
        FormatError: a vote without both states.
    """
    public, states = row.get("models"), row.get("states")
    if str(row.get("type")) not in WINNERS or not isinstance(public, list) or None in public:
        return None
    if len(public) != 2 or not isinstance(states, list) or len(states) != 2:
        raise FormatError(f"{place}: a vote without the states of two models")
    try:
        hidden = [str(state["model_name"]) for state in states]
        sides = [_conversation(state) for state in states]
        ids = [str(state.get("conv_id") or "") for state in states]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise FormatError(f"{place}: a state lacks model_name, messages, roles or offset") from None
    anony = public[0] in _HIDDEN
    shown = (str(public[0]), str(public[1]))
    vote = Vote(
        hidden[0] if anony else shown[0],
        hidden[1] if anony else shown[1],
        WINNERS[str(row["type"])],
        ids[0] or None,
        time_of(row.get("tstamp"), place),
        str(row["ip"]) if row.get("ip") else None,
        next((each["content"] for each in sides[0] if each["role"] == "user"), None),
        str(row["language"]) if row.get("language") else None,
        len(sides[0]) // 2,
        anony,
    )
    text = BattleText(ids[0], vote.model_a, vote.model_b, *sides)
    return LoggedVote(vote, text, shown, _invalid(shown, hidden, anony, sides))


def _invalid(public: tuple[str, str], hidden: list[str], anony: bool, sides: list[Conversation]) -> str | None:
    if (public[0] == "") != (public[1] == ""):
        return "one of the names was shown"
    if not anony and not all(true in shown for true, shown in zip(hidden, public, strict=True)):
        return "the names contradict each other"
    return None if all(sides) else "no messages"


def _conversation(state: Mapping[str, Any]) -> Conversation:
    """Messages after the template's own ones."""
    first, second = (str(role) for role in state["roles"][:2])
    roles = {first: "user", second: "assistant"}
    messages: Sequence[Sequence[Any]] = state["messages"][int(state["offset"]) :]
    if not all(content is None or isinstance(content, str) for _, content in messages):
        raise ValueError("content")
    return tuple({"role": roles.get(str(role), str(role)), "content": content} for role, content in messages)


class FastChatLog:
    """Appends lines to the log of the day, as FastChat names it.

    Args:
        folder: of the logs; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, row: Mapping[str, Any], time: float) -> Path:
        """Add a line at the end of the file of that day, in one write, so that lines of several processes stay whole.

        Raises:
            ResourceError: the place cannot be written.
        """
        day = datetime.datetime.fromtimestamp(time, datetime.UTC)
        path = self.folder / f"{day:%Y-%m-%d}-conv.json"
        line = (json.dumps({"tstamp": round(time, 4), **row}, ensure_ascii=False) + "\n").encode(
            "utf-8", "backslashreplace"
        )
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, line)
            finally:
                os.close(file)
        return path


def vote_row(kind: str, vote: Vote, text: BattleText) -> dict[str, Any]:
    """A vote as such a line without its time. `kind`: leftvote, rightvote, tievote or bothbad_vote."""
    shown = ["", ""] if vote.anony else [vote.model_a, vote.model_b]
    sides = zip((vote.model_a, vote.model_b), (text.conversation_a, text.conversation_b), strict=True)
    return {
        "type": kind,
        "models": shown,
        "states": [_state(name, text.id, conversation) for name, conversation in sides],
        "ip": vote.voter or "",
    }


def _state(model: str, battle: str, conversation: Conversation) -> dict[str, Any]:
    return {
        "template_name": "camelid",
        "system_message": "",
        "roles": ["user", "assistant"],
        "messages": [[each["role"], each["content"]] for each in conversation],
        "offset": 0,
        "conv_id": battle,
        "model_name": model,
    }

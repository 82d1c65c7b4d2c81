"""Votes as lines in LMSYS's form, with what cleaning says of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from camelid.arena.battles import COUNTS
from camelid.arena.logs.vote import Conversation, Vote

LEFT_OUT = "left out"


def battle_row(
    vote: Vote, conversations: tuple[Conversation, Conversation] = ((), ()), reason: str | None = None
) -> dict[str, Any]:
    """A vote as `read_battles` reads it; what is not said is left away.

    Args:
        conversations: of both sides; empty: the row has no texts.
        reason: why it does not count.
    """
    row: dict[str, Any] = {"question_id": vote.id, "model_a": vote.model_a, "model_b": vote.model_b}
    row |= {"winner": vote.winner, "judge": vote.voter, "turn": vote.turns or None, "anony": vote.anony}
    row |= {"language": vote.language, "tstamp": vote.time}
    if any(conversations):
        row |= {
            "conversation_a": list(map(dict, conversations[0])),
            "conversation_b": list(map(dict, conversations[1])),
        }
    if vote.numbers:
        row["numbers"] = {name: _plain(value) for name, value in sorted(vote.numbers.items())}
    row |= {"state": COUNTS if reason is None else LEFT_OUT, "reason": reason}
    return {name: value for name, value in row.items() if value is not None}


def preference_row(vote: Vote, conversations: tuple[Conversation, Conversation]) -> Mapping[str, Any] | str:
    """A vote as prompt, chosen and rejected answer for post-training; else why it cannot be one."""
    if vote.winner not in ("model_a", "model_b"):
        return "a tie"
    if not all(conversations):
        return "no texts"
    if any(len(each) != 2 or [m["role"] for m in each] != ["user", "assistant"] for each in conversations):
        return "several turns, whose answers before the last differ"
    (question, first), (other, second) = conversations
    if question != other:
        return "two questions"
    if not str(first["content"] or "").strip() or not str(second["content"] or "").strip():
        return "an empty answer"
    won, lost = (first, second) if vote.winner == "model_a" else (second, first)
    names = (vote.model_a, vote.model_b) if vote.winner == "model_a" else (vote.model_b, vote.model_a)
    row = {"prompt": [dict(question)], "chosen": won["content"], "rejected": lost["content"]}
    about = {"id": vote.id, "chosen_model": names[0], "rejected_model": names[1]}
    return {**{name: value for name, value in about.items() if value is not None}, **row}


def _plain(value: float | tuple[float, float]) -> Any:
    return list(value) if isinstance(value, tuple) else value

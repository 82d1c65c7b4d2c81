"""The forms that published votes come in, each a row: how one is known, and what its rows say."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camelid.arena.battles import WINNERS
from camelid.arena.logs.rows import Row
from camelid.arena.logs.vote import BattleText, Conversation, Vote
from camelid.errors import FormatError

_WINNERS = {name: name for name in WINNERS} | {
    "both_bad": "tie (bothbad)",  # as in the set of 140,000
    "bothbad": "tie (bothbad)",
}
_LATEST = 1e11  # seconds since 1970: the year 5138
_SIDES = {"left": "model_a", "right": "model_b", "tie": "tie"}
_TOKENS = ("sum_assistant_a_tokens", "sum_assistant_b_tokens")
_STYLE = {"headers": "header_count", "lists": "list_count", "bold": "bold_count"}


@dataclass(frozen=True)
class Form:
    """How rows of one form are read.

    Attributes:
        fields: a file whose first row has all of these is of this form.
        vote: (row, where it stands) → its vote; None: a row that is no vote.
        text: its texts; None: the form has none, or this row.
    """

    fields: tuple[str, ...]
    vote: Callable[[Row, str], Vote | None]
    text: Callable[[Row, str], BattleText | None] = lambda row, place: None


def _battle(row: Row, place: str) -> Vote:
    """LMSYS's battles: `clean_battle_*.json`, the sets of 33,000, 100,000 and 140,000, and the arena's own log."""
    a, b = _name(row, "model_a", place), _name(row, "model_b", place)
    winner = _winner(row["winner"], _WINNERS, place)
    voter = _first(row, "judge", "voter", "user_id")
    turns = _first(row, "turn", "evaluation_order")
    conversation = _messages(row.get("conversation_a"), place)
    return Vote(
        a,
        b,
        winner,
        _text_or_none(_first(row, "question_id", "battle_id", "id")),
        time_of(_first(row, "tstamp", "timestamp"), place),
        None if voter is None else str(voter),
        next((str(each["content"]) for each in conversation if each["role"] == "user"), None),
        _text_or_none(row.get("language")),
        _turns(turns, place),
        str(row.get("anony", True)).casefold() not in ("false", "0"),
        _numbers(row.get("conv_metadata"), place) | _own_numbers(row.get("numbers"), place),
    )


def _battle_text(row: Row, place: str) -> BattleText | None:
    name = _first(row, "question_id", "battle_id", "id")
    sides = [_messages(row.get(side), place) for side in ("conversation_a", "conversation_b")]
    if name is None or not all(sides):
        return None
    return BattleText(str(name), str(row["model_a"]), str(row["model_b"]), *sides)


def _preference(row: Row, place: str) -> Vote:
    """Kaggle's set of 55,000: three columns of which one is 1."""
    told = [name for name in ("winner_model_a", "winner_model_b", "winner_tie") if str(row.get(name)) in ("1", "1.0")]
    if len(told) != 1:
        raise FormatError(f"{place}: {len(told)} winners; one of winner_model_a, winner_model_b, winner_tie must be 1")
    questions = _strings(row["prompt"], place)
    return Vote(
        _name(row, "model_a", place),
        _name(row, "model_b", place),
        told[0].removeprefix("winner_"),
        str(row["id"]),
        prompt=questions[0] if questions else None,
        turns=len(questions),
    )


def _preference_text(row: Row, place: str) -> BattleText:
    questions = _strings(row["prompt"], place)
    sides = [_alternating(questions, _strings(row[name], place)) for name in ("response_a", "response_b")]
    return BattleText(str(row["id"]), row["model_a"], row["model_b"], *sides)


def _llmfao(row: Row, place: str) -> Vote:
    """LLMFAO (dustalov/llmfao): names at `left` and `right`, and who voted, as `worker`."""
    worker = row.get("worker")
    prompt = _text_or_none(row.get("prompt"))
    name = "-".join(str(row[part]) for part in ("id", "worker") if row.get(part) not in (None, ""))
    return Vote(
        _name(row, "left", place),
        _name(row, "right", place),
        _winner(row["winner"], _SIDES, place),
        name or None,
        voter=_text_or_none(worker),
        prompt=prompt,
        turns=1,
    )


FORMS: Mapping[str, Form] = {
    "battles": Form(("model_a", "model_b", "winner"), _battle, _battle_text),
    "preferences": Form(
        ("model_a", "model_b", "winner_model_a", "winner_tie", "prompt"), _preference, _preference_text
    ),
    "llmfao": Form(("left", "right", "winner"), _llmfao),
}


def _first(row: Row, *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _text_or_none(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _name(row: Row, field: str, place: str) -> str:
    name = row.get(field)
    if not isinstance(name, str) or not name.strip():
        raise FormatError(f"{place}: {field} is empty; a vote needs both models")
    return name


def _winner(value: Any, known: Mapping[str, str], place: str) -> str:
    if (winner := known.get(str(value).strip())) is None:
        raise FormatError(f"{place}: winner {str(value)[:40]!r} is none of {', '.join(known)}; mend or remove the row")
    return winner


def _turns(value: Any, place: str) -> int:
    """A whole number, which a table may hold as 2.0; 0: not said."""
    try:
        number = 0.0 if value is None else float(value)
        if number >= 0 and number == int(number):
            return int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise FormatError(f"{place}: turn {str(value)[:40]!r} is no number of questions; mend or remove the row")


def time_of(value: Any, place: str) -> float | None:
    """Seconds since 1970, from a number, a text with one, or a date in ISO 8601.

    Raises:
        FormatError: not a time, or outside of the years 1970 to 5138.
    """
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is None or not 0 <= seconds < _LATEST:
        raise FormatError(f"{place}: {str(value)[:40]!r} is no time; give seconds since 1970, or ISO 8601")
    return seconds


def _seconds(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
    return float(value) if isinstance(value, float | int) else None


def _messages(value: Any, place: str) -> Conversation:
    """Messages with text; content in parts, as of the set of 140,000, is joined."""
    if isinstance(value, str) and value.strip():
        value = _json(value, f"{place}: the conversation is not JSON")
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    if not all(isinstance(each, Mapping) and "role" in each and "content" in each for each in value):
        raise FormatError(f"{place}: a message has no role or no content")
    return tuple({"role": str(each["role"]), "content": _content(each["content"])} for each in value)


def _content(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\n".join(str(part.get("text") or "") for part in value if isinstance(part, Mapping)).strip()
    return value


def _json(text: str, fault: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise FormatError(f"{fault}; fetch the file again") from None


def _strings(value: Any, place: str) -> list[str]:
    texts = _json(value, f"{place}: is no JSON list of texts") if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise FormatError(f"{place}: is no JSON list of texts; fetch the file again")
    return ["" if text is None else str(text) for text in texts]


def _alternating(questions: list[str], answers: list[str]) -> Conversation:
    messages: list[dict[str, str]] = []
    for question, answer in zip(questions, answers, strict=False):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return tuple(messages)


def _numbers(about: Any, place: str) -> dict[str, float | tuple[float, float]]:
    """What style control takes, from LMSYS's `conv_metadata`: tokens, and counts of Markdown by kind."""
    if isinstance(about, str) and about.strip().startswith("{"):
        about = _json(about, f"{place}: conv_metadata is not JSON")
    if not isinstance(about, Mapping) or not all(name in about for name in _TOKENS):
        return {}
    try:
        numbers: dict[str, float | tuple[float, float]] = {
            "tokens": (float(about[_TOKENS[0]]), float(about[_TOKENS[1]]))
        }
        for name, field in _STYLE.items():
            sides = [about.get(f"{field}_{side}") for side in "ab"]
            if all(side is not None for side in sides):
                numbers[name] = (_total(sides[0]), _total(sides[1]))
    except (OverflowError, TypeError, ValueError):
        raise FormatError(f"{place}: conv_metadata has counts that are no numbers") from None
    return numbers


def _own_numbers(value: Any, place: str) -> dict[str, float | tuple[float, float]]:
    """Columns as the arena's own log has them: a number, or a list of two."""
    if value is None:
        return {}
    try:
        pairs = {name: each if isinstance(each, list) else [each] for name, each in value.items()}
        return {
            str(name): (float(each[0]), float(each[1])) if len(each) == 2 else float(each[0])
            for name, each in pairs.items()
        }
    except (AttributeError, IndexError, OverflowError, TypeError, ValueError):
        raise FormatError(f"{place}: numbers are no names with a number, or one for each side") from None


def _total(value: Any) -> float:
    return float(sum(each or 0 for each in value.values()) if isinstance(value, Mapping) else value)

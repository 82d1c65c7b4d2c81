"""Has local answers of a battle written again, from what was kept, and compares them bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from camelid.arena.live.contenders import engine_made_with, engine_request, ids_hash
from camelid.arena.live.store import Whole
from camelid.arena.live.tables import Answer
from camelid.chat.llama import Llama
from camelid.tokens.templates.message import Message


@dataclass(frozen=True)
class Replayed:
    """One answer.

    Attributes:
        outcome: `equal`; `differs`; `elsewhere`, of an endpoint, which nobody can repeat; `deleted`; `other model`, its
            files are not those of then; `other prompt`, its ids are not those of then.
        detail: more about it, for people.
    """

    turn: int
    side: str
    model: str
    outcome: str
    detail: str = ""


def replay(whole: Whole, open_model: Callable[[str], Llama]) -> Iterator[Replayed]:
    """Each answer of the turns that are complete.

    Args:
        whole: the battle.
        open_model: the model of a name of the arena.
    """
    past: dict[str, list[Message]] = {"a": [], "b": []}
    opened: dict[str, Llama] = {}
    for turn, answers in whole.turns:
        if turn.state != "complete":
            continue
        for side, answer in sorted(answers.items()):
            messages = [*past[side], Message("user", turn.question or "")]
            outcome, detail = _again(answer, messages, opened, open_model)
            past[side] = [*messages, Message("assistant", answer.text or "")]
            yield Replayed(turn.number, side, answer.model, outcome, detail)


def _again(
    answer: Answer, messages: list[Message], opened: dict[str, Llama], open_model: Callable[[str], Llama]
) -> tuple[str, str]:
    if answer.text is None:
        return "deleted", ""
    if "files" not in answer.made_with:
        return "elsewhere", str(answer.made_with.get("url", ""))
    if answer.model not in opened:
        opened[answer.model] = open_model(answer.model)
    llama = opened[answer.model]
    if other := _differences(answer.made_with, engine_made_with(llama)):
        return "other model", other
    request = engine_request(llama, messages, answer.sampling, answer.seed)
    if ids_hash(request.ids) != answer.prompt_hash:
        return "other prompt", f"{len(request.ids)} ids now, {answer.n_prompt} then"
    text = llama.chat(messages, seed=answer.seed, **answer.sampling).text
    if text == answer.text:
        return "equal", ""
    pairs = enumerate(zip(text, answer.text, strict=False))
    at = next((place for place, (now, then) in pairs if now != then), min(len(text), len(answer.text)))
    return "differs", f"from character {at} on"


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In which of the things that change an answer; camelid's version alone need not."""
    return ", ".join(name for name in sorted({*then, *now} - {"camelid"}) if then.get(name) != now.get(name))

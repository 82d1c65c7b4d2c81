"""What a judge is asked: FastChat's published prompts, filled with the texts of a battle.

Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", arXiv 2306.05685.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camelid.arena.logs.rows import rows_of
from camelid.arena.logs.vote import BattleText, Conversation
from camelid.errors import FormatError
from camelid.evals.task import Generate
from camelid.evals.tasks.shots import published
from camelid.tokens.templates.message import Message

MOST_TURNS = 2  # that the published prompts have room for
MAX_TOKENS = 2048  # of a judge's answer, FastChat's
Prompts = Mapping[str, Mapping[str, str]]
References = Mapping[tuple[str, ...], Sequence[str]]
"""Questions of a conversation → reference answers."""


def load_prompts(path: Path | None = None) -> Prompts:
    """Prompts by name, each with system and user: those that come with camelid (Apache-2.0), or a file in the form of
    FastChat's judge_prompts.jsonl.

    Raises:
        MissingError: there is no such file.
        FormatError: a row is no prompt.
    """
    if path is None:
        found: Prompts = published("mt_bench_judge")["prompts"]
        return found
    prompts = {}
    for place, row in rows_of(path):
        if not all(isinstance(row.get(field), str) for field in ("name", "system_prompt", "prompt_template")):
            raise FormatError(f"{place}: a judge's prompt has name, system_prompt and prompt_template")
        prompts[row["name"]] = {"system": row["system_prompt"], "user": row["prompt_template"]}
    return prompts


def load_references(folder: Path) -> References:
    """Reference answers out of a folder with FastChat's question.jsonl and reference_answer*.jsonl."""
    questions = {row["question_id"]: tuple(row["turns"]) for _, row in rows_of(folder / "question.jsonl")}
    found: dict[tuple[str, ...], Sequence[str]] = {}
    files = sorted(folder.glob("reference_answer*.jsonl"))
    if not files:
        raise FormatError(f"{folder}: has no reference_answer*.jsonl; give a folder in FastChat's form")
    for path in files:
        for place, row in rows_of(path):
            try:
                turns = row["choices"][0]["turns"]
                own = questions[row["question_id"]]
            except (KeyError, IndexError, TypeError):
                raise FormatError(f"{place}: no answer to a question of question.jsonl") from None
            for n in range(1, len(own) + 1):
                found[own[:n]] = turns[:n]
    return found


def turns_of(conversation: Conversation) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Questions and answers."""
    told = [(each["role"], _text(each["content"])) for each in conversation]
    return (
        tuple(text for role, text in told if role == "user"),
        tuple(text for role, text in told if role == "assistant"),
    )


def why_not(text: BattleText) -> str | None:
    """Why a battle cannot be judged with these prompts; None: it can."""
    (asked, a), (asked_b, b) = turns_of(text.conversation_a), turns_of(text.conversation_b)
    if not asked or len(a) != len(asked) or len(b) != len(asked) or asked != asked_b:
        return "questions and answers do not match"
    return f"more than {MOST_TURNS} turns" if len(asked) > MOST_TURNS else None


def pair_request(prompts: Prompts, text: BattleText, swapped: bool, references: References) -> Generate:
    """Which answer is better? With `swapped` side B is shown as assistant A."""
    questions, a = turns_of(text.conversation_a)
    b = turns_of(text.conversation_b)[1]
    first, second = (b, a) if swapped else (a, b)
    sides = {"a": first, "b": second}
    values = _values(questions, {f"answer_{letter}": own for letter, own in sides.items()})
    return _filled(prompts, ("pair-math-v1", "pair-v2"), questions, values, references)


def single_request(prompts: Prompts, conversation: Conversation, references: References) -> Generate:
    """How good is an answer, from 1 to 10?"""
    questions, answers = turns_of(conversation)
    return _filled(
        prompts, ("single-math-v1", "single-v1"), questions, _values(questions, {"answer": answers}), references
    )


def _values(questions: Sequence[str], answers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    if len(questions) == 1:
        return {"question": questions[0]} | {name: own[0] for name, own in answers.items()}
    values = {f"question_{n}": text for n, text in enumerate(questions, 1)}
    return values | {f"{name}_{n}": text for name, own in answers.items() for n, text in enumerate(own, 1)}


def _filled(
    prompts: Prompts, names: tuple[str, str], questions: tuple[str, ...], values: dict[str, str], known: References
) -> Generate:
    reference = known.get(questions, ())
    name = (names[0] if reference else names[1]) + ("-multi-turn" if len(questions) > 1 else "")
    values |= {f"ref_answer_{n}": text for n, text in enumerate(reference, 1)}
    try:
        prompt = prompts[name]
        user = prompt["user"].format(**values)
    except (KeyError, IndexError, ValueError) as error:
        raise FormatError(f"the judge's prompts: {name} is not there, or asks for {error}") from None
    return Generate((Message("system", prompt["system"]), Message("user", user)), max_tokens=MAX_TOKENS)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)

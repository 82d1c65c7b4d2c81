"""The best answer to each prompt, and what all of them say about taking more (Llama 2, arXiv:2307.09288, 3.2.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camelid.train.makers.best_of import curve
from camelid.train.makers.making import Question


@dataclass(frozen=True)
class Selected:
    """What is learned from, and how it came to be.

    Attributes:
        rows: conversations as JSON, with `id`, `stage`, `reward` and what is known of the prompt.
        counts: prompts, answers, unfinished ones, duplicates of another answer to their prompt, prompts without any
            finished answer, and how many rows are an earlier iteration's.
        rewards: of all answers, by prompt.
    """

    rows: list[dict[str, Any]]
    counts: dict[str, int]
    rewards: list[list[float]]

    def record(self) -> dict[str, Any]:
        """Counts, the mean reward of all and of what was chosen, and the curve of expected maximum and median."""
        every = [reward for own in self.rewards for reward in own]
        chosen = [float(row["reward"]) for row in self.rows]
        points = [{"k": point.k, "max": point.most, "median": point.median} for point in curve(self.rewards)]
        return {**self.counts, "mean_reward": _mean(every), "mean_chosen_reward": _mean(chosen), "curve": points}


def select(stage: str, questions: Sequence[Question], found: Callable[[str], Mapping[str, Any]]) -> Selected:
    """The answer with the highest reward to each prompt; of equal ones the first. One that was cut is never taken: its
    end would be learned as an end.

    Args:
        stage: that wrote the answers.
        questions: all of them.
        found: key → the line of `answer_all`.
    """
    rows: list[dict[str, Any]] = []
    rewards: list[list[float]] = []
    counts = {"prompts": len(questions), "answers": 0, "unfinished": 0, "duplicates": 0, "without_answer": 0}
    for question in questions:
        answers = found(question.key)["answers"]
        ended = [answer for answer in answers if answer["finished"] and answer["text"].strip()]
        rewards.append([float(answer["reward"]) for answer in answers])
        counts["answers"] += len(answers)
        counts["unfinished"] += sum(not answer["finished"] for answer in answers)
        counts["duplicates"] += len(answers) - len({answer["text"] for answer in answers})
        if not ended:
            counts["without_answer"] += 1
            continue
        best = max(ended, key=lambda answer: float(answer["reward"]))
        said = [{"role": message.role, "content": message.text} for message in question.messages]
        rows.append(
            {
                "id": question.about.get("id"),
                "messages": [*said, {"role": "assistant", "content": best["text"]}],
                "stage": stage,
                "reward": best["reward"],
                "about": {name: value for name, value in question.about.items() if name != "id"},
            }
        )
    return Selected(rows, counts, rewards)


def with_earlier(selected: Selected, earlier: Iterable[Mapping[str, Any]]) -> Selected:
    """The best of all iterations: an earlier row stays where its prompt has no better one now.

    Args:
        earlier: rows of earlier iterations, the oldest first, their rewards by the judge of now.
    """
    best = {_prompt(row): dict(row) for row in selected.rows}
    own = {id(row) for row in best.values()}
    for row in earlier:
        key = _prompt(row)
        if key not in best or float(row["reward"]) > float(best[key]["reward"]):
            best[key] = dict(row)
    rows = list(best.values())
    return Selected(rows, {**selected.counts, "earlier": sum(id(row) not in own for row in rows)}, selected.rewards)


def _prompt(row: Mapping[str, Any]) -> str:
    """What tells a row's prompt from others: its messages, for ids may change with the data."""
    return repr([(message["role"], message["content"]) for message in row["messages"][:-1]])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None

"""GPQA (Rein et al., 2023): 448 questions of the main set, written by experts, four answers each; no shots.

    gpqa          the likeliest of (A) to (D); answers shuffled by a generator of each item's own
    gpqa:compat   the order that lm-eval 0.4.13 gives them: one generator for all, seed 0, item after item

The order decides which letter is right. lm-eval shuffles with Python's global generator, so that an item's order
depends on all that was drawn before it; here it follows from the item alone, and stays in another order of items. Its
authors ask that the items not be published in plain text: the CSV (`gpqa_main.csv`) is named with --data.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from camelid.errors import FormatError
from camelid.evals.sources import Source
from camelid.evals.task import Answered, Choices, Item, Metric, Request, Scorer, Splits, Task, Verdict
from camelid.evals.tasks.likeliest import PLAIN, likeliest

_NAMES = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3", "Correct Answer")
_LABELS = tuple(f"({letter})" for letter in "ABCD")


class Gpqa(Task):
    """GPQA with answers in an order of the item's own, or in lm-eval's."""

    title = "GPQA"
    splits = Splits(items="main")
    n_shots = None
    guesses = 0.25
    metrics = (PLAIN, Metric("acc_norm", "acc_norm"))

    def __init__(self, compat: bool) -> None:
        self.compat = compat
        self.name = "gpqa:compat" if compat else "gpqa"
        order = "lm-eval's, of one generator with seed 0" if compat else "of a generator of the item's own"
        self.conditions = {"prompt": "lm-eval gpqa_zeroshot", "order": order}

    def read(self, source: Source, split: str) -> Iterable[Item]:
        shared = random.Random(0)
        patterns = (f"gpqa_{split}.csv", f"*gpqa*{split}*.csv", f"*{split}*.jsonl", "*.csv")
        for number, row in enumerate(source.rows(split, *patterns, config=f"gpqa_{split}")):
            if not all(isinstance(row.get(name), str) and row[name].strip() for name in ("Question", *_NAMES)):
                raise FormatError(
                    f"{source.name}: item {number}: needs Question, Correct Answer and three Incorrect Answers"
                )
            id = str(row.get("Record ID") or number)
            choices = [_cleaned(row[name]) for name in _NAMES]
            own = random.Random(hashlib.sha256(row["Question"].encode()).digest())
            (shared if self.compat else own).shuffle(choices)
            fields = {
                "question": row["Question"],
                "choices": choices,
                "answer": choices.index(_cleaned(row["Correct Answer"])),
            }
            yield Item(id, row.get("High-level domain") or None, fields)

    def request(self, item: Item, shots: Sequence[Item]) -> Request:
        listed = "".join(f"{label} {text}\n" for label, text in zip(_LABELS, item.fields["choices"], strict=True))
        head = f"What is the correct answer to this question:{item.fields['question']}\nChoices:\n"
        return Choices(f"{head}{listed}Answer:", tuple(f" {label}" for label in _LABELS))

    def score(self, item: Item, answered: Answered, scorer: Scorer) -> Verdict:
        found = likeliest(answered.likelihoods, _LABELS, item.fields["answer"], lengths=True)
        kept: Mapping[str, Any] = {name: found.scores[name] for name in ("acc", "acc_norm")}
        return Verdict(kept, {name: found.filtered[name] for name in kept}, found.notes)


def _cleaned(text: str) -> str:
    return text.strip().replace(" [title]", ". ").replace("  ", " ")


TASKS = (Gpqa(compat=False), Gpqa(compat=True))

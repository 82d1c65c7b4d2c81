"""MATH (Hendrycks et al. 2021, arXiv 2103.03874): 5,000 problems of seven subjects, five levels; the answer in a box.

math          Minerva's four shots (Lewkowycz et al. 2022); prompts byte for byte lm-eval 0.4.13's `minerva_math`
math:500      the 500 that OpenAI drew for PRM800K (MATH-500), asked in the same way
math:chat     no shots: a user's message that asks for a box, for chat models; math:500-chat
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from camelid.errors import FormatError
from camelid.evals.scorers import math
from camelid.evals.scorers.math_process import Comparer
from camelid.evals.sources import Source
from camelid.evals.task import Answered, Generate, Item, Metric, Request, Scorer, Splits, Task, Verdict
from camelid.evals.tasks.shots import published
from camelid.tokens.templates.message import Message

_ASKED = "{}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
MAX_TOKENS = 512
"""As Meta measures Llama 3; lm-eval leaves it to the model, which cuts at 256 where nothing else is said."""


class MathScorer(Scorer):
    """Holds the process that compares answers."""

    def __init__(self, comparer: Comparer) -> None:
        self.comparer = comparer


class Math(Task):
    """MATH or MATH-500, to a base model or a chat model."""

    in_core = True
    title = "MATH"
    splits = Splits("test")
    metrics = (
        Metric("acc_fixed", "fixed"),
        Metric("acc_compat", "compat"),
        Metric("acc_fixed_macro", "fixed", how="macro"),
    )

    def __init__(self, *, drawn: bool, chat: bool) -> None:
        self.drawn, self.chat = drawn, chat
        variant = "-".join(["500"] * drawn + ["chat"] * chat)
        self.name = f"math:{variant}" if variant else "math"
        self.n_shots = None if chat else 4
        prompt = "asks for \\boxed{}" if chat else "lm-eval 0.4.13 minerva_math" + ("500" if drawn else "")
        self.conditions = {"prompt": prompt}

    def read(self, source: Source, split: str) -> Iterable[Item]:
        for number, (row, where) in enumerate(self._rows(source, split)):
            doc = row.get("doc", row)
            problem, solution = doc.get("problem"), doc.get("solution")
            if not isinstance(problem, str) or not isinstance(solution, str):
                raise FormatError(f"{where}: no problem and solution; MATH's rows have them")
            try:
                gold = math.gold_answer(solution)
            except FormatError as error:
                raise FormatError(f"{where}: {error}") from None
            subject = doc.get("type") or doc.get("subject")
            fields = {"problem": problem, "solution": solution, "answer": gold, "level": str(doc.get("level", ""))}
            yield Item(str(doc.get("unique_id") or f"{split}/{number}"), subject, fields)

    def _rows(self, source: Source, split: str) -> Iterator[tuple[Mapping[str, Any], str]]:
        core = "*minerva_math_500*/requests.jsonl.gz" if self.drawn else "*minerva_math_[!5]*/requests.jsonl.gz"
        files = [core, f"{split}.jsonl*", f"*{split}.jsonl*", f"{split}*.parquet"]
        if source.name.startswith("hf:"):
            rows = source.rows(split, *files)
            yield from ((row, f"{source.name}: row {number}") for number, row in enumerate(rows, start=1))
            return
        names = source.find(split, *files, f"*{split}/*/*.json")
        if not names[0].endswith(".json"):
            yield from ((row, f"{source.name}: row {at}") for at, row in enumerate(source.rows(split, *files), start=1))
            return
        for name in names:  # one file a problem, as MATH is packed
            try:
                yield json.loads(source.read(name)), f"{source.name}: {name}"
            except ValueError as error:
                raise FormatError(f"{source.name}: {name}: not JSON ({error})") from None

    def choose_shots(self, items: Sequence[Item], pool: Sequence[Item], n: int) -> Sequence[Sequence[Item]]:
        shots = [Item(f"minerva/{at}", None, shot) for at, shot in enumerate(published("math_minerva")["shots"])]
        return [shots[:n]] * len(items)

    def request(self, item: Item, shots: Sequence[Item]) -> Request:
        if self.chat:
            message = Message("user", _ASKED.format(item.fields["problem"]))
            return Generate((message,), max_tokens=2 * MAX_TOKENS)
        told = [f"Problem:\n{shot.fields['problem']}\n\nSolution: {shot.fields['solution']}\n\n" for shot in shots]
        prompt = "".join(told) + f"Problem:\n{item.fields['problem']}\n\nSolution:"
        return Generate(prompt, ("Problem:",), max_tokens=MAX_TOKENS)

    @contextmanager
    def open_scorer(self, options: Mapping[str, Any]) -> Iterator[MathScorer]:
        with Comparer() as comparer:
            yield MathScorer(comparer)

    def score(self, item: Item, answered: Answered, scorer: MathScorer) -> Verdict:
        text, gold = answered.written.text, item.fields["answer"]
        scored = {
            "fixed": math.fixed(text, gold, scorer.comparer),
            "compat": math.compat(text, gold, scorer.comparer),
        }
        filtered = {name: one.answer for name, one in scored.items()}
        return Verdict({name: one.score for name, one in scored.items()}, filtered)


TASKS = tuple(Math(drawn=drawn, chat=chat) for drawn in (False, True) for chat in (False, True))

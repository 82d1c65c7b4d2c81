"""HumanEval (Chen et al., 2021): 164 Python functions to be completed from their documentation, judged by tests.

    humaneval        the raw prompt, greedy, as lm-eval 0.4.13's `humaneval`
    humaneval:chat   a chat model's code block, begun with the prompt, as its `humaneval_instruct`
    humaneval:64     64 samples at temperature 0.2, top-p 0.95, as its `humaneval_64`; pass@1 beside its own k

A test runs in a process of its own and calls the function of the program's process, with plain data. Functions that a
prompt defines whole, and the test uses, are taken from the prompt. The authors ask that the items not be published.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from camelid.errors import FormatError
from camelid.evals.sandbox import Check
from camelid.evals.sources import Source
from camelid.evals.task import Answered, Generate, Item, Request, Splits, Verdict
from camelid.evals.tasks.programs import ProgramScorer, ProgramTask
from camelid.tokens.templates.message import Message

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
_PATTERNS = ("HumanEval.jsonl*", "*codex_humaneval/gold_bpb_0shot/requests.jsonl.gz", "*humaneval*", "*HumanEval*")
_FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


def read_problems(source: Source, split: str) -> list[dict[str, str]]:
    """The problems, in the published order.

    Raises:
        FormatError: items of another form.
    """
    problems = []
    for number, row in enumerate(source.rows(split, *_PATTERNS), 1):
        row = row["doc"] if isinstance(row.get("doc"), Mapping) else row
        fields = {name: row.get(name) for name in _FIELDS}
        if not all(isinstance(value, str) for value in fields.values()):
            lacking = next(name for name, value in fields.items() if not isinstance(value, str))
            raise FormatError(f"{source.name}: item {number}: has no {lacking}; is it HumanEval?")
        problems.append({name: str(value) for name, value in fields.items()})
    return problems


def check_of(fields: Mapping[str, Any]) -> Check:
    """The test of a problem."""
    entry_point = fields["entry_point"]
    return Check(fields["test"], (entry_point,), entry_point, setup=fields["prompt"])


class HumanEval(ProgramTask):
    """One of the three forms of HumanEval."""

    in_core = True
    title = "HumanEval"
    splits = Splits(items="test")
    n_shots = None

    def __init__(self, form: Literal["raw", "chat", "samples"]) -> None:
        self.form = form
        self.name = {"raw": "humaneval", "chat": "humaneval:chat", "samples": "humaneval:64"}[form]
        self.ks = (1, 2, 8, 16, 32, 64) if form == "samples" else (1,)
        oracle = {"raw": "humaneval", "chat": "humaneval_instruct", "samples": "humaneval_64"}[form]
        self.conditions = {"prompt": f"lm-eval {oracle}", "limit": "3 s of a processor"}
        super().__init__()

    def read(self, source: Source, split: str) -> Iterable[Item]:
        for fields in read_problems(source, split):
            yield Item(fields["task_id"], None, fields)

    def request(self, item: Item, shots: Sequence[Item]) -> Request:
        prompt = item.fields["prompt"]
        if self.form == "samples":
            return Generate(prompt, STOPS, max_tokens=1024, n=64, temperature=0.2, top_p=0.95)
        if self.form == "raw":
            return Generate(prompt, STOPS, max_tokens=1024)
        asked = "Write a solution to the following problem and make sure that it passes the tests:\n"
        turns = (
            Message("user", f"{asked}```python\n{prompt}\n```\n"),
            Message("assistant", f"Here is the completed function:\n```python\n{prompt}\n"),
        )
        return Generate(turns, STOPS, max_tokens=1024)

    def score(self, item: Item, answered: Answered, scorer: ProgramScorer) -> Verdict:
        texts = answered.written.texts
        if self.form == "chat":
            texts = tuple(text.partition("```")[0] for text in texts)
        return scorer.verdict([item.fields["prompt"] + text for text in texts], check_of(item.fields), self.ks)


TASKS = (HumanEval("raw"), HumanEval("chat"), HumanEval("samples"))

"""HumanEval's single-line infilling (Bavarian et al., 2022): one line of a solution is missing, 1,033 times.

For models that were trained to fill in, as Code Llama. Items come from the published file, or are made from HumanEval
itself: each line of a canonical solution that is not blank is taken out once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from camelid.errors import FormatError, OptionError
from camelid.evals.sources import Source
from camelid.evals.task import Answered, Generate, Infill, Item, Metric, Request, Splits, Verdict
from camelid.evals.tasks.humaneval import check_of, read_problems
from camelid.evals.tasks.programs import ProgramScorer, ProgramTask

_PUBLISHED = "*SingleLineInfilling*.jsonl*"
_FIELDS = ("task_id", "entry_point", "prompt", "suffix", "canonical_solution", "test")


def cut_lines(problem: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """A problem for each line of its solution that is not blank."""
    lines = problem["canonical_solution"].splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.strip():
            yield {
                "task_id": f"SingleLineInfilling/{problem['task_id']}/L{number}",
                "entry_point": problem["entry_point"],
                "prompt": problem["prompt"] + "".join(lines[:number]),
                "suffix": "".join(lines[number + 1 :]),
                "canonical_solution": line,
                "test": problem["test"],
                "helpers": problem["prompt"],
            }


def whole(fields: Mapping[str, Any], line: str) -> str:
    """The program with its line; where the one that was taken out brought its end with it, so must this."""
    between = "\n" if fields["canonical_solution"].endswith("\n") and not line.endswith("\n") else ""
    return str(fields["prompt"] + line + between + fields["suffix"])


class HumanEvalInfill(ProgramTask):
    """Single-line infilling."""

    in_core = True
    name = "humaneval-infill"
    title = "HumanEval, single-line infilling"
    splits = Splits(items="test")
    n_shots = None
    clustered = True  # lines of one function
    conditions: Mapping[str, Any] = {"prompt": "fill-in tokens, prefix-suffix-middle", "limit": "3 s of a processor"}

    def __init__(self) -> None:
        super().__init__()
        self.metrics = (*self.metrics, Metric("exact_match", "exact_match"))

    def read(self, source: Source, split: str) -> Iterable[Item]:
        try:
            rows = [self._checked(source, n, row) for n, row in enumerate(source.rows(split, _PUBLISHED), 1)]
        except OptionError:
            rows = [row for problem in read_problems(source, split) for row in cut_lines(problem)]
        for row in rows:
            yield Item(row["task_id"], row["task_id"].rpartition("/L")[0], row)

    @staticmethod
    def _checked(source: Source, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
        if "suffix" not in row:  # a single file that is HumanEval itself
            raise OptionError("not the published file")
        fields = {name: row.get(name) for name in _FIELDS}
        if not all(isinstance(value, str) for value in fields.values()):
            lacking = next(name for name, value in fields.items() if not isinstance(value, str))
            raise FormatError(f"{source.name}: item {number}: has no {lacking}; is it single-line infilling?")
        return {**fields, "helpers": _helpers(str(fields["prompt"]), str(fields["entry_point"]))}

    def request(self, item: Item, shots: Sequence[Item]) -> Request:
        return Generate(Infill(item.fields["prompt"], item.fields["suffix"]), ("\n",), max_tokens=1024)

    def score(self, item: Item, answered: Answered, scorer: ProgramScorer) -> Verdict:
        fields, text = item.fields, answered.written.text
        check = check_of({**fields, "prompt": fields["helpers"]})
        verdict = scorer.verdict([whole(fields, text)], check, self.ks)
        same = float(text.rstrip() == fields["canonical_solution"].rstrip())
        return Verdict({**verdict.scores, "exact_match": same}, verdict.filtered, verdict.notes)


def _helpers(prompt: str, entry_point: str) -> str:
    """What stands before the function that a line is missing in: the functions that its test may use."""
    return prompt.rpartition(f"def {entry_point}(")[0]


TASKS = (HumanEvalInfill(),)

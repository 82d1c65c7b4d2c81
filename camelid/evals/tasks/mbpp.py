"""MBPP (Austin et al., 2021): 500 small Python problems (numbers 11 to 510), each with three assertions.

    mbpp        three shots, as lm-eval 0.4.13's `mbpp`
    mbpp:chat   three shots as turns, a code block begun, as its `mbpp_instruct` with a chat template

The shots are the problems 2, 3 and 4, as in the paper (MBPP: CC BY 4.0, Google Research). Assertions run in a process
of their own and call the functions that the published solution defines, with plain data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from camelid.errors import FormatError, OptionError
from camelid.evals.sandbox import Check
from camelid.evals.sandbox.calls import find_calls
from camelid.evals.sources import Source
from camelid.evals.task import Answered, Generate, Item, Metric, Request, Splits, Verdict
from camelid.evals.tasks.programs import ProgramScorer, ProgramTask
from camelid.tokens.templates.message import Message

_FIRST, _LAST = 11, 510
_PATTERNS = ("mbpp.jsonl*", "*codex_mbpp/gold_bpb_0shot/requests.jsonl.gz", "*mbpp*")
_SHOTS = (
    {
        "task_id": 2,
        "text": "Write a function to find the similar elements from the given two tuple lists.",
        "code": "def similar_elements(test_tup1, test_tup2):\r\n"
        "  res = tuple(set(test_tup1) & set(test_tup2))\r\n  return (res) ",
        "test_list": [
            "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)",
            "assert similar_elements((1, 2, 3, 4),(5, 4, 3, 7)) == (3, 4)",
            "assert similar_elements((11, 12, 14, 13),(17, 15, 14, 13)) == (13, 14)",
        ],
    },
    {
        "task_id": 3,
        "text": "Write a python function to identify non-prime numbers.",
        "code": "import math\r\ndef is_not_prime(n):\r\n    result = False\r\n"
        "    for i in range(2,int(math.sqrt(n)) + 1):\r\n        if n % i == 0:\r\n            result = True\r\n"
        "    return result",
        "test_list": [
            "assert is_not_prime(2) == False",
            "assert is_not_prime(10) == True",
            "assert is_not_prime(35) == True",
        ],
    },
    {
        "task_id": 4,
        "text": "Write a function to find the largest integers from a given list of numbers "
        "using heap queue algorithm.",
        "code": "import heapq as hq\r\ndef heap_queue_largest(nums,n):\r\n"
        "  largest_nums = hq.nlargest(n, nums)\r\n  return largest_nums",
        "test_list": [
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],3)==[85, 75, 65] ",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],2)==[85, 75] ",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],5)==[85, 75, 65, 58, 35]",
        ],
    },
)


def check_of(fields: Mapping[str, Any]) -> Check:
    """The assertions of a problem, after what the publishers run before them."""
    source = "\n".join([fields["test_setup_code"], *fields["test_list"]])
    return find_calls(source, fields["code"])


class Mbpp(ProgramTask):
    """One of the two forms of MBPP."""

    in_core = True
    title = "MBPP"
    splits = Splits(items="test")
    n_shots = 3

    def __init__(self, form: Literal["raw", "chat"]) -> None:
        self.form = form
        self.name = "mbpp" if form == "raw" else "mbpp:chat"
        oracle = "mbpp" if form == "raw" else "mbpp_instruct, shots as turns"
        self.conditions = {"prompt": f"lm-eval {oracle}", "limit": "3 s of a processor"}
        super().__init__()
        if form == "chat":
            self.metrics = tuple(Metric(f"pass@1_{how}", f"pass@1_{how}") for how in ("fixed", "compat"))

    def read(self, source: Source, split: str) -> Iterable[Item]:
        found = 0
        for number, row in enumerate(source.rows(split, *_PATTERNS, config="full"), 1):
            row = row["doc"] if isinstance(row.get("doc"), Mapping) else row
            fields = {name: row.get(name) for name in ("task_id", "text", "code", "test_list")}
            tests = fields["test_list"]
            sound = isinstance(fields["text"], str) and isinstance(fields["code"], str)
            if not sound or not isinstance(tests, list) or len(tests) < 3 or not isinstance(fields["task_id"], int):
                raise FormatError(
                    f"{source.name}: item {number}: needs task_id, text, code and three tests; is it MBPP?"
                )
            if _FIRST <= fields["task_id"] <= _LAST:
                found += 1
                fields["test_setup_code"] = row.get("test_setup_code") or ""
                yield Item(f"MBPP/{fields['task_id']}", None, fields)
        if not found:
            raise FormatError(f"{source.name}: holds none of the problems {_FIRST} to {_LAST}, which are MBPP's test")

    def choose_shots(self, items: Sequence[Item], pool: Sequence[Item], n: int) -> Sequence[Sequence[Item]]:
        if n > len(_SHOTS):
            raise OptionError(f"shots: mbpp has {len(_SHOTS)}, got {n}", param="shots")
        return [[Item(f"MBPP/{shot['task_id']}", None, shot) for shot in _SHOTS[:n]]] * len(items)

    def request(self, item: Item, shots: Sequence[Item]) -> Request:
        if self.form == "raw":
            told = [f"{_asked(shot)}{shot.fields['code']}\n[DONE]\n\n" for shot in shots]
            return Generate("".join(told) + _asked(item), ("[DONE]",), max_tokens=256)
        turns = []
        for shot in shots:
            turns += [Message("user", _asked_in_chat(shot))]
            turns += [Message("assistant", f"\n```python\n{shot.fields['code']}\n```")]
        turns += [Message("user", _asked_in_chat(item)), Message("assistant", "\n```python\n")]
        return Generate(tuple(turns), max_tokens=256)

    def score(self, item: Item, answered: Answered, scorer: ProgramScorer) -> Verdict:
        texts, check = answered.written.texts, check_of(item.fields)
        if self.form == "raw":
            return scorer.verdict(texts, check, self.ks)
        fixed = scorer.verdict([_code_block(text) for text in texts], check, self.ks)
        compat = scorer.verdict([_code_block_compat(text) for text in texts], check, self.ks)
        both = {"fixed": fixed, "compat": compat}
        scores = {f"{name}_{how}": value for how, each in both.items() for name, value in each.scores.items()}
        return Verdict(scores, {how: each.filtered for how, each in both.items()}, fixed.notes)


def _asked(item: Item) -> str:
    fields = item.fields
    tests = "\n".join(fields["test_list"][:3])
    head = f"You are an expert Python programmer, and here is your task: {fields['text']} "
    return f"{head}Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"


def _asked_in_chat(item: Item) -> str:
    tests = "\n".join(item.fields["test_list"][:3])
    head = "You are an expert Python programmer, and here is your task:"
    return f"{head}\n{item.fields['text']}\nYour code should pass these tests:\n{tests}"


def _code_block(text: str) -> str:
    """What stands before the end of the code block that the prompt opened; a model that opens it again is forgiven."""
    return re.sub(r"^\s*```\w*\n", "", text).partition("```")[0]


def _code_block_compat(text: str) -> str:
    """As lm-eval does it, which takes the first word of the program for the block's language: `def f` becomes ` f`."""
    pattern = r"```(?:\w+)?\n?(.*?)\n?```"
    found = re.search(pattern, "```" + text, re.DOTALL)
    if found is None:
        found = re.search(pattern, text.replace("```python", "```"), re.DOTALL)
    return found[1] if found else ""


TASKS = (Mbpp("raw"), Mbpp("chat"))

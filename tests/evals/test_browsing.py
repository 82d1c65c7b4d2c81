"""Results looked through: the index says what the whole file says, in bounded memory, and damage is told on a line."""

from __future__ import annotations

import json
import random
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camelid.errors import FormatError, OptionError
from camelid.evals.browsing import LONGEST, ItemIndex, ResultStore
from camelid.evals.comparing import open_result, pair_of
from camelid.evals.records import ITEMS, LOG, RESULT, write_result
from camelid.evals.result import Result, summarise
from camelid.evals.run import evaluate
from camelid.evals.task import Metric
from tests.evals.asking import RuleModel, write_mmlu

BETTER = Metric("share", "right")
WORSE = Metric("refused", "right", higher_is_better=False)


def an_item(number: int, right: float | None, group: str | None = None, question: str = "") -> dict[str, object]:
    answer = {"kind": "written", "texts": [f"It is {number}."], "finish_reasons": ["stop"], "n_tokens": [4]}
    turn = {"answer": answer, "n_prompt": 9, "ids_sha256": None, "prompt_sha256": "ab"}
    return {
        "id": f"item/{number}",
        "group": group,
        "fields": {"question": question or f"How much is {number}?", "answer": number},
        "shots": [],
        "turns": [turn],
        "judged": [],
        "filtered": {"right": str(number)},
        "scores": {"right": right},
        "notes": [],
    }


def a_result(folder, items, metric=BETTER, task="sums"):
    """A result of camelid's own writing, with these items."""
    summary = summarise([metric], items, False, {})
    result = Result(
        task=task,
        model=folder.name,
        shots=0,
        conditions={"shots": 0},
        items=items,
        seconds=1.5,
        folder=folder,
        **summary,
    )
    folder.mkdir(parents=True)
    write_result(folder, items, result.as_record(), {"seconds": 1.5})
    return folder


def test_what_evaluate_wrote(tmp_path):
    data, out = write_mmlu(tmp_path / "mmlu.tar.gz"), tmp_path / "results"
    made = [evaluate(RuleModel(), "mmlu", data=data, out=out, shots=shots) for shots in (5, 0)]
    store = ResultStore(out)
    listed = {each.name: each for each in store.all()}
    assert set(listed) == {result.folder.name for result in made}
    for result in made:
        own = listed[result.folder.name]
        assert own.result.metrics == open_result(result.folder).metrics
        index = store.items(own)
        assert [index.read(at) for at in range(len(index))] == open_result(result.folder).items
        wrong = [at for at, item in enumerate(result.items) if not item["scores"]["acc"]]
        assert index.wrong("acc", True) == wrong
        assert index.groups == ["anatomy", "formal_logic", "virology"]
        assert store.items(own) is index  # it is kept


def test_two_results_are_compared_as_the_command_compares_them(tmp_path):
    data, out = write_mmlu(tmp_path / "mmlu.tar.gz", n_items=9), tmp_path / "results"
    whole, part = (
        evaluate(RuleModel(), "mmlu", data=data, out=out, limit=limit, shots=shots)
        for limit, shots in ((None, 0), (20, 5))
    )
    store = ResultStore(out)
    compared = store.compare(store.get(whole.folder.name), store.get(part.folder.name))
    pair = pair_of(open_result(whole.folder), open_result(part.folder))
    assert compared.comparisons == pair.comparisons
    assert compared.comparisons["acc"].p is not None
    assert compared.differing == pair.differing
    outcomes = compared.outcomes("acc", True)
    assert sum(map(len, outcomes.values())) == 20
    assert len(outcomes["first"]) == pair.comparisons["acc"].only_first
    assert len(outcomes["second"]) == pair.comparisons["acc"].only_second
    index = store.items(store.get(whole.folder.name))
    differing = {item["id"] for item, _ in pair.items("acc")}
    assert {index.read(here)["id"] for here, _ in outcomes["first"] + outcomes["second"]} == differing


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, None])] * 2), min_size=1, max_size=12), st.booleans())
def test_outcomes_of_any_scores(tmp_path_factory, scores, higher):
    folder, metric = tmp_path_factory.mktemp("results"), BETTER if higher else WORSE
    for name, own in (("a", 0), ("b", 1)):
        a_result(folder / name, [an_item(at, pair[own]) for at, pair in enumerate(scores)], metric)
    store = ResultStore(folder)
    compared = store.compare(store.get("a"), store.get("b"))
    counts = {name: len(places) for name, places in compared.outcomes("right", higher).items()}
    good = 1.0 if higher else 0.0
    right = [tuple((score or 0.0) == good for score in pair) for pair in scores]
    for name, wanted in {"both": (True, True), "first": (True, False), "second": (False, True)}.items():
        assert counts[name] == right.count(wanted)
    found = next(iter(compared.comparisons.values()))
    assert {found.only_first, found.only_second} == {counts["first"], counts["second"]}


def test_an_answer_that_could_not_be_read_is_wrong_either_way(tmp_path):
    for name, metric in (("a", BETTER), ("b", WORSE)):
        a_result(tmp_path / name, [an_item(0, 1.0), an_item(1, None), an_item(2, 0.0)], metric)
    index = ItemIndex(tmp_path / "a" / ITEMS)
    assert index.unread("right") == [1]
    assert index.wrong("right", True) == [1, 2]
    assert index.wrong("right", False) == [0, 1]
    assert index.wrong("nothing", True) == []


def test_what_cannot_be_compared(tmp_path):
    items = [an_item(0, 1.0), an_item(1, 0.0)]
    a_result(tmp_path / "a", items)
    a_result(tmp_path / "other-task", items, task="more")
    a_result(tmp_path / "other-items", [an_item(7, 1.0)])
    a_result(tmp_path / "changed", [an_item(0, 1.0, question="Another?"), an_item(1, 0.0)])
    store = ResultStore(tmp_path)
    for name, said in (("other-task", "different tasks"), ("other-items", "no items"), ("changed", "contents.*item/0")):
        with pytest.raises(OptionError, match=said):
            store.compare(store.get("a"), store.get(name))


DAMAGED = [
    b"",
    b"{",
    b"7",
    b"\xff",
    b"[" * 100_000,
    b'{"task": 1, "model": "m", "metrics": {}, "conditions": {}}',
    b'{"task": "t", "model": "m", "metrics": [], "conditions": {}, "n": 1, "shots": 0}',
]
CHANGED = [
    ("metrics", {}),
    ("metrics", {"share": {"value": "x"}}),
    ("metrics", {"share": {"value": float("nan"), "stderr": None, "low": None, "high": None, "n": 1}}),
    ("metrics", {"share": {"value": 10**400, "stderr": None, "low": None, "high": None, "n": 1}}),
    ("groups", 7),
    ("groups", {"g": {"share": 3}}),
    ("conditions", []),
    ("shots", "five"),
    ("n", None),
    ("n", -1),
    ("notes", {"cut": "many"}),
    ("task", ["t"]),
]


@pytest.mark.parametrize("data", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_result_is_told_on_a_line(tmp_path, data):
    a_result(tmp_path / "good", [an_item(0, 1.0)])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / RESULT).write_bytes(data)
    shown = {each.name: each for each in ResultStore(tmp_path).all()}
    assert shown["good"].result is not None
    assert shown["bad"].result is None
    assert str(tmp_path / "bad") in shown["bad"].wrong
    assert "\n" not in shown["bad"].wrong


@pytest.mark.parametrize(("name", "value"), CHANGED, ids=range(len(CHANGED)))
def test_a_result_with_a_wrong_value_is_none(tmp_path, name, value):
    path = a_result(tmp_path / "bad", [an_item(0, 1.0)]) / RESULT
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    assert "not a result" in ResultStore(tmp_path).get("bad").wrong


def test_a_run_that_goes_on(tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / LOG).write_text("{}\n")
    (tmp_path / "no result").mkdir()
    store = ResultStore(tmp_path)
    assert [(each.name, each.result) for each in store.all()] == [("half", None)]
    assert "not finished" in store.get("half").wrong
    assert store.get("..") is None
    assert ResultStore(tmp_path / "none").all() == []


def test_lines_that_are_no_items_are_left_out(tmp_path):
    path = a_result(tmp_path / "a", [an_item(at, 1.0, "g") for at in range(4)]) / ITEMS
    lines = path.read_bytes().splitlines(keepends=True)
    torn = [
        lines[0],
        b'{"id": 3}\n',
        lines[1],
        b"[" * 10**5 + b"\n",
        b" " * (LONGEST + 9) + b"\n",
        lines[2],
        lines[3][:50],
    ]
    path.write_bytes(b"".join(torn))
    index = ItemIndex(path)
    assert [index.read(at)["id"] for at in range(len(index))] == ["item/0", "item/1", "item/2"]
    assert index.broken == [2, 4, 5, 7]


def test_a_file_that_changes_is_read_anew(tmp_path):
    path = a_result(tmp_path / "a", [an_item(at, 1.0) for at in range(3)]) / ITEMS
    store = ResultStore(tmp_path)
    index = store.items(store.get("a"))
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[2])
    with pytest.raises(FormatError, match="has changed"):
        index.read(1)
    assert len(store.items(store.get("a"))) == 1
    path.unlink()
    with pytest.raises(FormatError, match="is not there"):
        store.items(store.get("a"))


def test_half_a_surrogate_pair_can_be_sent(tmp_path):
    folder = a_result(tmp_path / "a", [an_item(0, 1.0, question="\ud83d?")])
    read = ItemIndex(folder / ITEMS).read(0)
    assert read["fields"]["question"] == "??"
    assert json.dumps(read, ensure_ascii=False).encode()


@pytest.mark.slow
def test_an_index_of_mmlus_size_is_small(tmp_path):
    rng = random.Random(1)
    with (tmp_path / ITEMS).open("w") as file:
        for number in range(14_042):
            item = an_item(number, float(rng.random() < 0.3), f"subject {number % 57}", "word " * 300)
            file.write(json.dumps(item) + "\n")
    size = (tmp_path / ITEMS).stat().st_size
    assert size > 20_000_000
    tracemalloc.start()
    index = ItemIndex(tmp_path / ITEMS)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == 14_042
    assert held < 1_000_000
    assert peak < 2_000_000
    assert index.read(14_041)["id"] == "item/14041"

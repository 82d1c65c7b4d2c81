"""A card: which results are a model's, what stands beside them, and what differs."""

from __future__ import annotations

import hashlib
import json
import math

import pytest

from camelid.errors import FormatError, NotFoundError
from camelid.evals import evaluate
from camelid.evals.cards.card import make_cards
from camelid.evals.cards.sheet import cards_as_json, lay_out
from camelid.evals.task import Choices, Likelihoods
from tests.evals.asking import RuleModel, unit, write_mmlu


class NamedModel(RuleModel):
    """The rule under a name; its picks depend on `salt`, and it may say which files it is."""

    def __init__(self, name, salt="", files=()):
        super().__init__()
        self.name, self.salt, self.files = name, salt, list(files)

    def describe(self):
        return {"rule": 1, "files": self.files}

    def reply(self, request, word):
        assert isinstance(request, Choices)
        texts = [
            f"{self.salt}{context}{each}" for context, each in zip(request.contexts, request.continuations, strict=True)
        ]
        alone = tuple(-unit(each) for each in request.continuations) if request.unconditioned else ()
        return Likelihoods(tuple(-unit(text) for text in texts), (False,) * len(texts), (1,) * len(texts), alone)


def write_choices(folder, n=6):
    """ARC's items as JSON lines, in a folder with a file a split."""
    folder.mkdir()
    for split in ("train", "test"):
        rows = [
            {
                "id": f"{split}{at}",
                "question": f"{split}: what is {unit(f'{folder.name}{split}{at}'):.6f}?",
                "choices": {"text": [f"{at} apples", f"{at} pears"], "label": ["A", "B"]},
                "answerKey": "AB"[at % 2],
            }
            for at in range(n)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def mmlu(tmp_path):
    return write_mmlu(tmp_path / "mmlu.tar.gz", n_items=8)


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def row_of(card, task, metric):
    (row,) = [row for row in card.rows if (row.task, row.metric) == (task, metric)]
    return row


def test_published_figures_stand_beside_ours_and_say_what_differs(mmlu, results):
    result = evaluate(NamedModel("smollm2:135m-instruct"), "mmlu", data=mmlu, out=results)
    (card,) = make_cards(["smollm2:135m-instruct"], results)
    row = row_of(card, "mmlu", "acc")
    assert row.figure == result.metrics["acc"]
    (beside,) = row.published
    assert beside.figure.value == 0.293
    assert beside.differs == ("shots", "form")
    assert beside.unstated == ("chat", "average")
    assert row_of(card, "mmlu", "acc_macro").figure == result.metrics["acc_macro"]
    (told,) = [each for each in cards_as_json([card])["cards"][0]["rows"] if each["metric"] == "acc"]
    assert set(told) >= {"task", "metric", "value", "stderr", "interval", "n", "conditions", "published"}
    assert told["published"][0]["differs"] == [
        "shots: theirs 0, ours 5",
        "form: theirs the likeliest text, ours the likeliest letter",
    ]


def test_the_same_conditions_differ_in_nothing(mmlu, results):
    evaluate(NamedModel("llama3:8b"), "mmlu", data=mmlu, out=results)
    (card,) = make_cards(["llama3:8b"], results)
    (micro,) = row_of(card, "mmlu", "acc").published
    (macro,) = row_of(card, "mmlu", "acc_macro").published
    assert (micro.figure.value, macro.figure.value) == (0.654, 0.666)
    assert (micro.differs, macro.differs) == ((), ())


def test_what_is_missing_is_missing_and_has_its_command(mmlu, results):
    evaluate(NamedModel("smollm2:135m-instruct"), "mmlu", data=mmlu, out=results)
    (card,) = make_cards(["smollm2:135m-instruct"], results)
    row = row_of(card, "hellaswag", "acc_norm")
    assert row.figure is None
    assert row.published[0].figure.value == 0.409
    assert "mmlu" not in card.missing
    assert card.missing["mmlu:continuation"].shots == 0  # as published
    assert card.missing["winogrande"].shots is None
    assert card.missing["piqa"].command == f"camelid eval piqa --model smollm2:135m-instruct --shots 0 --out {results}"
    assert (
        card.missing["gsm8k"].command == f"camelid eval gsm8k --model smollm2:135m-instruct --data PATH --out {results}"
    )
    (told,) = [each for each in cards_as_json([card])["cards"][0]["rows"] if each["task"] == "hellaswag"]
    assert (told["value"], told["n"], told["interval"]) == (None, 0, None)


def test_first_items_only_is_a_difference_and_the_larger_result_counts(mmlu, results):
    model = NamedModel("llama3:8b")
    small = evaluate(model, "mmlu", data=mmlu, out=results, limit=12)
    (card,) = make_cards(["llama3:8b"], results)
    row = row_of(card, "mmlu", "acc")
    assert row.figure == small.metrics["acc"]
    assert row.published[0].differs == ("items",)
    assert row.conditions["items"] == "the first 12 of 24 items"
    whole = evaluate(model, "mmlu", data=mmlu, out=results)
    (card,) = make_cards(["llama3:8b"], results)
    assert row_of(card, "mmlu", "acc").figure == whole.metrics["acc"]


def test_a_mean_of_two_tasks(tmp_path, results):
    model = NamedModel("smollm2:135m-instruct")
    easy, hard = (
        evaluate(model, task, data=write_choices(tmp_path / task), out=results, shots=0)
        for task in ("arc-easy", "arc-challenge")
    )
    (card,) = make_cards(["smollm2:135m-instruct"], results)
    row = row_of(card, "arc-easy + arc-challenge", "acc_norm")
    figures = [each.metrics["acc_norm"] for each in (easy, hard)]
    assert row.figure.value == pytest.approx(sum(each.value for each in figures) / 2)
    assert row.figure.stderr == pytest.approx(math.hypot(*(each.stderr for each in figures)) / 2)
    assert row.figure.n == 12
    assert row.published[0].figure.value == 0.373
    assert row.published[0].differs == ()


def test_models_are_compared_on_the_same_items(mmlu, results):
    for name, salt in (("one", ""), ("two", "other"), ("same", "")):
        evaluate(NamedModel(name, salt), "mmlu", data=mmlu, out=results)
    first, second, third = make_cards(["one", "two", "same"], results)
    assert all(row.difference is None for row in first.rows)
    row = row_of(second, "mmlu", "acc")
    gap = row.figure.value - row_of(first, "mmlu", "acc").figure.value
    assert row.difference.comparison.difference == pytest.approx(gap)
    assert row.difference.to == "one"
    assert row_of(third, "mmlu", "acc").difference.comparison.p == 1
    told = cards_as_json([second])["cards"][0]["rows"][0]["difference"]
    assert told["value"] == pytest.approx(gap)
    assert {card.model for card in make_cards([], results)} == {"one", "two", "same"}


def test_other_items_are_not_compared_and_that_is_said(tmp_path, results):
    evaluate(NamedModel("one"), "mmlu", data=write_mmlu(tmp_path / "a.tar.gz"), out=results)
    other = write_mmlu(tmp_path / "b.tar.gz", n_items=3)
    evaluate(NamedModel("two"), "mmlu", data=other, out=results)
    items = results / "mmlu--two" / "items.jsonl"
    items.write_text(items.read_text().replace("question 1", "question one"))
    _, second = make_cards(["one", "two"], results)
    assert row_of(second, "mmlu", "acc").difference is None
    assert "other contents" in second.notes[0]


def test_a_file_is_known_by_its_hash(tmp_path, mmlu, results):
    file, other = tmp_path / "renamed.gguf", tmp_path / "other.gguf"
    file.write_bytes(b"weights")
    other.write_bytes(b"strange")
    told = {"name": "model.gguf", "bytes": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}
    evaluate(NamedModel("a-name", files=[told]), "mmlu", data=mmlu, out=results)
    (card,) = make_cards([str(file)], results)
    assert card.model == "a-name"
    assert card.missing["piqa"].command == f"camelid eval piqa --model {file} --out {results}"
    assert row_of(card, "mmlu", "acc").figure is not None
    with pytest.raises(NotFoundError, match=r"other.gguf: no results in .* has a-name"):
        make_cards([str(other)], results)


def test_models_that_lack_the_same_have_one_command(mmlu, results):
    for name in ("one", "two"):
        evaluate(NamedModel(name), "mmlu", data=mmlu, out=results)
    sheet = lay_out(make_cards(["one", "two", "Gemini Pro 1.5"], results))
    (names, commands), unnamed = sheet.missing
    assert names == ("one", "two")
    assert commands[0].startswith("camelid eval arc-easy arc-challenge ")
    assert commands[0].endswith(f" --model one --model two --out {results}")
    assert f"camelid eval xstest --model one --model two --data PATH --out {results}" in commands
    assert unnamed == (("Gemini Pro 1.5",), ())


def test_a_published_figure_without_ours_is_shown_once(mmlu, results):
    for name in ("SmolLM2-135M-Instruct.Q8_0", "SmolLM2-135M-Instruct.Q4_0"):
        evaluate(NamedModel(name), "mmlu", data=mmlu, out=results)
    lines = lay_out(make_cards([], results)).lines
    assert [line.published[0][0] for line in lines if line.task == "piqa"] == ["66.3"]
    assert [line.published[0][0] for line in lines if line.metric == "acc"] == ["29.3", "29.3"]


def test_a_published_figure_stands_where_others_have_the_same_shots(mmlu, results):
    evaluate(NamedModel("one"), "mmlu", data=mmlu, out=results)
    lines = lay_out(make_cards(["one", "llama3:8b"], results)).lines
    assert [(line.task, line.shots, line.metric, line.model) for line in lines] == [
        ("mmlu", "5", metric, model) for metric in ("acc", "acc_macro") for model in ("one", "llama3:8b")
    ]


def test_bad_input_is_told(tmp_path, mmlu, results):
    with pytest.raises(NotFoundError, match="no such folder"):
        make_cards([], results)
    with pytest.raises(NotFoundError, match="that folder has none"):
        make_cards(["nobody"], results)
    results.mkdir()
    with pytest.raises(NotFoundError, match="holds no results"):
        make_cards([], results)
    evaluate(NamedModel("one"), "mmlu", data=mmlu, out=results)
    (results / "mmlu--one" / "result.json").write_text("{")
    with pytest.raises(FormatError, match=r"result\.json"):
        make_cards(["one"], results)


def test_published_models_need_no_results(results):
    cards = make_cards(["Llama 3 70B Instruct", "Gemini Pro 1.5"], results)
    assert [row_of(card, "math", "acc_fixed").published[0].figure.value for card in cards] == [0.504, 0.585]
    assert cards[0].missing["math"].command == f"camelid eval math --model llama3:70b-instruct --out {results}"
    assert cards[1].missing["math"].command is None

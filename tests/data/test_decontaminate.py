"""Text of tests in documents: found exactly where plain Python finds it, and dropped or cut with an example."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.data.decontaminate import Decontamination
from camelid.data.decontaminate.evaluation_text import EvaluationText
from camelid.data.document import Document
from camelid.data.options import DecontaminateOptions, EvaluationFile
from camelid.data.word_hashes import Words
from camelid.errors import FormatError, MissingError, OptionError

HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": "from typing import List\n\n\ndef has_close_elements(numbers: List[float], threshold: float) -> bool:\n"
    '    """ Check if in given list of numbers, are any two numbers closer to each other than\n    given threshold.\n'
    '    >>> has_close_elements([1.0, 2.0, 3.0], 0.5)\n    False\n    """\n',
    "canonical_solution": "    for idx, elem in enumerate(numbers):\n        for idx2, elem2 in enumerate(numbers):\n",
    "entry_point": "has_close_elements",
}
PROSE = "Somebody asks: check if, in a GIVEN list of numbers, any are close."
COPIED = 'Before.\n""" Check if in given list of numbers — are any two numbers closer to each other THAN given\nAfter.'


def stage(tmp_path: Path, records, fields=("prompt",), name="human-eval.jsonl", **options) -> Decontamination:
    (tmp_path / name).write_text("\n".join(map(json.dumps, records)) + "\n", encoding="utf-8")
    against = (EvaluationFile(path=name, fields=tuple(fields)),)
    return Decontamination(DecontaminateOptions(against=against, **options), tmp_path)


def texts(stage: Decontamination, *given_: str) -> list[str]:
    return [document.text for document in stage.apply(Document(text, f"d{n}", "s") for n, text in enumerate(given_))]


def test_a_copied_prompt_is_dropped_with_what_was_found(tmp_path):
    made = stage(tmp_path, [HUMAN_EVAL])
    assert texts(made, PROSE, COPIED) == [PROSE]
    stats = made.stats
    assert (stats.documents_in, stats.documents_out) == (2, 1)
    assert stats.dropped == {"contains human-eval.jsonl": 1}
    [example] = stats.examples["contains human-eval.jsonl"]
    assert example["id"] == "d1"
    assert example["excerpt"].startswith("item 1: Check if in given list of numbers — are any two")


def test_lines_are_cut_where_that_is_asked_for(tmp_path):
    made = stage(tmp_path, [HUMAN_EVAL], action="cut")
    assert texts(made, PROSE, COPIED, COPIED.splitlines()[1]) == [PROSE, "Before.\nAfter."]
    assert made.stats.dropped == {"contains human-eval.jsonl": 1}  # of which nothing would be left
    assert made.stats.changed == {"cut: contains human-eval.jsonl": 1}
    assert made.stats.examples["cut: contains human-eval.jsonl"][0]["id"] == "d1"
    assert made.stats.bytes_out == len(PROSE) + len("Before.\nAfter.")


def test_all_fields_must_occur(tmp_path):
    both = COPIED + "\nfor idx, elem in enumerate(numbers): for idx2, elem2 in enumerate(numbers)"
    made = stage(tmp_path, [HUMAN_EVAL], fields=("prompt", "canonical_solution"))
    assert texts(made, COPIED, both) == [COPIED]
    # A short field counts as a whole, in a row.
    made = stage(tmp_path, [HUMAN_EVAL], fields=("prompt", "entry_point"))
    assert texts(made, COPIED, COPIED + " has_close_elements", COPIED + " has close elements")[1:] == [
        COPIED + " has close elements"
    ]


def test_words_that_only_share_are_not_enough(tmp_path):
    made = stage(tmp_path, [HUMAN_EVAL])
    twelve = " ".join(HUMAN_EVAL["prompt"].split()[9:21])
    assert len(twelve.split()) == 12
    assert texts(made, twelve) == [twelve]


def test_items_too_short_to_tell_are_counted(tmp_path):
    records = [HUMAN_EVAL, {"prompt": "What is two plus two?"}]
    (tmp_path / "h.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    options = DecontaminateOptions(against=(EvaluationFile(path="h.jsonl", fields=("prompt",), name="h"),))
    found = EvaluationText(options, tmp_path)
    assert (len(found), found.skipped) == (1, {"h": 1})


def test_items_shorter_than_a_run_must_occur_whole(tmp_path):
    nine = "one two three four five six seven eight nine"
    made = stage(tmp_path, [{"prompt": nine}])
    assert texts(made, "zero " + nine.upper() + "!", nine.replace("five", "5")) == [nine.replace("five", "5")]


WORD = st.sampled_from(["a", "b", "A", "b.", "c", "—", "é", "É"])


def plain(text: str) -> list[str]:
    words = ("".join(letter for letter in word.lower() if letter.isalnum()) for word in text.split())
    return [word for word in words if word]


@settings(max_examples=150, deadline=None)
@given(
    items=st.lists(st.lists(WORD, min_size=3, max_size=8), min_size=1, max_size=4),
    words=st.lists(WORD, max_size=25),
    length=st.integers(1, 5),
)
def test_what_is_found_is_what_plain_python_finds(tmp_path_factory, items, words, length):
    folder = tmp_path_factory.mktemp("e")
    (folder / "e.txt").write_text("\n\n".join(" ".join(item) for item in items), encoding="utf-8")
    options = DecontaminateOptions(against=(EvaluationFile(path="e.txt"),), words=length, shortest=1)
    kept = [item for item in map(plain, map(" ".join, items)) if item]
    if not kept:
        with pytest.raises(OptionError, match="no item of 1 words"):
            EvaluationText(options, folder)
        return
    document = " ".join(words)
    mine = plain(document)
    runs = {
        tuple(item[at : at + min(length, len(item))])
        for item in kept
        for at in range(len(item) - min(length, len(item)) + 1)
    }
    expected = any(tuple(mine[at : at + len(run)]) == run for run in runs for at in range(len(mine)))
    found = list(EvaluationText(options, folder).find(Words(document)))
    assert bool(found) == expected
    for match in found:
        assert tuple(plain(document[match.start : match.stop])) in runs


def test_files_of_several_kinds(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps([HUMAN_EVAL]), encoding="utf-8")
    (tmp_path / "lines.jsonl.gz").write_bytes(gzip.compress(json.dumps(HUMAN_EVAL).encode()))
    (tmp_path / "plain.txt").write_text("first of all\n\n" + HUMAN_EVAL["prompt"], encoding="utf-8")
    for path, fields in [("list.json", ("prompt",)), ("lines.jsonl.gz", ("prompt",)), ("plain.txt", ())]:
        options = DecontaminateOptions(against=(EvaluationFile(path=path, fields=fields),))
        assert texts(Decontamination(options, tmp_path), COPIED) == []


@pytest.mark.parametrize(
    ("content", "fields", "kind", "says"),
    [
        (None, ("prompt",), MissingError, "no such file"),
        (b"{", ("prompt",), FormatError, "not JSON"),
        (b"\xff", ("prompt",), FormatError, "not UTF-8 at byte 0"),
        (b'"text"', ("prompt",), FormatError, "item 1: is not a JSON object"),
        (b'{"question": "x"}', ("prompt",), OptionError, "no field 'prompt'; let `fields` name some of: question"),
        (b'{"question": "x"}', (), OptionError, "let `fields` name some of: question"),
        (b'{"prompt": "x"}', ("prompt",), OptionError, "no item of 8 words or more"),
    ],
)
def test_files_that_are_no_tests_are_refused(tmp_path, content, fields, kind, says):
    if content is not None:
        (tmp_path / "t.jsonl").write_bytes(content)
    options = DecontaminateOptions(against=(EvaluationFile(path="t.jsonl", fields=fields),))
    with pytest.raises(kind, match=says):
        EvaluationText(options, tmp_path)

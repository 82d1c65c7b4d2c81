"""The forms in which sets of questions were published, as `question`, `choices` and `answer`; JSON lines or Arrow.

Questions are put as OLMES puts them: a passage and its title stand before, HellaSwag's brackets are taken out.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from camelid.errors import FormatError

Fields = Mapping[str, Any]
Parse = Callable[[str, Mapping[str, Any], str], Fields]


def split_patterns(task: str, split: str) -> list[str]:
    """What the files of a split are called."""
    names = {"validation": ("validation", "val", "dev"), "train": ("train",), "test": ("test",)}[split]
    suffixes = ("jsonl", "jsonl.gz", "json", "arrow", "parquet")
    patterns = [f"*{name}*.{suffix}" for name in names for suffix in suffixes]
    return [*patterns, *(f"*/{name}/*.{suffix}" for name in names for suffix in suffixes)]


def _item(id: str, where: str, question: Any, choices: Any, answer: Any) -> Fields:
    texts = isinstance(question, str) and isinstance(choices, list) and all(isinstance(each, str) for each in choices)
    if not texts or len(choices) < 2:
        raise FormatError(f"{where}: item {id}: needs a question and at least two answers; another form of the set?")
    if not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise FormatError(f"{where}: item {id}: the gold answer is missing; take a split whose answers are public")
    return {"question": question, "choices": choices, "answer": answer}


def _number(value: Any, first: int = 0) -> int | None:
    """A label that is a number, or its text, counted from `first`."""
    try:
        return int(value) - first
    except (TypeError, ValueError):
        return None


def _labelled(id: str, row: Mapping[str, Any], where: str) -> Fields:
    """ARC, OpenBookQA and CommonsenseQA: answers with labels, of which one is the key."""
    stem: Any = row.get("question_stem", row.get("question"))
    choices = row.get("choices")
    if isinstance(stem, Mapping):  # the published files themselves
        stem, choices = stem.get("stem"), stem.get("choices")
    if isinstance(choices, Mapping):
        texts, labels = list(choices.get("text", ())), list(choices.get("label", ()))
    else:
        pairs = [each for each in choices or () if isinstance(each, Mapping)]
        texts, labels = [each.get("text") for each in pairs], [each.get("label") for each in pairs]
    key = row.get("answerKey")
    return _item(id, where, stem, texts, labels.index(key) if key in labels else None)


def _hellaswag(id: str, row: Mapping[str, Any], where: str) -> Fields:
    parts = [row.get(name) for name in ("activity_label", "ctx_a", "ctx_b")]
    if not all(isinstance(part, str) for part in parts):
        return _item(id, where, None, None, None)
    label, before, after = (str(part) for part in parts)
    question = _unbracketed(f"{label}: {before} {after.capitalize()}")
    endings = [_unbracketed(each) for each in row.get("endings", ())]
    return _item(id, where, question, endings, _number(row.get("label")))


def _unbracketed(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ").replace(".. ", ". ")


def _piqa(id: str, row: Mapping[str, Any], where: str) -> Fields:
    return _item(id, where, row.get("goal"), [row.get("sol1"), row.get("sol2")], _number(row.get("label")))


def _boolq(id: str, row: Mapping[str, Any], where: str) -> Fields:
    passage, question = row.get("passage"), row.get("question")
    if isinstance(row.get("title"), str):
        passage = f"{row['title']} -- {passage}"
    label = row.get("answer", row.get("label"))
    answer = None if label is None or label == -1 else int(not bool(label))
    return _item(
        id, where, f"{passage}\nQuestion: {question}?" if passage and question else None, ["yes", "no"], answer
    )


def _sciq(id: str, row: Mapping[str, Any], where: str) -> Fields:
    names = ("distractor1", "distractor2", "distractor3", "correct_answer")
    choices = [row.get(name) for name in names]
    order = list(range(4))
    seed = hashlib.sha256(str(row.get("question")).encode()).digest()
    random.Random(seed).shuffle(order)  # else the right answer is always the last
    return _item(id, where, row.get("question"), [choices[at] for at in order], order.index(3))


def _socialiqa(id: str, row: Mapping[str, Any], where: str) -> Fields:
    context, question = row.get("context"), row.get("question")
    choices = [row.get(f"answer{letter}") for letter in "ABC"]
    return _item(
        id, where, f"{context} {question}" if context and question else None, choices, _number(row.get("label"), 1)
    )


def _winogrande(id: str, row: Mapping[str, Any], where: str) -> Fields:
    sentence = row.get("sentence")
    if not isinstance(sentence, str) or sentence.count("_") != 1:
        return _item(id, where, None, None, None)
    return _item(id, where, sentence, [row.get("option1"), row.get("option2")], _number(row.get("answer"), 1))


def _copa(id: str, row: Mapping[str, Any], where: str) -> Fields:
    connectors = {"cause": "because", "effect": "therefore"}
    premise, connector = row.get("premise"), connectors.get(str(row.get("question")))
    question = f"{premise.strip()[:-1]} {connector}" if isinstance(premise, str) and connector else None
    choices = [text[:1].lower() + text[1:] for name in ("choice1", "choice2") if (text := row.get(name))]
    return _item(id, where, question, choices, _number(row.get("label")))


FORMS: dict[str, Parse] = {
    "arc-easy": _labelled,
    "arc-challenge": _labelled,
    "openbookqa": _labelled,
    "commonsenseqa": _labelled,
    "hellaswag": _hellaswag,
    "piqa": _piqa,
    "boolq": _boolq,
    "sciq": _sciq,
    "socialiqa": _socialiqa,
    "winogrande": _winogrande,
    "copa": _copa,
}

"""Cleaning, on a crafted log with one row for each rule; by FastChat's rules, slips included, and by ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from camelid.arena.cleaning.candidates import Candidate, candidates
from camelid.arena.cleaning.clean import clean
from camelid.arena.cleaning.rules import RULES, CleanOptions
from camelid.arena.cleaning.words import IDENTITY, identity_part, identity_word
from camelid.arena.logs.fastchat import vote_row
from camelid.arena.logs.vote import BattleText, Vote
from camelid.errors import OptionError


def line(question: str, a: str | None, b: str | None, number: int, *, anony: bool = True, models=("m", "n"), voter="v"):
    vote = Vote(*models, "model_a", f"c{number}", 1.7e9 + number, voter, question, turns=1, anony=anony)
    sides = [({"role": "user", "content": question}, {"role": "assistant", "content": said}) for said in (a, b)]
    return vote_row("leftvote", vote, BattleText(f"c{number}", *models, *sides))


CRAFTED = {
    "counts": line("hello", "hi", "good day", 0),
    "a word inside of another": line("hello", "A coherent text", "good day", 1),
    "a maker in the question": line("What is Google?", "A firm", "A company", 2),
    "a name in an answer": line("who are you", "I am Vicuna.", "nobody", 3),
    "an answer is missing": line("hello", None, "hi", 4),
    "empty answers": line("hello", " ", "", 5),
    "one empty answer": line("hello", " ", "hi", 14),
    "an error": line("hello", "**API REQUEST ERROR** Reason: The response was blocked.", "hi", 6),
    "a cursor": line("hello", "hi▌", "hi", 7),
    "names were shown": line("hello", "hi", "hi", 8, anony=False),
    "one name was shown": {**line("hello", "hi", "hi", 9), "models": ["", "n"]},
    "a model met itself": line("hello", "hi", "hi", 10, models=("m", "m")),
    "excluded": line("hello", "hi", "hi", 11, models=("m", "old")),
    "banned": line("hello", "hi", "hi", 12, voter="bad"),
    "no vote": {"type": "chat", "model": "m", "state": {}, "tstamp": 1.7e9},
    "null names": {**line("hello", "hi", "hi", 13), "models": [None, "n"]},
}
LEFT_OUT = {
    "default": {
        "a name in an answer": "identity: vicuna",
        "an answer is missing": "an answer is missing",
        "empty answers": "both answers are empty",
        "an error": "an error stands in it",
        "a cursor": "an answer is unfinished",
        "names were shown": "the names were shown",
        "one name was shown": "one of the names was shown",
        "a model met itself": "a model met itself",
        "excluded": "a model is excluded",
        "banned": "the voter is banned",
    },
    "compat": {
        "a word inside of another": "identity: cohere",
        "a maker in the question": "identity: google",
        "a name in an answer": "identity: vicuna",
        "an answer is missing": "an answer is missing",
        "an error": "an error stands in it",
        "a cursor": "an answer is unfinished",
        "names were shown": "the names were shown",
        "one name was shown": "one of the names was shown",
        "excluded": "a model is excluded",
        "banned": "the voter is banned",
    },
}


def log(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in CRAFTED.values()), encoding="utf-8")
    return path


@pytest.mark.parametrize("rules", RULES)
def test_a_crafted_log_has_one_vote_for_each_rule(tmp_path, rules):
    path = log(tmp_path / "2023-11-14-conv.json")
    cleaned = clean(candidates([path]), CleanOptions(rules=rules, exclude=("old",), ban=("bad",)))
    names = [name for name in CRAFTED if name not in ("no vote", "null names")]
    found = {name: each.reason for name, each in zip(names, cleaned.judged, strict=True) if each.reason}
    assert found == LEFT_OUT[rules]
    assert sum(cleaned.counts.values()) == len(found)
    assert len(cleaned.battles) == len(names) - len(found)
    assert cleaned.others == {"default": 1, "compat": 3}


@pytest.mark.parametrize(
    ("text", "whole", "part"),
    [
        ("A coherent bombardment", None, "bard"),
        ("I was made by OpenAI.", "openai", "openai"),
        ("gpt-4o", "gpt-4o", "gpt-4"),
        ("Qwen2 and Claude3", "qwen", "claude"),
        ("llamas eat grass", None, "llama"),
        ("GPT-4 says", "gpt-4", "gpt-4"),
        ("das Tülu-Modell", "tülu", "tülu"),
        ("a palmtree of googles", None, "palm"),
        ("I come from UC Berkeley", "uc berkeley", "uc berkeley"),
    ],
)
def test_words_whole_and_in_parts(text, whole, part):
    assert identity_word(text) == whole
    assert identity_part(text) == part
    assert len(IDENTITY) == 33


def one(number: int, **fields) -> Candidate:
    return Candidate(
        Vote("m", "n", "tie", f"c{number}", 1.7e9 + number, **{"voter": "v", **fields}), f"x:{number}", None
    )


def test_a_voters_day_is_full():
    cleaned = clean([one(number) for number in range(5)] + [one(9 * 86400)], CleanOptions(most_a_day=3))
    assert [each.rule for each in cleaned.judged] == [None, None, None, "too many", "too many", None]
    assert cleaned.counts["too many"] == 2


def test_a_question_that_is_asked_too_often_counts_as_often_as_others():
    asked = [one(k, prompt="hello", voter=f"v{k}") for k in range(6)]
    rest = [one(10 + k, prompt=f"question {k // 2}", voter=f"w{k}") for k in range(20)]
    cleaned = clean([*asked, *rest], CleanOptions(prompt_quantile=0.9))
    assert cleaned.counts["often asked"] == 4
    assert clean([*asked, *rest]).counts["often asked"] == 0


def test_old_names_are_those_of_the_boards():
    votes = [
        Vote("gpt-4", "bard", "tie", "a", 1687849201.0),
        Vote("gpt-4", "claude-v1", "tie", "b", 1687849200.0),
    ]
    cleaned = clean(Candidate(vote, "x:1", None) for vote in votes)
    assert [(vote.model_a, vote.model_b) for vote in cleaned.votes] == [
        ("gpt-4-0314", "claude-1"),
        ("gpt-4-0613", "palm-2"),
    ]


def test_no_such_rules():
    with pytest.raises(OptionError, match="no such rules; "):
        clean([], CleanOptions(rules="strict"))

"""What style control counts in a text."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from camelid.arena.battles import Battles
from camelid.arena.ratings import RateOptions, rate
from camelid.arena.ratings.style import add_columns, count_style, lacking
from camelid.errors import OptionError


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", (0, 0, 0, 0)),
        ("Two words, and marks.", (6, 0, 0, 0)),
        ("# Title\n## Part\n#hash 5 # 3", (10, 2, 0, 0)),
        ("- one\n* two\n  + three\n1. four\n2) five\n-six 7.8", (20, 0, 5, 0)),
        ("**bold** and __bold__ but 2 ** 3 ** 4 and snake__case__name", (20, 0, 0, 2)),
        ("# a\n```md\n# no\n- no\n**no**\n```\n- b", (20, 1, 1, 0)),
        ("```\n- left open", (6, 0, 0, 0)),
    ],
)
def test_counts_of_a_text(text, counts):
    assert count_style(text)[1:] == counts[1:]
    assert (count_style(text)[0] > 0) == bool(text)


def said(*answers: str) -> list[dict[str, str]]:
    return [
        each
        for answer in answers
        for each in ({"role": "user", "content": "# q"}, {"role": "assistant", "content": answer})
    ]


@dataclass
class Text:
    id: str
    conversation_a: list[dict[str, str]]
    conversation_b: list[dict[str, str]] = field(default_factory=lambda: said("plain words"))


def test_columns_come_from_answers_by_the_battles_ids():
    battles = Battles.of(["x", "y"], ["y", "x"], ["model_a", "tie"], ids=np.array(["one", "two"]))
    texts = [Text("two", said("- a", "**b**\n- c")), Text("other", []), Text("one", said("# t"))]
    counted = add_columns(battles, texts)
    assert lacking(battles, True, None)
    assert not lacking(counted, True, None)
    assert counted.numbers["lists"].tolist() == [[0, 0], [2, 0]]
    assert counted.numbers["bold"].tolist() == [[0, 0], [1, 0]]
    assert counted.numbers["headers"].tolist() == [[1, 0], [0, 0]]
    assert counted.numbers["tokens"][:, 1].tolist() == [2, 2]
    assert [each.name for each in rate(counted, RateOptions(style=True)).coefficients] == [
        "tokens",
        "headers",
        "lists",
        "bold",
    ]


def test_a_battle_without_text_is_told():
    battles = Battles.of(["x", "y"], ["y", "x"], ["model_a", "tie"], ids=np.array(["one", "two"]))
    with pytest.raises(OptionError, match="1 of 2 battles have no text"):
        add_columns(battles, [Text("two", said("a"))])
    with pytest.raises(OptionError, match="no ids"):
        add_columns(Battles.of(["x"], ["y"], ["tie"]), [])


def test_categories_find_what_they_ask_for_in_texts():
    battles = Battles.of(["x"] * 2, ["y"] * 2, ["model_a", "tie"], ids=np.array(["one", "two"]))
    long = [{"role": "user", "content": "word " * 500}, {"role": "assistant", "content": "short"}]
    counted = add_columns(battles, [Text("one", said("```py\nx\n```")), Text("two", long)])
    for category, n in (("coding", 1), ("long-query", 1), ("exclude-short", 1)):
        assert lacking(battles, False, category)
        assert not lacking(counted, False, category)
        assert rate(counted, RateOptions(category=category)).n_votes == n
    assert not lacking(battles, False, "english")

"""What style control counts in a text."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from camelid.arena.battles import Battles
from camelid.arena.ratings import RateOptions, rate
from camelid.arena.ratings.style import add_style, count_style, has_style
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
    counted = add_style(battles, texts)
    assert not has_style(battles)
    assert has_style(counted)
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
        add_style(battles, [Text("two", said("a"))])
    with pytest.raises(OptionError, match="no ids"):
        add_style(Battles.of(["x"], ["y"], ["tie"]), [])

"""Rewards by code: forms of answers, right answers, and what a recipe may call them."""

from __future__ import annotations

import pytest

from camelid.cli.rewards import _comparer, code_rewards
from camelid.errors import FormatError, OptionError
from camelid.train.rewards.forms import FORMS, CodeRewards, form_reward


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("contains:a:b", "x a:b y", "a b"),
        ("lacks:sorry", "Fine.", "I am sorry."),
        (r"regex:^\d+$", "17", "17 "),
        ("most-words:2", "two words", "three of them"),
        ("least-words:3", "three of them", "two words"),
        ("ends-well", 'She said: "Yes." ', "She said"),
        ("ends-well", "**Done!**", "Done,"),
        ("json", ' {"a": [1, null]}\n', "{'a': 1}"),
        ("json", "3", "NaN"),
    ],
)
def test_forms(name, good, bad):
    reward = code_rewards()[name]
    assert (reward(good, {}), reward(bad, {})) == (1.0, 0.0)


def test_deep_json_is_no_crash():
    assert form_reward("json")("[" * 100_000, {}) == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("contains", "code:contains needs the text behind it, got ''"),
        ("regex:(", r"code:regex needs the pattern behind it, got '\('"),
        ("most-words:-1", "code:most-words needs a number behind it, got '-1'"),
        ("most-words:²", "code:most-words needs a number behind it"),
        ("json:strict", "code:json needs nothing behind it, got 'strict'"),
        ("jsn", "no check by code 'jsn'; did you mean 'json'"),
    ],
)
def test_what_cannot_be_meant(name, words):
    with pytest.raises(OptionError, match=words):
        form_reward(name)


def test_names():
    rewards = CodeRewards({"own": lambda answer, about: 2.0})
    assert set(rewards) == {"own", *FORMS}
    assert len(rewards) == 1 + len(FORMS)
    assert "own" in rewards
    assert "contains:x" in rewards
    assert "gsm8k" not in rewards
    assert 3 not in rewards
    assert rewards["own"]("", {}) == 2
    with pytest.raises(KeyError):
        rewards["gsm8k"]
    assert {"gsm8k", "gsm8k-form", "math"} <= set(code_rewards())


def test_gsm8k():
    reward, form = code_rewards()["gsm8k"], code_rewards()["gsm8k-form"]
    about = {"answer": "She has 3 * 6 = <<3*6=18>>18.\n#### 18"}
    assert reward("So she has $18.00.", about) == 1
    assert reward("#### 18\n", about) == 1
    assert reward("Not 18 but 17", about) == 0
    assert reward("", about) == 0
    assert form("So she has 18.", about) == 0
    assert form("The answer is 17.", about) == 1


def test_math():
    pytest.importorskip("sympy")
    reward = code_rewards()["math"]
    about = {"solution": r"Thus $x = \boxed{\frac{1}{2}}$."}
    assert reward(r"It is $\boxed{0.5}$.", about) == 1
    assert reward(r"It is $\boxed{2}$.", about) == 0
    assert reward("I do not know.", about) == 0
    assert reward(r"\boxed{7}", {"answer": "7"}) == 1
    _comparer().close()
    _comparer.cache_clear()


def test_no_right_answer():
    with pytest.raises(FormatError, match=r"prompt 7: no right answer; it needs a field answer, and has reply"):
        code_rewards()["gsm8k"]("18", {"id": 7, "reply": "18"})
    with pytest.raises(FormatError, match="has nothing"):
        code_rewards()["math"]("18", {"id": 7})

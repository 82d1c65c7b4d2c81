"""Answers to MATH: lm-eval's quirks each by a worked example, values that are equal, and values that are not."""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.errors import FormatError, MissingError
from camelid.evals.scorers import math, math_process
from camelid.evals.scorers.math_equal import equal
from camelid.evals.scorers.math_latex import Unreadable, plain, read
from camelid.evals.scorers.math_minerva import final_answer, last_box, normalised
from camelid.evals.scorers.math_process import Comparer

pytest.importorskip("mpmath")

EQUAL = r"""
\frac12 | 0.5
\frac 3 4 | 0.75
\dfrac{3}{4} | 3/4
\frac{-3}{2} | -\frac{3}{2}
2\frac12 | 2 1/2
2\frac{1}{2} | \frac52
0.\overline{3} | \frac13
1,000 | 1000
12{,}345 | 12,\!345
\$4.50 | 4.5
50\% | 50
30^\circ | 30
x=3 | 3
y = 2x+1 | 2x + 1
x \in [2,5) | [2,5)
(-\infty,2)\cup(3,\infty) | (3,∞)∪(−∞,2)
\{1,2\} | 2, 1
3\text{ and }5 | 3, 5
1 \pm \sqrt 2 | 1-\sqrt{2}, 1+\sqrt{2}
\left(\frac12, 3\right) | (0.5,3)
\begin{pmatrix}1/2\\3\end{pmatrix} | \begin{bmatrix}0.5\\ 3\end{bmatrix}
\frac{\sqrt{2}}{2} | \frac{1}{\sqrt2}
\sqrt[3]{-8} | -2
(x+1)^2 | x^2+2x+1
2\sin x\cos x | \sin 2x
\sin^2 x+\cos^2 x | 1
e^{i\pi} | -1
\log_2 8 | 3
\binom{5}{2} | 10
5! | |-120|
3x+4y=12 | 6x+8y-24=0
x>3 | 3<x
\text{even} | Even
\text{(A)} | A
5\text{ cm}^2 | 5 square centimeters
10 inches | 10
4343_6 | 4343_{6}
x = 4343_6 | 4343_{6}
1A_{16} | 01A_{16}
A_1 + 0 | A_1
**73** | 73
"""
UNEQUAL = r"""
1 | 2
0.333 | \frac13
[2,5) | [2,5]
(2,3) | [2,3]
(1,2) | (2,1)
1,2 | 1,2,3
[0] | [1]
\infty | -\infty
x^2 | x
\sqrt{x^2} | x
x<3 | x\le 3
3x+4y=12 | 3x+4y=13
4343_6 | 4343_7
even | odd
A | B
\begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}1&2\end{pmatrix}
"""


def pairs(table: str) -> list[tuple[str, str]]:
    return [tuple(line.split(" | ")) for line in table.strip().splitlines()]


@pytest.mark.parametrize(("a", "b"), pairs(EQUAL))
def test_equal_values(a, b):
    assert equal(read(a), read(b))
    assert equal(read(b), read(a))


@pytest.mark.parametrize(("a", "b"), pairs(UNEQUAL))
def test_other_values(a, b):
    assert not equal(read(a), read(b))
    assert not equal(read(b), read(a))


@pytest.mark.parametrize("text", ["", "\\frac{1}", "(1", "1 +", "x^", "{" * 100 + "}" * 100, "\\input{x}", "1" * 3000])
def test_what_is_no_value(text):
    with pytest.raises(Unreadable):
        read(text)


@pytest.mark.parametrize("text", ["2003^{2002^{2001}}", "1/0", "(10^9)!"])
def test_what_cannot_be_evaluated_equals_nothing(text):
    with pytest.raises(Unreadable):
        equal(read(text), read(text))


@given(st.fractions(max_denominator=999), st.sampled_from([r"\frac{%d}{%d}", r"\dfrac{%d}{%d}", "%d/%d", r"(%d)/(%d)"]))
def test_fractions_are_what_they_are(value, form):
    shown = form % (value.numerator, value.denominator)
    assert equal(read(shown), read(rf"\frac{{{3 * value.numerator}}}{{{3 * value.denominator}}}"))
    assert not equal(read(shown), read(rf"\frac{{{value.numerator + 1}}}{{{value.denominator}}}"))


@given(
    st.integers(0, 10**9),
    st.sampled_from(["{:,}", "{}.0", "${}$", r"\${:,}", "{}.", " {} ", r"\text{{{}}}", "{}^\\circ"]),
)
def test_how_a_number_is_written_changes_nothing(number, form):
    assert equal(read(form.format(number)), ("num", Fraction(number)))


@given(st.text(alphabet="0123456789+-*/^_(){}[]|,.;:!=<>\\ abcdefx%$&'"))
def test_no_text_breaks_the_parser(text):
    with contextlib.suppress(Unreadable):
        equal(read(text), read(text))


def test_boxes():
    assert last_box(r"a \boxed{1} b \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert last_box(r"$\boxed 3$.") == "3"
    assert last_box(r"\fbox{4}") == "4"
    assert last_box(r"\boxed{5") is None
    assert math.gold_answer(r"so $\boxed{[2,5)}$") == "[2,5)"
    with pytest.raises(FormatError, match=r"no \\boxed answer"):
        math.gold_answer("so 3")


PHRASE = "Final Answer: The final answer is {}. I hope it is correct."


@pytest.fixture(scope="module")
def comparer() -> Iterator[Comparer]:
    with Comparer(latex=False) as comparer:
        yield comparer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (PHRASE.format("$[2,5)$"), "[2,5)"),
        ("Final Answer: The final answer is $[2,5)$.", "[2,5)"),
        (r"Thus $\boxed{[2, 5)}$ it is.", "[2, 5)"),
        ("Final Answer: The final answer is\n$[2,5)$.", "[2,5)"),
        ("The answer is $[2,5)$. Really.", "[2,5)"),
        ("It is [2,5).", None),
    ],
)
def test_where_fixed_looks_for_the_answer(text, answer, comparer):
    found = math.fixed(text, "[2,5)", comparer)
    assert (found.answer, found.right) == (answer, None if answer is None else True)


def test_fixed_says_unparsable(comparer):
    assert math.fixed(r"\boxed{\frac{1}}", "3", comparer).right is None
    assert math.fixed(r"\boxed{2003^{2002^{2001}}}", "3", comparer).right is None
    assert math.fixed(r"\boxed{\frac{1}}", r"\frac{1}", comparer).right is True, "the same text is the same"
    assert math.fixed(r"\boxed{4}", "3", comparer).right is False


def test_compat_finds_no_answer_that_is_cut_before_the_closing_phrase():
    assert final_answer(PHRASE.format("$2$")) == "$2$"
    assert final_answer("Final Answer: The final answer is $2$.") is None, "it adds the phrase without a space"
    assert final_answer("Final Answer: The final answer is $2$. ") == "$2$"


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("x = 5", "5"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\sqrt3x", r"\sqrt{3}x"),
        (r"2\pi\text{ cm}", r"2\pi"),
        ("a cat", "cat"),
        ("1,000", "1000"),
        ("0,1", "0,1"),
        ("10 dollars", "10"),
        (r"\left(1,2\right)", r"\left(1,2\right)"),
    ],
)
def test_minervas_normal_form(answer, form):
    assert normalised(answer) == form


def test_compat_compares_with_sympy():
    pytest.importorskip("antlr4")
    with Comparer() as comparer:
        assert math.compat(PHRASE.format(r"$\frac{2}{4}$"), "0.5", comparer).right
        assert not math.compat(PHRASE.format("3"), "4", comparer).right
        interval = PHRASE.format("$[2,5)$")
        assert math.compat(interval, "[2,5)", comparer).right
        assert math.compat(interval, "[2,5)", comparer, identical=False).right is False, (
            "as an earlier state of lm-eval"
        )
        assert math.compat(r"\boxed{3}", "3", comparer).right is None


def test_a_comparison_without_end_is_ended(monkeypatch):
    monkeypatch.setattr(math_process, "FIRST_SECONDS", 30.0)
    with Comparer(0.5, latex=False) as comparer:
        started = time.monotonic()
        assert comparer.equal("latex", "{" * 40_000, "{" * 40_000) is not True
        assert time.monotonic() - started < 30
        assert comparer.equal("values", r"\frac12", "0.5") is True, "the next one is answered"


def test_a_child_that_dies_is_followed_by_another(comparer):
    assert comparer.equal("values", "1", "1") is True
    comparer._child.kill()
    assert comparer.equal("values", "2", "2.0") is True


def test_without_sympy_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(Comparer, "_ask", lambda *arguments: "null\n")
    with pytest.raises(MissingError, match=re.escape("pip install 'camelid[eval]'")):
        Comparer()


def test_the_real_golds(real_rows):
    """All 5,000 equal themselves; different ones of a subject are not equal by chance."""
    golds = [(row["type"], math.gold_answer(row["solution"])) for row in real_rows("math/test.jsonl.gz")]
    trees = [read(gold) for _, gold in golds]
    assert len(golds) == 5000
    assert all(equal(tree, read(json.loads(json.dumps(gold)))) for tree, (_, gold) in zip(trees, golds, strict=True))
    draw, equals = random.Random(0), set()
    for _ in range(3000):
        (kind, a), one = golds[at := draw.randrange(5000)], trees[at]
        (other_kind, b), other = golds[at := draw.randrange(5000)], trees[at]
        if kind == other_kind and re.sub(r"\s", "", plain(a)) != re.sub(r"\s", "", plain(b)) and equal(one, other):
            equals.add((a, b))
    assert equals == set()

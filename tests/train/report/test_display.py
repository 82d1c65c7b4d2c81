"""What a person sees of a run: a block on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from camelid.train.report.display import BARS, Display, Sparkline, sparkline
from camelid.train.report.units import count, duration
from tests.train.report.test_metrics import step


def drawn(terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=100, highlight=False, color_system=None), out


def test_on_a_terminal_everything_is_seen():
    console, out = drawn(terminal=True)
    with Display(
        "tiny, pretrain", 20, tokens=1280, about="1.9M [parameters]", unigram=6.02, console=console
    ) as display:
        for number in range(1, 11):
            display.step(step(number, 5 - number / 10, mfu=0.42, memory_bytes=812_000_000))
        display.step(step(11, 3.875, validation_loss=3.913, mfu=0.42, memory_bytes=812_000_000))
        display.saved("step11-tokens704")
        display.note("a [note] that stays")
    block = out.getvalue().rpartition("tiny, pretrain")[2]
    for part in ("11 of 20 steps", "3.8750", "3.9130", "after step 11", "unigram entropy 6.020", "704", "of 1.28k"):
        assert part in block
    for part in ("256", "42% of the matrix units", "812 MB", "step11-tokens704", "0 s ago", "2 s left", BARS[-1]):
        assert part in block
    assert "a [note] that stays" in out.getvalue()
    assert "1.9M [parameters]" in out.getvalue()


def test_elsewhere_there_are_plain_lines_and_not_too_many():
    console, out = drawn(terminal=False)
    with Display("tiny, pretrain", 40, about="on 2 threads", console=console, every=3600) as display:
        for number in range(1, 31):
            display.step(step(number, 2.5, validation_loss=2.75 if number == 20 else None))
        display.saved("step20-tokens1280")
    lines = out.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "tiny",
        "step 1/40",
        "step 20/40",
        "saved step20-tokens1280",
        "step 30/40",
    ]
    assert "validation loss 2.7500" in lines[2]
    assert "\x1b" not in out.getvalue()
    console, out = drawn(terminal=False)
    with Display("tiny", 3, console=console, every=0) as display:
        display.step(step(1))
        display.step(step(2))
    assert len(out.getvalue().splitlines()) == 3


def test_before_the_first_step():
    console, out = drawn(terminal=True)
    with Display("tiny", 3, console=console):
        pass
    assert "the first step" in out.getvalue()


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf), max_size=300), st.integers(1, 40))
def test_bars_go_from_the_lowest_to_the_highest(values, width):
    bars = sparkline(values, width)
    assert len(bars) == min(width, len(values))
    assert set(bars) <= {*BARS, " "}
    if len(values) <= width:
        for value, bar in zip(values, bars, strict=True):
            assert (bar == " ") == (not math.isfinite(value))


def test_a_long_curve_keeps_its_shape_in_little_memory():
    curve = Sparkline(8)
    for number in range(100_000):
        curve.add(number)
    assert len(curve._means) < 16
    assert str(curve.bars()) == BARS


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (444_000, "5 d 3 h")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(812, "812"), (4096, "4.1k"), (2_457_600, "2.46M"), (6_738_415_616, "6.74B"), (2e12, "2T"), (999_999, "1M")],
)
def test_counts(number, words):
    assert count(number) == words

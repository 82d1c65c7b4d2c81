"""The common pace, in a loop whose time is counted and not waited for."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from camelid.arena.config import PaceOptions
from camelid.arena.live.contenders import Side
from camelid.arena.live.pace import Pace

PACE = PaceOptions(tick=0.25, characters=10, start=2, hold=1)


class Counted(asyncio.SelectorEventLoop):
    """Where sleeping takes no time, and the clock moves on by as much."""

    def __init__(self) -> None:
        super().__init__()
        self._moment = 0.0
        select = self._selector.select

        def skip(seconds: float | None = None) -> Any:
            self._moment += seconds or 0.0
            return select(0)

        self._selector.select = skip

    def time(self) -> float:
        return self._moment


def run(work: Coroutine[Any, Any, Any]) -> Any:
    loop = Counted()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


async def written(side: Side, text: str, first: float, per_second: float) -> None:
    """A model with a time to its first character and a speed."""
    await asyncio.sleep(first)
    for character in text:
        await asyncio.sleep(1 / per_second)
        side.text += character
    side.ended = True


def schedule(*models: tuple[str, float, float], fails: int | None = None) -> list[tuple[float, tuple[str, ...]]]:
    """What leaves when, of models that write a text after a time with a speed."""

    async def work() -> list[tuple[float, tuple[str, ...]]]:
        sides = tuple(Side() for _ in models)
        tasks = [asyncio.create_task(written(side, *model)) for side, model in zip(sides, models, strict=True)]
        if fails is not None:
            sides[fails].problem, sides[fails].ended = "it broke", True
        pieces: AsyncGenerator[tuple[str, ...], None] = Pace(sides, PACE).pieces()
        seen = [(round(asyncio.get_running_loop().time(), 6), each) async for each in pieces]
        for task in tasks:
            task.cancel()
        return seen

    return run(work())


LONG, SHORT = "long answer " * 20, "short answer"


def test_models_that_keep_up_leave_alike_whatever_their_speed():
    expected = schedule((LONG, 0.1, 10_000), (SHORT, 0.1, 10_000))
    assert [moment for moment, _ in expected] == [2 + 0.25 * tick for tick in range(24)]
    rng = random.Random(1)
    for _ in range(50):
        speeds = [(rng.uniform(0, 1.5), rng.uniform(60, 2000)) for _ in range(2)]
        assert schedule((LONG, *speeds[0]), (SHORT, *speeds[1])) == expected


def test_all_of_both_texts_leaves_in_equal_ticks():
    seen = schedule((LONG, 5, 7), (SHORT, 0, 900))
    assert ["".join(piece) for piece in zip(*(pieces for _, pieces in seen), strict=True)] == [LONG, SHORT]
    assert all(len(piece) <= 10 for _, pieces in seen for piece in pieces)


def test_who_is_behind_stops_both_for_one_of_a_few_waits():
    for a, b in ((8, 900), (900, 8)):
        moments = [moment for moment, _ in schedule((LONG, 0, a), (LONG, 0, b))]
        gaps = [round(after - before, 6) for before, after in itertools.pairwise(moments)]
        waits = [gap for gap in gaps if gap != 0.25]
        assert len(waits) <= 1
        assert all(round(wait - 0.25, 6) in {2**n - 1 for n in range(1, 8)} for wait in waits)
    assert [each for each, _ in schedule((LONG, 0, 8), (LONG, 0, 900))] == [
        each for each, _ in schedule((LONG, 0, 900), (LONG, 0, 8))
    ]


def test_a_side_that_failed_ends_both():
    assert schedule((LONG, 0, 900), (LONG, 0, 900), fails=1) == []

"""The common pace: both sides start together and leave in equal ticks, however quick their models are.

The first piece comes `start` seconds after the question, and then `characters` of each side in every tick, which says
nothing of models that keep up. Where one does not, both sides stop until both answers are whole, looked for after
`hold`, 2 · `hold`, 4 · `hold` … seconds, and go on as before. So a battle tells at most which of a few waits it was,
and it stops both sides alike; an operator who sees waits chooses a slower pace, or a later start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from camelid.arena.config import PaceOptions
from camelid.arena.live.contenders import Side


class Pace:
    """Lets two answers out.

    Args:
        sides: on their way.
        options: how quickly.

    Attributes:
        held: seconds for which both sides have waited for one.
        failed: whether a side has failed, so that nothing more comes.
    """

    def __init__(self, sides: Sequence[Side], options: PaceOptions) -> None:
        self._sides, self._options = sides, options
        self.held, self.failed = 0.0, False

    async def pieces(self) -> AsyncGenerator[tuple[str, ...], None]:
        """What leaves in each tick, of every side; ends when all have left, or one has failed."""
        clock, options = asyncio.get_running_loop().time, self._options
        begun, at = clock() + options.start, 0
        n_ticks = 0
        while True:
            await asyncio.sleep(begun + self.held + n_ticks * options.tick - clock())
            n_ticks += 1
            await self._wait_for_all(at + options.characters)
            self.failed = any(side.problem is not None for side in self._sides)
            if self.failed:
                return
            yield tuple(side.text[at : at + options.characters] for side in self._sides)
            at += options.characters
            if all(side.ended and len(side.text) <= at for side in self._sides):
                return

    async def _wait_for_all(self, wanted: int) -> None:
        """Where a side has not come so far, until both are whole."""
        if not any(self._is_behind(side, wanted) for side in self._sides):
            return
        step = self._options.hold
        while not all(side.ended for side in self._sides):
            await asyncio.sleep(step)
            self.held += step
            step *= 2
            if any(side.problem is not None for side in self._sides):
                return

    @staticmethod
    def _is_behind(side: Side, wanted: int) -> bool:
        return not side.ended and len(side.text) < wanted

"""A battle's turns: whom a question goes to, how both answers are written and let out, and what is kept of them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from camelid.arena.config import ArenaConfig
from camelid.arena.live.contenders import Contender, Side, sampling_of, write
from camelid.arena.live.limits import Limited, Limits
from camelid.arena.live.maker import names_maker
from camelid.arena.live.pace import Pace
from camelid.arena.live.store import Begun, Pair, Refused, Store
from camelid.arena.live.tables import Answer, Mode
from camelid.arena.live.tickets import Signer
from camelid.arena.pairing import Tally, draw_pair
from camelid.errors import CamelidError, OptionError, ResourceError
from camelid.tokens.templates.message import Message

SIDES = ("a", "b")
FAILED = "One of the two models could not answer. Have both answer again, or begin a new round."
UNKEPT = "The answers could not be kept, so there can be no vote on them. Have both answer again."
FORBIDDEN = "This text cannot be sent to the models here. Please write something else."
KEEP_TRIES, KEEP_SECONDS = 4, 1.0  # of a turn that the database does not take at once
FAILURES, OUTAGE_SECONDS = 3, 60.0  # in a row, after which a model is not drawn for so long

log = logging.getLogger(__name__)
Event = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """A text about which moderation is asked: a question, or the end of an answer together with its question."""

    kind: Literal["question", "answer"]
    text: str
    mode: Mode


Moderation = Callable[[Judged], Awaitable[bool]]
"""Whether a text may pass."""


class Rounds:
    """All battles of this process.

    Args:
        config: the arena.
        contenders: its models, by name.
        store: where everything is kept.
        moderation: asked before a question is sent and before its answers leave; None: nothing is held back.
        seed: of drawing pairs; None: at random.
        tally: votes so far, for pairs where a vote tells most.
    """

    def __init__(
        self,
        config: ArenaConfig,
        contenders: Mapping[str, Contender],
        store: Store,
        moderation: Moderation | None = None,
        seed: int | None = None,
        tally: Callable[[], Tally | None] = lambda: None,
    ) -> None:
        self.config, self.contenders, self.store = config, contenders, store
        self._moderation, self._generator, self._tally = moderation, np.random.default_rng(seed), tally
        self._failures: dict[str, deque[float]] = {name: deque(maxlen=FAILURES) for name in contenders}
        self._running: dict[str, int] = {}
        self._keeping: set[asyncio.Task[Any]] = set()

    async def stop(self) -> None:
        """Wait until what is being kept is kept."""
        if self._keeping:
            await asyncio.wait(self._keeping)

    def outages(self) -> frozenset[str]:
        """Models that have failed several times in a row, a moment ago."""
        since = self.store.clock.steady() - OUTAGE_SECONDS
        return frozenset(
            name for name, failed in self._failures.items() if len(failed) == FAILURES and failed[-1] > since
        )

    async def begin_turn(self, id: str, mode: Mode, person: str, question: str | None) -> Begun:
        """Take a question, or regenerate where it is None.

        Raises:
            OptionError: too long, empty, or moderation refuses it.
            Limited, NotFoundError, Refused: as `Store.begin_turn`.
        """
        limits = self.config.limits
        if question is not None:
            await self._check(question, mode)
        if limits.at_once and self._running.get(person, 0) >= limits.at_once:
            raise Limited("You have several questions that are being answered; wait for one of them.", 5)
        by_model = {model.name: (model.hourly, model.daily) for model in self.config.models}
        used_up = await self.store.over_limit(by_model)
        pair = self._draw(used_up) if mode == "battle" else None

        def drawn() -> Pair:
            if pair is None:
                raise Refused("No two models can be met at the moment. Try again in a minute.")
            return pair

        return await self.store.begin_turn(id, person, question, drawn, Limits(limits, by_model))

    async def _check(self, question: str, mode: Mode) -> None:
        limits = self.config.limits
        most = limits.question if mode == "battle" else limits.question_side_by_side
        if not question.strip():
            raise OptionError("text: is empty; write a question", param="text")
        if len(question) > most:
            raise OptionError(f"text: has {len(question)} characters; at most {most} are taken", param="text")
        if self._moderation is not None and not await self._moderation(Judged("question", question, mode)):
            raise OptionError(FORBIDDEN, param="text")

    def _draw(self, used_up: frozenset[str]) -> Pair | None:
        """By the rules among the models that can answer; None: there are none."""
        for out in (used_up | self.outages(), used_up):
            with suppress(OptionError):
                tally = self._tally() if self.config.active else None
                drawn = draw_pair(self.config.rules(out), self._generator, tally, self.config.active)
                return drawn.a, drawn.b, drawn.chance
        return None

    async def events(self, begun: Begun, mode: Mode, person: str, signer: Signer) -> AsyncGenerator[Event, None]:
        """What a browser is told of a turn, from `start` to `ready` or `failed`; leaving early ends both answers."""
        self._running[person] = self._running.get(person, 0) + 1
        sides = (Side(), Side())
        seeds = (secrets.randbits(53), secrets.randbits(53))
        tasks = [asyncio.create_task(self._write(begun, at, seeds[at], sides[at])) for at in range(2)]
        pace, kept = Pace(sides, self.config.pace), False
        try:
            yield {"type": "start"}
            async for pieces in pace.pieces():
                for name, text in zip(SIDES, pieces, strict=True):
                    yield {"type": "delta", "side": name, "text": text}
            reason = await self._reason(begun, mode, sides)
            kept = True
            if not await self._keep(begun, sides, seeds, reason, pace.held):
                yield {"type": "failed", "message": UNKEPT}
            elif reason is not None:
                yield {"type": "failed", "message": FAILED}
            else:
                for name in SIDES:
                    yield {"type": "end", "side": name}
                yield {"type": "ready", "ticket": signer.ticket(begun.ticket, person)}
        finally:
            for task in tasks:
                task.cancel()
            self._running[person] -= 1
            if not self._running[person]:
                del self._running[person]
            if not kept:  # who asked has left, or stopped it
                self._later(self._keep(begun, sides, seeds, "stopped by who asked", pace.held))

    async def _write(self, begun: Begun, at: int, seed: int, side: Side) -> None:
        name = begun.models[at]
        contender = self.contenders.get(name)
        if contender is None:
            side.problem, side.ended = f"{name} is no longer in the arena", True
            return
        messages = []
        for question, *answers in begun.past:
            messages += [Message("user", question), Message("assistant", answers[at])]
        messages.append(Message("user", begun.question))
        limits = self.config.limits
        await write(contender, messages, sampling_of(contender.model, limits), seed, side, limits)
        if side.problem is None:
            self._failures[name].clear()
        else:
            self._failures[name].append(self.store.clock.steady())
            log.warning("arena: %s in battle %s: %s", name, begun.battle, side.problem)

    async def _reason(self, begun: Begun, mode: Mode, sides: tuple[Side, Side]) -> str | None:
        """Why the turn has failed, for operators; None: it has not."""
        problems = [
            f"{name}: {side.problem}"
            for name, side in zip(begun.models, sides, strict=True)
            if side.problem is not None
        ]
        if not problems and self._moderation is not None:
            for name, side in zip(begun.models, sides, strict=True):
                judged = Judged("answer", f"{begun.question}\n{side.text[-1000:]}", mode)
                if not await self._moderation(judged):
                    problems.append(f"{name}: its answer was held back")
        return "; ".join(problems) or None

    async def _keep(
        self, begun: Begun, sides: tuple[Side, Side], seeds: tuple[int, int], reason: str | None, held: float
    ) -> bool:
        """Keep a turn; whether it was."""
        for again in range(KEEP_TRIES):
            if again:
                await asyncio.sleep(KEEP_SECONDS)
            try:
                return await self.store.end_turn(begun, self._answers(begun, sides, seeds), reason, held)
            except ResourceError as error:
                log.warning("arena: battle %s was not kept: %s", begun.battle, error)
        return False

    def _answers(self, begun: Begun, sides: tuple[Side, Side], seeds: tuple[int, int]) -> list[Answer]:
        made = []
        for at, (name, side) in enumerate(zip(begun.models, sides, strict=True)):
            contender, record = self.contenders.get(name), side.record
            if contender is None:
                continue
            row = Answer(
                battle=begun.battle,
                number=begun.number,
                attempt=begun.attempt,
                side=SIDES[at],
                model=name,
                text=side.text,
                seed=seeds[at],
                sampling=sampling_of(contender.model, self.config.limits),
                made_with=dict(contender.made_with),
                names_maker=names_maker(side.text, contender.model),
                reason=side.problem,
                **vars(record),
            )
            made.append(row)
        return made

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)


def error_for_people(error: CamelidError) -> CamelidError:
    """What a visitor is told: nothing of the database, which its operators find in the log."""
    if isinstance(error, ResourceError):
        log.warning("arena: %s", error)
        return ResourceError("The arena cannot reach its database. Send it again in a moment; a vote counts once.")
    return error

"""What the arena's pages ask of the server, as JSON below /arena/api, and answers as they are written.

A person is a random signed cookie, `camelid_arena`, which POST /battles sets where it is missing. Nobody reaches
another person's battle: it is 404 for them. Errors have OpenAI's shape, as everywhere: `{"error": {"message", …}}`.

    POST   /battles             {"mode": "battle"} or {"mode": "side-by-side", "models": [NAME, NAME]}  →  {"id"}
    GET    /battles/ID          {"id", "mode", "turns": [{"question", "a": {"html", "text", "state"}, "b": {…}}],
                                "ticket", "vote", "models"}; states: complete, answering, failed
    POST   /battles/ID/messages {"text"}  →  events; the pair is drawn at the first one
    POST   /battles/ID/regenerate         →  events; both answers of the newest turn anew
    POST   /battles/ID/share              →  {"address"}
    POST   /votes               {"ticket", "vote": VOTE}  →  {"models": {"a": MODEL, "b": MODEL}}
                                VOTE = "A" or "B" or "TIE" or "BOTH_BAD"
    GET    /models              [MODEL]; MODEL = {"name", "organisation", "licence", "cutoff", "link", "description"}
    DELETE /me                  {"deleted": N}: the person's conversations and their link to votes are gone

Events are server-sent, each `data: {…}`; `delta` has `blocks` of HTML, as `pages/rendering.py` makes them:

    {"type": "start"}                                            the question is taken
    {"type": "delta", "side": "a", "blocks": [[PLACE, HTML], …]} for both sides in each tick, in this order: a, b
    {"type": "end", "side": "a", "blocks": […]}                  both sides end in the same tick
    {"type": "ready", "ticket": TICKET}                          now a vote is taken, once
    {"type": "failed", "message": SENTENCE}                      one of them did not answer; the sentence is neutral

`models` and `vote` of a battle are null before the vote, except side by side, where the person has chosen the models.
A vote that may have been lost on its way (503, or no answer) is sent again with the same ticket: it counts once. Other
answers to a vote: 400, the ticket is none of ours, or another session's; 409, the answers have not ended, the
conversation went on, the battle failed, or another vote was given before. 429: a limit; Retry-After
says in how many seconds.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from camelid.arena.battles import BOTH_BAD, TIE, A, B
from camelid.arena.live.identity import address_of, hashed, person_of, welcome
from camelid.arena.live.limits import Limited
from camelid.arena.live.log import Log
from camelid.arena.live.rounds import SIDES, Rounds, error_for_people
from camelid.arena.live.store import GONE, Refused, Store, Whole
from camelid.arena.live.tickets import Signer
from camelid.arena.pages.rendering import Rendering
from camelid.arena.pages.routes import Shared
from camelid.errors import CamelidError, NotFoundError
from camelid.serve.addresses import link
from camelid.serve.errors import ApiError
from camelid.serve.event_stream import EventStream, event
from camelid.serve.pages.chat_api import same_origin
from camelid.serve.pages.markdown import to_html

VOTES = {"A": A, "B": B, "TIE": TIE, "BOTH_BAD": BOTH_BAD}
NAMES = {number: name for name, number in VOTES.items()}
ID = r"[0-9a-f]{32}"


class ArenaBody(BaseModel):
    """Base of what is sent: nothing unknown is taken."""

    model_config = ConfigDict(extra="forbid")


class NewBattle(ArenaBody):
    """What begins."""

    mode: Literal["battle", "side-by-side"] = "battle"
    models: list[str] | None = Field(None, min_length=2, max_length=2, description="Side by side: the two.")


class Question(ArenaBody):
    """What both models are asked."""

    text: str = Field(max_length=1_000_000)


class VoteBody(ArenaBody):
    """A vote."""

    ticket: str = Field(max_length=200)
    vote: Literal["A", "B", "TIE", "BOTH_BAD"]


@dataclass
class ArenaApi:
    """Handlers, and what they work with.

    Attributes:
        signer: known when the database is open.
        voted: called after each vote that was kept, as by a board that follows.
    """

    rounds: Rounds
    store: Store
    log: Log | None = None
    signer: Signer | None = None
    voted: Callable[[], None] = lambda: None

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/arena/api", tags=["arena"], dependencies=[Depends(same_origin)])
        handlers: tuple[tuple[str, str, Callable[..., Any], int], ...] = (
            ("POST", "/battles", self.begin, 201),
            ("GET", "/battles/{id}", self.read, 200),
            ("POST", "/battles/{id}/messages", self.ask, 200),
            ("POST", "/battles/{id}/regenerate", self.again, 200),
            ("POST", "/battles/{id}/share", self.share, 200),
            ("POST", "/votes", self.vote, 200),
            ("GET", "/models", self.models, 200),
            ("DELETE", "/me", self.forget, 200),
        )
        for method, path, handler, status in handlers:
            router.add_api_route(path, handler, methods=[method], status_code=status, response_model=None)
        return router

    async def begin(self, request: Request, response: Response, body: NewBattle) -> dict[str, str]:
        """Begin a battle."""
        models = None
        if body.mode == "side-by-side":
            known = self.rounds.contenders
            if body.models is None or any(name not in known for name in body.models):
                raise ApiError(400, "models: name two models of this arena", param="models")
            models = (body.models[0], body.models[1])
        elif body.models is not None:
            raise ApiError(400, "models: a battle draws its models; leave them out", param="models")
        person = welcome(request, response, self._signer())
        with _for_people():
            key = await self.store.address_key()
            address = hashed(address_of(request, self.rounds.config.proxies), key)
            return {"id": await self.store.begin(body.mode, person, address, models)}

    async def ask(self, request: Request, id: str, body: Question) -> EventStream:
        """Ask both models; their answers come as events."""
        return await self._turn(request, id, body.text)

    async def again(self, request: Request, id: str) -> EventStream:
        """Have both answer the newest question anew."""
        return await self._turn(request, id, None)

    async def _turn(self, request: Request, id: str, question: str | None) -> EventStream:
        person = self._person(request)
        with _for_people():
            mode = (await self.store.read(id, person)).battle.mode
            begun = await self.rounds.begin_turn(id, mode, person, question)
        return EventStream(_shown(self.rounds.events(begun, mode, person, self._signer())))

    async def read(self, request: Request, id: str) -> dict[str, Any]:
        """A battle, for whoever has begun it."""
        person = self._person(request)
        with _for_people():
            whole = await self.store.read(id, person)
        ticket = whole.ticket
        return {
            "id": id,
            "mode": whole.battle.mode,
            "turns": [_turn_view(whole, place) for place in range(len(whole.turns))],
            "ticket": self._signer().ticket(ticket, person) if ticket is not None else None,
            "vote": NAMES[whole.vote.winner] if whole.vote is not None else None,
            "models": self._models(whole) if _may_know(whole) else None,
        }

    async def share(self, request: Request, id: str) -> dict[str, str]:
        """Let others see it, by a link."""
        person = self._person(request)
        with _for_people():
            await self.store.share(id, person)
        return {"address": link(f"/arena/share/{id}")}

    async def vote(self, request: Request, body: VoteBody) -> dict[str, Any]:
        """Vote, once; then the models have names."""
        person = self._person(request)
        ticket = self._signer().read_ticket(body.ticket, person)
        if ticket is None:
            raise ApiError(400, "ticket: is not of this arena, or another session's", "bad_ticket", "ticket")
        with _for_people():
            await self.store.vote(ticket, person, VOTES[body.vote])
            whole = await self.store.read(ticket.battle, person)
        self.voted()
        if self.log is not None:
            self.log.vote(whole)
        return {"models": self._models(whole)}

    async def models(self) -> list[dict[str, str]]:
        """All that can be met."""
        return [model.public() for model in self.rounds.config.models]

    async def forget(self, request: Request) -> dict[str, int]:
        """Delete the person's conversations."""
        with _for_people():
            return {"deleted": await self.store.forget(self._person(request))}

    async def shared(self, id: str) -> Shared | None:
        """For the page of a shared conversation."""
        try:
            with _for_people():
                whole = await self.store.read(id)
        except NotFoundError:
            return None
        if not whole.battle.shared:
            return None
        turns = [
            (turn.question or "", (answers["a"].text or "", answers["b"].text or ""))
            for turn, answers in whole.turns
            if turn.state == "complete"
        ]
        names = (whole.battle.model_a or "", whole.battle.model_b or "")
        vote = NAMES[whole.vote.winner] if whole.vote is not None else None
        return Shared(turns, names if _may_know(whole) else None, vote)

    def _signer(self) -> Signer:
        assert self.signer is not None, "the application has not begun"
        return self.signer

    def _person(self, request: Request) -> str:
        person = person_of(request, self._signer())
        if person is None:
            raise NotFoundError(GONE, param="battle")
        return person

    def _models(self, whole: Whole) -> dict[str, dict[str, str]]:
        known = self.rounds.config.by_name()
        names = (whole.battle.model_a or "", whole.battle.model_b or "")
        return {
            side: known[name].public() if name in known else {"name": name}
            for side, name in zip(SIDES, names, strict=True)
        }


class _for_people:  # noqa: N801 - a context, as `suppress`
    """Errors as visitors are told them."""

    def __enter__(self) -> None:
        """Nothing yet."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Limited):
            raise ApiError(429, str(error), "limit", headers={"Retry-After": str(error.seconds)}) from None
        if isinstance(error, Refused):
            raise ApiError(409, str(error), "refused") from None
        if isinstance(error, CamelidError) and (told := error_for_people(error)) is not error:
            raise told from None


def _may_know(whole: Whole) -> bool:
    """Whether the person may be told the names."""
    return whole.vote is not None or whole.battle.mode == "side-by-side"


def _turn_view(whole: Whole, place: int) -> dict[str, Any]:
    turn, answers = whole.turns[place]
    view: dict[str, Any] = {"question": turn.question or ""}
    for side in SIDES:
        whole_text = (answers[side].text or "") if turn.state == "complete" else ""
        view[side] = {"html": to_html(whole_text), "text": whole_text, "state": turn.state}
    return view


async def _shown(events: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[bytes, None]:
    rendering = Rendering()
    async with aclosing(events) as running:
        async for each in running:
            yield event(rendering.of(each))

"""The arena's API with answers that are known beforehand, for tests of its pages alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response

from camelid.arena.pages.rendering import Rendering
from camelid.arena.pages.routes import Shared
from camelid.serve.errors import ApiError
from camelid.serve.event_stream import EventStream, event
from camelid.serve.pages.markdown import to_html


@dataclass(frozen=True)
class Known:
    name: str
    organisation: str = ""
    licence: str = ""
    link: str = ""
    description: str = ""


MODELS = (
    Known("vicuna-of-the-andes", "Andes Lab", "Apache-2.0", "https://example.org/vicuna", "Small, woolly and quick."),
    Known("guanaco-2", "Pampas & Co", "CC-BY-4.0", "", "Likes lists."),
    Known("third-wheel"),
)
ANSWERS = {
    "a": "Llamas live in the **Andes**.\n\n- Peru\n- Bolivia\n\n```python\nprint('llama')\n```\n",
    "b": "They live high up. <script>alert(1)</script>\n\n1. One\n2. Two\n",
}


@dataclass
class Battle:
    id: str
    mode: str
    models: tuple[Known, Known]
    turns: list[dict[str, Any]] = field(default_factory=list)
    vote: str | None = None


class FakeArena:
    """What the tests can turn: how slowly words come, and what goes wrong next."""

    def __init__(self) -> None:
        self.battles: dict[str, Battle] = {}
        self.votes: list[tuple[str, str]] = []
        self.shared: set[str] = set()
        self.pause = 0.0
        self.fails = 0  # answers that fail
        self.drops = 0  # votes that are taken, but whose answer is lost
        self.bodies: list[Any] = []
        self.router = APIRouter(prefix="/arena/api")
        for method, path, handler in (
            ("POST", "/battles", self.begin),
            ("POST", "/battles/{id}/messages", self.ask),
            ("POST", "/battles/{id}/regenerate", self.again),
            ("POST", "/battles/{id}/share", self.share),
            ("GET", "/battles/{id}", self.read),
            ("POST", "/votes", self.cast),
            ("DELETE", "/me", self.forget),
        ):
            self.router.add_api_route(path, handler, methods=[method], response_model=None)

    async def begin(self, request: Request) -> dict[str, str]:
        body = await request.json()
        self.bodies.append(body)
        known = {model.name: model for model in MODELS}
        chosen = [known[name] for name in body.get("models", ("vicuna-of-the-andes", "guanaco-2"))]
        battle = Battle(f"{len(self.battles):032x}", body["mode"], (chosen[0], chosen[1]))
        self.battles[battle.id] = battle
        return {"id": battle.id}

    async def ask(self, request: Request, id: str) -> Response:
        text = (await request.json())["text"]
        if "too much" in text:
            raise ApiError(429, "Too many questions for now; try again in a minute.", "limit")
        cut = {"html": "<p>Llamas</p>", "state": "stopped"}
        self.battles[id].turns.append({"question": text, "a": cut, "b": cut})
        return EventStream(self._answers(self.battles[id]))

    async def again(self, id: str) -> Response:
        return EventStream(self._answers(self.battles[id]))

    async def _answers(self, battle: Battle) -> AsyncGenerator[bytes]:
        rendering = Rendering()
        pieces = {side: text.split(" ") for side, text in ANSWERS.items()}
        for at in range(max(map(len, pieces.values()))):
            for side in ANSWERS:
                if at < len(pieces[side]):
                    text = (" " if at else "") + pieces[side][at]
                    yield event(rendering.of({"type": "delta", "side": side, "text": text}))
            await asyncio.sleep(self.pause)
            if self.fails and at == 3:
                self.fails -= 1
                yield event({"type": "failed", "message": "An answer could not be written."})
                return
        for side in ANSWERS:
            yield event(rendering.of({"type": "end", "side": side}))
            battle.turns[-1][side] = {"html": to_html(ANSWERS[side]), "state": "complete"}
        yield event({"type": "ready", "ticket": f"ticket-{battle.id}-{len(battle.turns)}"})

    async def read(self, id: str) -> dict[str, Any]:
        if id not in self.battles:
            raise ApiError(404, "There is no such battle.", "not_found")
        battle = self.battles[id]
        whole = {"id": id, "turns": battle.turns, "ticket": None, "vote": battle.vote, "models": None}
        if battle.vote:
            return whole | {"models": self._named(battle)}
        if any(turn[side]["state"] != "complete" for turn in battle.turns[-1:] for side in "ab"):
            return whole
        return whole | {"ticket": f"ticket-{id}-{len(battle.turns)}"}

    async def cast(self, request: Request) -> Response:
        body = await request.json()
        battle = self.battles[body["ticket"].split("-")[1]]
        if battle.vote is None:
            battle.vote = body["vote"]
            self.votes.append((battle.id, body["vote"]))
        if self.drops:
            self.drops -= 1
            return Response(status_code=503)
        return Response(json.dumps({"models": self._named(battle)}), media_type="application/json")

    async def share(self, id: str) -> dict[str, str]:
        self.shared.add(id)
        return {"address": f"/arena/share/{id}"}

    async def find(self, id: str) -> Shared | None:
        if id not in self.shared:
            return None
        battle = self.battles[id]
        turns = [(turn["question"], (ANSWERS["a"], ANSWERS["b"])) for turn in battle.turns]
        names = (battle.models[0].name, battle.models[1].name)
        return Shared(turns, names if battle.vote else None, battle.vote)

    async def forget(self) -> dict[str, int]:
        n = len(self.battles)
        self.battles.clear()
        return {"deleted": n}

    def _named(self, battle: Battle) -> dict[str, Any]:
        return {side: vars(model) for side, model in zip("ab", battle.models, strict=True)}

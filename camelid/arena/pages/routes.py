"""The arena's pages. What lives on them asks the API of `camelid.arena.live`."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from camelid.arena.pages.direct import direct_chat
from camelid.serve.addresses import link
from camelid.serve.pages.markdown import to_html
from camelid.serve.pages.shell import render, take_in

NAME = "arena"
NOTICE = (
    "What you write is sent to two models, perhaps on other machines, and is kept with their answers and your vote.",
    "Conversations and votes may be published for research: write nothing private, and no names of people.",
    "Answers may be wrong, biased or offensive. Do not rely on them, and do nothing unlawful with them.",
)
EXAMPLES = (
    "Explain in three sentences why the sky is blue.",
    "Write a Python function that reverses the words of a sentence.",
    "Plan a weekend in a city you like, hour by hour.",
    "Write a short poem about a llama who is afraid of heights.",
)
KEYS = (
    ("1", "A is better"),
    ("2", "B is better"),
    ("3", "Tie"),
    ("4", "Both are bad"),
    ("R", "Answer again"),
    ("N", "New round"),
    ("S", "Share"),
    ("/", "Write a question"),
    ("Enter", "Send"),
    ("Shift+Enter", "New line"),
    ("Escape", "Stop both answers, or leave the question"),
    ("?", "This list"),
)
VERDICTS: dict[str | None, tuple[str, str]] = {
    None: ("", "Two models were asked the same. Nobody has voted yet, so they have no names."),
    "A": ("a", "Two models were asked the same. Whoever asked found A better."),
    "B": ("b", "Two models were asked the same. Whoever asked found B better."),
    "TIE": ("", "Two models were asked the same. Whoever asked found both as good."),
    "BOTH_BAD": ("", "Two models were asked the same. Whoever asked found both bad."),
}
"""Vote → the side that won, and words for it."""
LONGEST = {"battle": 30_000, "side-by-side": 12_000}  # characters of a question
"""As FastChat has them."""


class Model(Protocol):
    """What pages say of a model; texts may be empty."""

    @property
    def name(self) -> str: ...

    @property
    def organisation(self) -> str: ...

    @property
    def licence(self) -> str: ...

    @property
    def link(self) -> str: ...

    @property
    def description(self) -> str: ...


@dataclass(frozen=True)
class Shared:
    """A conversation that its owner has shared.

    Attributes:
        turns: questions, each with the answers of both sides.
        models: names of both sides; None while nobody has voted.
        vote: one of `VERDICTS`; None: none yet.
    """

    turns: Sequence[tuple[str, tuple[str, str]]]
    models: tuple[str, str] | None = None
    vote: str | None = None


Find = Callable[[str], Awaitable[Shared | None]]
"""The conversation of an id; None if there is none, or it is not shared."""


def arena_pages(
    models: Sequence[Model], find: Find, notice: Sequence[str] = NOTICE, longest: Mapping[str, int] = LONGEST
) -> APIRouter:
    """The pages, for `create_app(routers=…, hidden=HIDDEN)`; see `direct.py`.

    Args:
        models: that can be met, in the order of lists.
        find: finds what was shared.
        notice: what everybody has to read on entry, a sentence or two each.
        longest: characters of a question, by mode.
    """
    take_in(NAME, Path(__file__).parent)
    pages, router = Pages(models, find, notice, longest), APIRouter(include_in_schema=False)
    handlers: dict[str, Callable[..., Awaitable[HTMLResponse]]] = {
        "/battle": pages.battle,
        "/side-by-side": pages.side_by_side,
        "/arena/share/{id}": pages.shared,
        "/about": pages.about,
    }
    for path, handler in handlers.items():
        router.add_api_route(path, handler, methods=["GET"])
    for path in ("/", "/arena"):
        router.add_api_route(path, home, methods=["GET"])
    router.include_router(direct_chat())
    return router


async def home() -> RedirectResponse:
    """The first page."""
    return RedirectResponse(link("/battle"))


class Pages:
    """Handlers of what anybody may see."""

    def __init__(self, models: Sequence[Model], find: Find, notice: Sequence[str], longest: Mapping[str, int]) -> None:
        self.models, self.find, self.notice, self.longest = models, find, notice, longest

    async def battle(self, request: Request) -> HTMLResponse:
        """Two models without names."""
        return self._arena(request, "battle", "Arena (battle)", ("", ""))

    async def side_by_side(self, request: Request, a: str = "", b: str = "") -> HTMLResponse:
        """Two models that are chosen; the address may name them."""
        names = [model.name for model in self.models]
        first = a if a in names else names[0]
        second = b if b in names else next((name for name in names if name != first), first)
        return self._arena(request, "side-by-side", "Arena (side-by-side)", (first, second))

    def _arena(self, request: Request, mode: str, title: str, chosen: tuple[str, str]) -> HTMLResponse:
        values: dict[str, Any] = {"mode": mode, "title": title, "chosen": chosen, "longest": self.longest[mode]}
        values |= {"models": self.models, "examples": EXAMPLES, "keys": KEYS, "notice": self.notice}
        version = hashlib.sha256("\n".join(self.notice).encode()).hexdigest()[:10]
        return render(request, "arena/battle.html", notice_version=version, **values)

    async def shared(self, request: Request, id: str) -> HTMLResponse:
        """A conversation that was shared; complete without JavaScript."""
        found = await self.find(id)
        if found is None:
            return render(request, "arena/missing.html", status=404)
        turns = [
            {"question": question, **dict(zip("ab", map(to_html, answers), strict=True))}
            for question, answers in found.turns
        ]
        names = found.models and dict(zip("ab", found.models, strict=True))
        won, verdict = VERDICTS[found.vote]
        return render(request, "arena/shared.html", turns=turns, names=names, won=won, verdict=verdict)

    async def about(self, request: Request) -> HTMLResponse:
        """How the arena works, and which models can be met."""
        return render(request, "arena/about.html", models=self.models, notice=self.notice)

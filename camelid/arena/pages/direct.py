"""Direct Chat in an arena, where many people share one server: nobody is shown other people's conversations.

A conversation's address is 128 random bits, and whoever has it can read on there; lists, which serve has for the one
person at their own machine, are empty.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from camelid.errors import NotFoundError
from camelid.serve.dependencies import ModelsDep, StoreDep
from camelid.serve.pages.routes import chat_page
from camelid.serve.pages.shell import render

HIDDEN = ("/models", "/api/models", "/flow", "/api/flow", "/runs")
"""Pages of serve that an arena has not: which model works, and how fast, would tell who answers in a battle."""

KEPT = "Kept on the server. Whoever has a conversation's address can read it."


def direct_chat() -> APIRouter:
    """The routes that stand in place of serve's own."""
    router = APIRouter(include_in_schema=False)
    router.add_api_route("/chat", _chat, methods=["GET"])
    router.add_api_route("/chat/{id}", _chat, methods=["GET"])
    router.add_api_route("/api/conversations", _none, methods=["GET"])
    return router


async def _chat(
    request: Request, models: ModelsDep, store: StoreDep, id: str | None = None, model: str | None = None
) -> HTMLResponse:
    if not list(models):
        return render(request, "arena/no_chat.html")
    try:
        tree = await store.tree(id) if id is not None else None
    except NotFoundError:
        return render(request, "missing.html", status=404)
    listed = [tree.conversation] if tree is not None else []
    return await asyncio.to_thread(chat_page, request, models, tree, listed, model, KEPT)


async def _none() -> list[Any]:
    return []

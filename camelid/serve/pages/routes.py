"""The pages themselves, and the files they load."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from camelid.chat.inspect import describe
from camelid.errors import NotFoundError
from camelid.serve.addresses import link
from camelid.serve.dependencies import ModelsDep, StoreDep
from camelid.serve.models import Models
from camelid.serve.pages import panel, views
from camelid.serve.pages.shell import MEDIA_TYPES, asset, render, static_files, static_version
from camelid.serve.storage.conversations import Tree
from camelid.serve.storage.tables import Conversation

EXAMPLES = (
    "Explain in three sentences why the sky is blue.",
    "Write a Python function that reverses the words of a sentence.",
    "Give three tips for writing clear code, as a list.",
    "Write a short haiku about a llama.",
)
KEYS = (
    ("Enter", "Send"),
    ("Shift+Enter", "New line"),
    ("Escape", "Stop the answer"),
    ("/", "Write a message"),
    ("Alt+N", "New conversation"),
    ("?", "This list"),
)
LISTED = 50  # conversations at first; older ones are loaded when somebody wants them
FOR_EVER = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@router.get("/")
async def home() -> RedirectResponse:
    """The first page."""
    return RedirectResponse(link("/chat"))


@router.get("/chat")
@router.get("/chat/{id}")
async def chat(
    request: Request,
    models: ModelsDep,
    store: StoreDep,
    id: str | None = None,
    model: str | None = None,
    before: str | None = None,
) -> HTMLResponse:
    """Direct Chat: a conversation, or the place to begin one with the model that the address names."""
    try:
        tree = await store.tree(id) if id is not None else None
        listed = await store.conversations(before, LISTED + 1)
    except NotFoundError:
        return render(request, "missing.html", status=404)
    kept = "Kept on this machine only." if store.database.file is not None else "Kept in a database."
    return await asyncio.to_thread(chat_page, request, models, tree, listed, model, kept)


def chat_page(
    request: Request, models: Models, tree: Tree | None, listed: list[Conversation], model: str | None, kept: str
) -> HTMLResponse:
    """Direct Chat with these conversations listed; a thread's work, since the HTML of long ones takes seconds.

    Args:
        request: that it answers.
        models: to choose from, at least one.
        tree: the conversation that is shown; None: a new one.
        listed: conversations beside it.
        model: that a new conversation is with; None: the first.
        kept: where conversations are, in words.
    """
    return render(request, "chat.html", kept=kept, **_chat(models, tree, listed, model))


def _chat(models: Models, tree: Tree | None, listed: list[Conversation], model: str | None) -> dict[str, Any]:
    """What chat.html names."""
    conversations, more = listed[:LISTED], len(listed) > LISTED
    chosen = tree.conversation if tree is not None else None
    names = [worker.name for worker in models]
    name = chosen.model if chosen else model if model in names else names[0]
    return {
        "conversations": [views.summary(conversation) for conversation in conversations],
        "current": chosen.id if chosen else "",
        "title": views.summary(chosen)["title"] if chosen else views.UNTITLED,
        "messages": views.shown(tree) if tree is not None else [],
        "older": conversations[-1].id if more else "",
        "models": names,
        "model": name,
        "system": chosen.system if chosen else "",
        "params": chosen.params if chosen else {},
        "fields": panel.fields(models.get(name if name in names else None).llama),
        "examples": EXAMPLES,
        "keys": KEYS,
    }


@router.get("/about")
def about(request: Request, models: ModelsDep) -> HTMLResponse:
    """What camelid is, under which licence, and which models are loaded."""
    described = [(worker.name, describe(worker.llama.weights, False)) for worker in models]
    return render(request, "about.html", models=described)


@router.get("/static/{version}/{name:path}")
async def static(version: str, name: str) -> Response:
    """A file that pages load. An address of another version gets today's file, which must then not be kept."""
    content = static_files().get(name)
    if content is None:
        return Response(status_code=404)
    keep = FOR_EVER if version == static_version() else "no-cache"
    return Response(content, media_type=MEDIA_TYPES[Path(name).suffix], headers={"Cache-Control": keep})


@router.get("/favicon.ico")
async def favicon() -> RedirectResponse:
    """For browsers that ask without reading the page."""
    return RedirectResponse(asset("favicon.svg"))

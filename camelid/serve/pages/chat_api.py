"""What Direct Chat asks of the server, as JSON: conversations that are kept, and answers as they are written.

Answers are streams of events, each a JSON object with a `type`: `start` with the messages that were made, `blocks` of
HTML with the note below them, `warning` when something could not be kept, and `done` with the whole answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from camelid.chat.answer import TextRequest
from camelid.errors import ResourceError
from camelid.serve.dependencies import ModelsDep, StoreDep
from camelid.serve.errors import ApiError
from camelid.serve.event_stream import EventStream, event
from camelid.serve.models import Models
from camelid.serve.pages import panel, views
from camelid.serve.pages.answering import Answering, Answers
from camelid.serve.pages.dependencies import AnswersDep
from camelid.serve.storage.conversations import Store, Tree
from camelid.serve.storage.tables import Role, StoredMessage
from camelid.serve.worker import Worker
from camelid.tokens.templates.message import Message

MOST_CHARACTERS = 1_000_000  # of a message; far above any context
LISTED, MOST_LISTED = 100, 1000  # conversations in one answer


def same_origin(request: Request) -> None:
    """Refuse what another site's page asks for: conversations are nobody else's.

    Raises:
        ApiError: 403.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise ApiError(403, "this is for the server's own pages", "wrong_origin")


router = APIRouter(prefix="/api", tags=["pages"], dependencies=[Depends(same_origin)])


class PageBody(BaseModel):
    """Base of what is sent: nothing unknown is taken."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Settings(PageBody):
    """What an answer is made with. What is left out stays as it is."""

    title: str | None = Field(None, max_length=200, description="Empty: the first question is the title.")
    model: str | None = Field(None, description="Name of a loaded model; the first if left out.")
    system: str | None = Field(None, max_length=MOST_CHARACTERS, description="System prompt; empty: none.")
    params: dict[str, Any] | None = Field(
        None, description="Fields of SamplingParams that differ from the model's own."
    )


class Question(PageBody):
    """What is said next."""

    content: str = Field(min_length=1, max_length=MOST_CHARACTERS, pattern=r"\S")


@dataclass
class Deps:
    """What the handlers work with."""

    store: Store
    models: Models
    answers: Answers


async def deps(store: StoreDep, models: ModelsDep, answers: AnswersDep) -> Deps:
    """From the application."""
    return Deps(store, models, answers)


With = Annotated[Deps, Depends(deps)]


@router.get("/panel")
async def sampling_panel(it: With, model: str | None = None) -> list[panel.Field]:
    """What can be chosen for a model's answers."""
    return panel.fields(it.models.get(model).llama)


@router.get("/conversations")
async def conversations(
    it: With, before: str | None = None, limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = LISTED
) -> list[dict[str, Any]]:
    """Conversations, the latest first: the first ones, or those that follow the one with the id `before`."""
    return [views.summary(conversation) for conversation in await it.store.conversations(before, limit)]


@router.post("/conversations", status_code=201)
async def create(it: With, settings: Settings) -> dict[str, Any]:
    """Begin a conversation."""
    chosen = _checked(it, settings)
    chosen.setdefault("model", it.models.get(None).name)
    made = await it.store.create(**chosen)
    return views.whole(Tree(made, []))


@router.get("/conversations/{id}")
async def read(it: With, id: str) -> dict[str, Any]:
    """A conversation with all its messages and branches."""
    return await _whole(it, id)


@router.patch("/conversations/{id}")
async def change(it: With, id: str, settings: Settings) -> dict[str, Any]:
    """Rename a conversation, or choose what its next answers are made with."""
    await it.store.change(id, **_checked(it, settings))
    return await _whole(it, id)


@router.delete("/conversations/{id}", status_code=204)
async def delete(it: With, id: str) -> None:
    """Delete a conversation; an answer that is being written to it stops."""
    await it.answers.stop(conversation=id)
    await it.store.delete(id)


@router.get("/conversations/{id}/export", responses={200: {"content": {"text/markdown": {}}}})
async def export(it: With, id: str, format: Annotated[Literal["markdown", "json"], Query()] = "markdown") -> Response:
    """A conversation as a file: Markdown has the branch that is shown, JSON has everything."""
    tree = await it.store.tree(id)
    text, kind = (views.as_json(tree), "json") if format == "json" else (views.as_markdown(tree), "md")
    name = f"{views.file_name(tree.conversation)}.{kind}"
    media = "application/json" if format == "json" else "text/markdown; charset=utf-8"
    return Response(text, media_type=media, headers={"Content-Disposition": f'attachment; filename="{name}"'})


@router.post("/conversations/{id}/messages", response_class=EventStream)
async def send(it: With, id: str, question: Question) -> EventStream:
    """Say something at the end of the branch that is shown, and have it answered."""
    tree = await it.store.tree(id)
    return await _ask(it, tree, tree.conversation.leaf, question.content)


@router.post("/conversations/{id}/messages/{message}/edit", response_class=EventStream)
async def edit(it: With, id: str, message: int, question: Question) -> EventStream:
    """Say something else at the place of a question, and have it answered; what was there stays as a branch."""
    tree = await it.store.tree(id)
    return await _ask(it, tree, _get(tree, message, "user").parent, question.content)


@router.post("/conversations/{id}/messages/{message}/regenerate", response_class=EventStream)
async def regenerate(it: With, id: str, message: int) -> EventStream:
    """Have a question answered once more; the answer before stays as a branch."""
    tree = await it.store.tree(id)
    return await _ask(it, tree, _get(tree, message, "assistant").parent, None)


@router.post("/conversations/{id}/messages/{message}/choose")
async def choose(it: With, id: str, message: int) -> dict[str, Any]:
    """Show the branch that goes through a message."""
    tree = await it.store.tree(id)
    await it.store.change(id, leaf=tree.newest_leaf(_get(tree, message).id))
    return await _whole(it, id)


@router.post("/conversations/{id}/messages/{message}/follow", response_class=EventStream)
async def follow(it: With, id: str, message: int) -> EventStream:
    """Show an answer that was asked for before, from its beginning, and go on with it."""
    tree = await it.store.tree(id)
    saved = _get(tree, message, "assistant")
    answering = it.answers.get(id, message)
    return EventStream(
        _events(answering, tree, [answering.message]) if answering is not None else _finished(tree, saved)
    )


@router.post("/conversations/{id}/messages/{message}/stop", status_code=204)
async def stop(it: With, id: str, message: int) -> None:
    """End an answer where it is; its stream ends with `done`."""
    await it.answers.stop(id, message)


async def _whole(it: Deps, id: str) -> dict[str, Any]:
    """A conversation as JSON; a thread's work, since the HTML of long ones takes seconds."""
    return await anyio.to_thread.run_sync(views.whole, await it.store.tree(id))


async def _ask(it: Deps, tree: Tree, parent: int | None, content: str | None) -> EventStream:
    """Answer the branch that ends with `parent`, and with a new question if there is one."""
    conversation = tree.conversation
    worker = it.models.get(conversation.model)
    path = [(message.role, message.content) for message in tree.path(parent)]
    turns = [("system", conversation.system)] if conversation.system else []
    turns += [*path, *([("user", content)] if content is not None else [])]
    request = await anyio.to_thread.run_sync(_request, worker, turns, conversation.params)
    if not conversation.title and content is not None:
        conversation.title = views.title_of(content)
    question, answer, warning = await _add(it.store, tree, parent, content)
    answering = it.answers.start(worker, request, answer, it.store if warning is None else None)
    answering.warning = warning
    made = [message for message in (question, answer) if message is not None]
    saved = [message for message in made if message.id is not None]
    return EventStream(_events(answering, Tree(conversation, [*tree.messages, *saved]), made))


def _request(worker: Worker, turns: list[tuple[str, str]], params: dict[str, Any]) -> TextRequest:
    return worker.llama.chat_request([Message(role, content) for role, content in turns], **params)


async def _add(
    store: Store, tree: Tree, parent: int | None, content: str | None
) -> tuple[StoredMessage | None, StoredMessage, str | None]:
    """Rows for a question and its answer; if they cannot be kept, rows of no table, and why."""
    id, model, question = tree.conversation.id, tree.conversation.model, None
    try:
        if content is not None:
            question = await store.add(id, parent, "user", content)
            parent = question.id
        await store.change(id, title=tree.conversation.title)
        return question, await store.add(id, parent, "assistant", "", model=model, state="streaming"), None
    except ResourceError as error:
        question = StoredMessage(conversation=id, role="user", content=content) if content is not None else None
        answer = StoredMessage(conversation=id, role="assistant", content="", model=model, state="streaming")
        return question, answer, str(error)


async def _events(answering: Answering, tree: Tree, made: list[StoredMessage]) -> AsyncGenerator[bytes, None]:
    head = views.summary(tree.conversation)
    yield event({"type": "start", "conversation": head, "messages": [_view(tree, message) for message in made]})
    warned = False
    async for blocks in answering.blocks():
        rows = [[block.index, block.html] for block in blocks]
        yield event({"type": "blocks", "blocks": rows, "note": views.note(answering.message)})
        if answering.warning is not None and not warned:
            warned = True
            yield event({"type": "warning", "message": answering.warning})
    yield event({"type": "done", "message": _view(tree, answering.message)})


async def _finished(tree: Tree, message: StoredMessage) -> AsyncGenerator[bytes, None]:
    """An answer that nobody writes any more."""
    view = _view(tree, message)
    yield event({"type": "start", "conversation": views.summary(tree.conversation), "messages": [view]})
    yield event({"type": "done", "message": view})


def _view(tree: Tree, message: StoredMessage) -> dict[str, Any]:
    return views.view(message, tree.versions(message) if message.id is not None else [])


def _get(tree: Tree, message: int, role: Role | None = None) -> StoredMessage:
    row = tree.by_id.get(message)
    if row is None or role not in (None, row.role):
        kind = {"user": "a question", "assistant": "an answer", None: "a message"}[role]
        raise ApiError(404, f"message: {message} is not {kind} of this conversation", "not_found", "message")
    return row


def _checked(it: Deps, settings: Settings) -> dict[str, Any]:
    """Columns to set.

    Raises:
        ApiError: there is no such model.
        OptionError: a sampling choice is wrong.
    """
    values = {name: value for name, value in settings.model_dump().items() if value is not None}
    if settings.model is not None:
        it.models.get(settings.model)
    if settings.params is not None:
        values["params"] = panel.check(settings.params)
    return values

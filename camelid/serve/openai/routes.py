"""Routes of OpenAI's API."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from camelid.serve.dependencies import ModelsDep
from camelid.serve.errors import ErrorBody
from camelid.serve.openai import chat, completions, embeddings
from camelid.serve.openai.replies import ChatReply, CompletionReply, EmbeddingReply, ModelList, ModelReply
from camelid.serve.openai.requests import ChatRequest, CompletionRequest, EmbeddingRequest
from camelid.serve.worker import Worker

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "A parameter is wrong or not supported; `param` names it."},
    404: {"model": ErrorBody, "description": "No such model."},
    429: {"model": ErrorBody, "description": "Too many requests wait; try again after Retry-After seconds."},
    503: {"model": ErrorBody, "description": "The server shuts down, or has no memory for this."},
}
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream`, server-sent events whose data are chunks, `[DONE]` the last.",
        "content": {"text/event-stream": {}},
    },
    **_ERRORS,
}

router = APIRouter(prefix="/v1", tags=["OpenAI"])


@router.get("/models", responses={})
async def list_models(models: ModelsDep) -> ModelList:
    """The models that are served."""
    return ModelList(object="list", data=[_model(worker) for worker in models])


@router.get("/models/{name:path}", responses={404: _ERRORS[404]})
async def retrieve_model(name: str, models: ModelsDep) -> ModelReply:
    """One of the models."""
    return _model(models.get(name))


@router.post("/chat/completions", response_model=ChatReply, responses=_STREAMED)
async def chat_completions(body: ChatRequest, models: ModelsDep) -> Response:
    """Answer a conversation, in the model's own chat format.

    What is left out has the model's own default. A parameter that is not described here is refused, never ignored.
    """
    return await chat.answer(body, models)


@router.post("/completions", response_model=CompletionReply, responses=_STREAMED)
async def create_completions(body: CompletionRequest, models: ModelsDep) -> Response:
    """Continue texts as they are, or fill in what stands between `prompt` and `suffix`.

    Choices come prompt by prompt, n of each.
    """
    return await completions.complete(body, models)


@router.post("/embeddings", responses=_ERRORS)
async def create_embeddings(body: EmbeddingRequest, models: ModelsDep) -> EmbeddingReply:
    """Vectors of texts: the mean over all positions of the hidden states after the final norm, of length one."""
    return await embeddings.embed(body, models)


def _model(worker: Worker) -> ModelReply:
    return ModelReply(
        id=worker.name, object="model", created=worker.created, owned_by="camelid", context=worker.llama.context
    )

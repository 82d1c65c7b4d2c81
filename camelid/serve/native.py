"""Routes beside OpenAI's: health, metrics, tokens, and the page that describes them all."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field

from camelid.serve import api_page, metrics
from camelid.serve.body import Body
from camelid.serve.errors import ErrorBody
from camelid.serve.models import Models
from camelid.serve.pages.shell import render
from camelid.serve.root import link

REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The body is not JSON, or a value is wrong; `param` names it."},
    404: {"model": ErrorBody, "description": "No such model."},
}

router = APIRouter(tags=["camelid"])


class ModelBody(Body):
    """What requests have in common: the first model is meant when none is named."""

    model: str | None = Field(None, description="Name of a model; the first one if left out.")


class Health(BaseModel):
    """Whether requests are served."""

    status: Literal["ok", "shutting down"]
    models: list[str]


class TokenizeBody(ModelBody):
    """A text to be cut."""

    text: str
    bos: bool = Field(False, description="Put the start token first.")
    special: bool = Field(False, description="Read control tokens written out in the text as such.")


class Tokens(BaseModel):
    """Ids, and the piece of text that each one stands for."""

    ids: list[int]
    pieces: list[str]


class DetokenizeBody(ModelBody):
    """Ids to be joined."""

    ids: Annotated[list[int], Field(fail_fast=True)]
    special: bool = Field(False, description="Write out control tokens, which are left out otherwise.")


class Text(BaseModel):
    """The text of ids, and the piece that each one stands for."""

    text: str
    pieces: list[str]


@router.get("/health", responses={503: {"model": Health, "description": "It is shutting down, or a model has failed."}})
async def health(request: Request) -> Health:
    """Whether requests are served; asked for without a key."""
    models: Models = request.app.state.models
    alive = all(worker.is_alive for worker in models)
    report = Health(status="ok" if alive else "shutting down", models=[worker.name for worker in models])
    return report if alive else JSONResponse(report.model_dump(), 503)  # type: ignore[return-value]


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}},
)
async def show_metrics(request: Request) -> Response:
    """Tokens, requests, waiting times and the cache, for Prometheus."""
    models: Models = request.app.state.models
    return Response(metrics.render({one.name: one.stats() for one in models}), media_type=metrics.MEDIA_TYPE)


@router.post("/tokenize", responses=REFUSED)
def tokenize(body: TokenizeBody, request: Request) -> Tokens:
    """Cut a text into a model's tokens."""
    tokenizer = _models(request).get(body.model).llama.tokenizer
    ids = tokenizer.encode(body.text, bos=body.bos, special=body.special)
    return Tokens(ids=ids, pieces=[tokenizer.piece(id) for id in ids])


@router.post("/detokenize", responses=REFUSED)
def detokenize(body: DetokenizeBody, request: Request) -> Text:
    """Join ids to the text that they stand for."""
    tokenizer = _models(request).get(body.model).llama.tokenizer
    pieces = [tokenizer.piece(id) for id in body.ids]  # refuses ids outside the vocabulary
    return Text(text=tokenizer.decode(body.ids, special=body.special), pieces=pieces)


@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """All routes, for people."""
    page = api_page.describe(request.app.openapi())
    return render(request, "docs.html", page=page, base=f"{str(request.base_url).rstrip('/')}{link('/')}")


def _models(request: Request) -> Models:
    models: Models = request.app.state.models
    return models

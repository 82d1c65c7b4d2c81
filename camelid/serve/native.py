"""Routes beside OpenAI's: health, metrics, tokens, and the page that describes them all."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import generate_latest
from pydantic import BaseModel, Field

from camelid.serve.addresses import link
from camelid.serve.body import Body
from camelid.serve.dependencies import ModelsDep, RegistryDep
from camelid.serve.errors import ErrorBody
from camelid.serve.metrics import MEDIA_TYPE
from camelid.serve.pages import api_page
from camelid.serve.pages.shell import render

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
async def health(models: ModelsDep) -> Health:
    """Whether requests are served; asked for without a key."""
    alive = all(worker.is_alive for worker in models)
    report = Health(status="ok" if alive else "shutting down", models=[worker.name for worker in models])
    return report if alive else JSONResponse(report.model_dump(), 503)  # type: ignore[return-value]


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}},
)
async def show_metrics(registry: RegistryDep) -> Response:
    """Tokens, requests, waiting times and the cache, for Prometheus."""
    return Response(generate_latest(registry), media_type=MEDIA_TYPE)


@router.post("/tokenize", responses=REFUSED)
def tokenize(body: TokenizeBody, models: ModelsDep) -> Tokens:
    """Cut a text into a model's tokens."""
    tokenizer = models.get(body.model).llama.tokenizer
    ids = tokenizer.encode(body.text, bos=body.bos, special=body.special)
    return Tokens(ids=ids, pieces=[tokenizer.piece(id) for id in ids])


@router.post("/detokenize", responses=REFUSED)
def detokenize(body: DetokenizeBody, models: ModelsDep) -> Text:
    """Join ids to the text that they stand for."""
    tokenizer = models.get(body.model).llama.tokenizer
    pieces = [tokenizer.piece(id) for id in body.ids]  # refuses ids outside the vocabulary
    return Text(text=tokenizer.decode(body.ids, special=body.special), pieces=pieces)


@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """All routes, for people."""
    page = api_page.describe(request.app.openapi())
    return render(request, "docs.html", page=page, base=f"{str(request.base_url).rstrip('/')}{link('/')}")

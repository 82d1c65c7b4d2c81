"""What the Flow page asks for: the stages that lead to the next token, and the next token itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import Field

from camelid.chat.activations import Flow, Pass
from camelid.chat.sampling_trace import Chosen, Outcome
from camelid.chat.sampling_trace import outcome as outcome_of
from camelid.engine.request import SamplingParams
from camelid.errors import OptionError
from camelid.serve.errors import ErrorBody
from camelid.serve.native import REFUSED, ModelBody
from camelid.serve.pages import flow_stage
from camelid.serve.pages.flows import Flows

T = TypeVar("T")
MOST_IDS, MOST_CHARACTERS = 100_000, 100_000  # far above what a flow shows: longer ones are refused unread
_FULL: dict[int | str, dict[str, Any]] = {429: {"model": ErrorBody, "description": "Too many wait already."}}

router = APIRouter(prefix="/api/flow", tags=["flow"], responses={**REFUSED, **_FULL})
Ids = Annotated[list[int], Field(fail_fast=True), Field(min_length=1, max_length=MOST_IDS)]


class LayerBody(ModelBody):
    """All ids so far, and one layer."""

    ids: Ids
    layer: int = Field(ge=0, description="Counted from 0.")


class PositionBody(ModelBody):
    """All ids so far, and one position."""

    ids: Ids
    position: int = Field(ge=0, description="Counted from 0.")


class StageBody(ModelBody):
    """A text or ids, and how to sample after them."""

    text: str | None = Field(None, max_length=MOST_CHARACTERS, description="Becomes ids; give it or `ids`.")
    ids: Ids | None = None
    n_prompt: int | None = Field(None, ge=0, description="So many of the ids are the prompt; the others were written.")
    params: dict[str, Any] = Field({}, description="Fields of SamplingParams that differ from the model's defaults.")
    rows: int = Field(12, ge=1, le=100, description="Length of the table of next tokens.")


class StepBody(StageBody):
    """The same, and which token comes next: drawn, the likeliest, or an id picked by hand."""

    take: Literal["draw", "greedy"] | int = "draw"


@router.post("")
async def stage(ask: StageBody, request: Request) -> dict[str, Any]:
    """The stages from text to the distribution over the next token."""
    return await _run(request, ask, lambda flow: _stage(flow, ask))


@router.post("/step")
async def step(ask: StepBody, request: Request) -> dict[str, Any]:
    """Choose the next token, append it, and give the stages that follow."""

    def work(flow: Flow) -> dict[str, Any]:
        seen, result, params, n_prompt = _read(flow, ask)
        chosen = _choose(result, ask.take, params, len(seen.ids) - n_prompt)
        after = {"text": None, "ids": [*seen.ids, chosen.id], "n_prompt": n_prompt}
        return {
            "chosen": flow_stage.chosen(flow.llama, chosen),
            "stage": _stage(flow, ask.model_copy(update=after)),
        }

    return await _run(request, ask, work)


@router.post("/outcome")
async def outcome(ask: StageBody, request: Request) -> dict[str, Any]:
    """The table of next tokens alone, for other sampling parameters."""

    def work(flow: Flow) -> dict[str, Any]:
        _, result, params, _ = _read(flow, ask)
        return flow_stage.outcome(flow.llama, result, params)

    return await _run(request, ask, work)


@router.post("/lens")
async def lens(ask: PositionBody, request: Request) -> dict[str, Any]:
    """What each layer would predict after one position."""
    if ask.position >= len(ask.ids):
        raise OptionError(
            f"position: {ask.position} lies behind the {len(ask.ids)} ids, which count from 0", param="position"
        )
    return await _run(request, ask, lambda flow: flow_stage.lens(flow, flow.read(ask.ids), ask.position))


@router.post(
    "/attention",
    response_class=Response,
    responses={200: {"description": "Bytes.", "content": {"application/octet-stream": {}}}},
)
async def attention(ask: LayerBody, request: Request) -> Response:
    """A layer's attention as bytes, 255 for 1: for each head, for each position, one for each position up to it."""

    def work(flow: Flow) -> bytes:
        n_layers = flow.llama.config.n_layers
        if ask.layer >= n_layers:
            raise OptionError(
                f"layer: {ask.layer} lies outside the model's {n_layers} layers, which count from 0", param="layer"
            )
        return flow_stage.attention(flow.read(ask.ids), ask.layer)

    return Response(await _run(request, ask, work), media_type="application/octet-stream")


async def _run(request: Request, ask: ModelBody, work: Callable[[Flow], T]) -> T:
    flows: Flows = request.app.state.flows
    return await flows.run(request.app.state.models.get(ask.model).llama, work)


def _stage(flow: Flow, ask: StageBody) -> dict[str, Any]:
    seen, result, params, n_prompt = _read(flow, ask)
    return flow_stage.stage(flow, seen, n_prompt, result, params)


def _read(flow: Flow, ask: StageBody) -> tuple[Pass, Outcome, SamplingParams, int]:
    """The pass over all ids, what sampling makes of it, how it samples, and how many of the ids are the prompt."""
    prompt = ask.text if ask.ids is None else ask.ids
    if prompt is None or (ask.ids is not None and ask.text is not None):
        raise OptionError("text: give either it or ids", param="text")
    params = flow.llama.params.with_(**ask.params)
    ids = flow.llama.prompt_ids(prompt)
    n_prompt = len(ids) if ask.n_prompt is None else ask.n_prompt
    if n_prompt > len(ids):
        raise OptionError(f"n_prompt: {n_prompt} is more than the {len(ids)} ids", param="n_prompt")
    seen = flow.read(ids)
    return seen, outcome_of(seen.logits, params, ids[:n_prompt], ids[n_prompt:], ask.rows), params, n_prompt


def _choose(result: Outcome, take: str | int, params: SamplingParams, n_written: int) -> Chosen:
    if isinstance(take, int):
        if not 0 <= take < len(result.probabilities):
            raise OptionError(
                f"take: id {take} lies outside the vocabulary of {len(result.probabilities)} ids", param="take"
            )
        return result.take(take)
    if take == "greedy":
        return result.take(int(result.steps[-1].logits.argmax()))
    return result.draw(params, n_written)

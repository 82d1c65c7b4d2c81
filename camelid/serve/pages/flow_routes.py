"""The Flow page."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from camelid.engine.request import SamplingParams
from camelid.serve.dependencies import ModelsDep
from camelid.serve.pages.shell import render

TOP_K_STOPS = 14  # places of the slider; flow/outcome.js has their values

router = APIRouter(include_in_schema=False)

EXAMPLES = (
    ("The capital of France is", "The capital of France is"),
    ("Two plus three", "Two plus two is four. Two plus three is"),
    ("Mary and John", "When Mary and John went to the store, John gave a drink to"),
    ("def add", "def add(a, b):\n    return"),
)


@dataclass(frozen=True)
class Slider:
    """A sampling parameter that the page lets people move, in steps of `by`."""

    name: str
    label: str
    least: float
    most: float
    by: float

    @property
    def help(self) -> str:
        """What the parameter does."""
        return SamplingParams.model_fields[self.name].description or ""


SLIDERS = (
    Slider("temperature", "Temperature", 0, 2, 0.05),
    Slider("top_k", "Top-k", 0, TOP_K_STOPS - 1, 1),
    Slider("top_p", "Top-p", 0.01, 1, 0.01),
    Slider("min_p", "Min-p", 0, 0.5, 0.01),
)


@router.get("/flow")
async def flow(request: Request, models: ModelsDep) -> HTMLResponse:
    """One step of generation, to be watched."""
    names = [worker.name for worker in models]
    return render(request, "flow.html", models=names, sliders=SLIDERS, examples=EXAMPLES)

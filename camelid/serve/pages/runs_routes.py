"""The Runs pages: training as it goes on, what is kept of it, and two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from camelid.chat.inspect import describe
from camelid.errors import CamelidError
from camelid.serve.addresses import link
from camelid.serve.pages import runs
from camelid.serve.pages.dependencies import RunsDep
from camelid.serve.pages.run_curves import HEIGHT, WIDTH
from camelid.serve.pages.runs import RunStore, Shown
from camelid.serve.pages.shell import render
from camelid.train.report.curves import AGAINST
from camelid.weights.open import open_weights

router = APIRouter(include_in_schema=False)

Chosen = Annotated[list[str], Query()]


@router.get("/runs")
def listed(request: Request, store: RunsDep) -> HTMLResponse:
    """Every run of the folder."""
    return _list(request, store)


@router.get("/runs/live")
def listed_live(request: Request, store: RunsDep) -> HTMLResponse:
    """The part of the list that changes while runs train."""
    return render(request, "runs/list_live.html", **_rows(store))


@router.get("/runs/compare")
def compare(request: Request, store: RunsDep, run: Chosen = [], x: str = "step") -> Response:  # noqa: B006 - FastAPI copies it
    """Curves and recipes of several runs."""
    shown = _named(store, run)
    if len(shown) < 2:
        return RedirectResponse(link(f"/runs/{shown[0].name}" if shown else "/runs"), 303)
    return render(request, "runs/run.html", **_values(store, shown, x))


@router.get("/runs/compare/live")
def compare_live(request: Request, store: RunsDep, run: Chosen = [], x: str = "step") -> Response:  # noqa: B006
    """The part of a comparison that changes while runs train."""
    shown = _named(store, run)
    return render(request, "runs/run_live.html", **_values(store, shown, x)) if shown else Response(status_code=404)


@router.get("/runs/{name}")
def life(request: Request, store: RunsDep, name: str, x: str = "step") -> HTMLResponse:
    """The stages of a run in order, with the curves of each."""
    values = _life(store, name, x)
    if values is None:
        return _list(request, store, f"There is no run {name} in {store.folder}.")
    return render(request, "runs/life.html", **values)


@router.get("/runs/{name}/live")
def life_live(request: Request, store: RunsDep, name: str, x: str = "step") -> Response:
    """The part of a life's page that changes while it goes on."""
    values = _life(store, name, x)
    return render(request, "runs/life_live.html", **values) if values else Response(status_code=404)


@router.get("/runs/{name}/{stage}")
def page(request: Request, store: RunsDep, name: str, stage: str, x: str = "step") -> HTMLResponse:
    """A run; complete without JavaScript, which only keeps it fresh and tells values under the pointer."""
    shown = _named(store, [f"{name}/{stage}"])
    if not shown:
        return _list(request, store, f"There is no run {name}/{stage} in {store.folder}.")
    return render(request, "runs/run.html", **_values(store, shown, x))


@router.get("/runs/{name}/{stage}/live")
def page_live(request: Request, store: RunsDep, name: str, stage: str, x: str = "step") -> Response:
    """The part of a run's page that changes while it trains."""
    shown = _named(store, [f"{name}/{stage}"])
    return render(request, "runs/run_live.html", **_values(store, shown, x)) if shown else Response(status_code=404)


@router.get("/runs/{name}/{stage}/{checkpoint}")
def checkpoint(request: Request, store: RunsDep, name: str, stage: str, checkpoint: str) -> HTMLResponse:
    """What a checkpoint is, read from its files."""
    shown = _named(store, [f"{name}/{stage}"])
    states = [state for run in shown for state in run.run.checkpoints() if state.name == checkpoint]
    if not states:
        message = f"There is no {checkpoint} in {name}/{stage}; runs keep the latest ones only."
        return _list(request, store, message)
    description, wrong = _describe(states[0].path)
    return render(
        request, "runs/checkpoint.html", run=shown[0].name, state=states[0], description=description, wrong=wrong
    )


def _describe(folder: Path) -> tuple[dict[str, Any], str]:
    try:
        return describe(open_weights(folder), hashes=False), ""
    except CamelidError as error:
        return {}, str(error)


def _list(request: Request, store: RunStore, missing: str = "") -> HTMLResponse:
    return render(request, "runs/list.html", status=404 if missing else 200, missing=missing, **_rows(store))


def _rows(store: RunStore) -> dict[str, Any]:
    return {"runs": [runs.view(shown) for shown in store.all()], "folder": str(store.folder)}


def _named(store: RunStore, names: list[str]) -> list[Shown]:
    asked = (store.get(name) for name in dict.fromkeys(names))
    return [shown for shown in asked if shown is not None]


def _life(store: RunStore, name: str, x: str) -> dict[str, Any] | None:
    """What runs/life.html and runs/life_live.html name; None if there is no such run."""
    stages = store.life(name)
    if not stages:
        return None
    against = x if x in AGAINST else "step"
    return {
        "life": name,
        "stages": [runs.life_view(stage, against) for stage in stages],
        "live": any(stage.standing in ("training", "preparing", "waiting") for stage in stages),
        "against": against,
        "choices": list(AGAINST),
        "size": (WIDTH, HEIGHT),
        "recipe": stages[0].run.recipe(),
    }


def _values(store: RunStore, shown: list[Shown], x: str) -> dict[str, Any]:
    """What runs/run.html and runs/run_live.html name."""
    against = x if x in AGAINST else "step"
    alone = shown[0] if len(shown) == 1 else None
    return {
        "shown": [runs.view(run) for run in shown],
        "alone": alone is not None,
        "live": any(run.state == "training" for run in shown),
        "steps": _progress(alone) if alone else None,
        "against": against,
        "choices": list(AGAINST),
        "panels": runs.panels(shown, against),
        "size": (WIDTH, HEIGHT),
        "life": alone.run.folder.parent.name if alone else "",
        "stages": store.life(alone.run.folder.parent.name) if alone else [],
        "samples": runs.samples_view(alone.run) if alone else {},
        "checkpoints": runs.checkpoints(alone) if alone else [],
        "table": runs.table(alone) if alone else [],
        "recipe": shown[0].run.recipe() if alone else "",
        "differences": [(run.name, runs.recipe_difference(shown[0], run)) for run in shown[1:]],
        "query": [("run", run.name) for run in shown] if alone is None else [],
    }


def _progress(shown: Shown) -> tuple[int, int] | None:
    metrics = shown.metrics
    if metrics is None or not metrics.steps:
        return None
    return int(metrics.last("step") or 0), metrics.steps

"""The pages themselves, and the files they load."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from camelid.chat.inspect import describe
from camelid.serve.pages.shell import MEDIA_TYPES, render, static_files, static_version

FOR_EVER = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@router.get("/")
async def home() -> RedirectResponse:
    """The first page."""
    return RedirectResponse("/chat")


@router.get("/about")
def about(request: Request) -> HTMLResponse:
    """What camelid is, under which licence, and which models are loaded."""
    models = [(worker.name, describe(worker.llama.weights, False)) for worker in request.app.state.models]
    return render(request, "about.html", models=models)


@router.get("/static/{version}/{name}")
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
    return RedirectResponse(f"/static/{static_version()}/favicon.svg")

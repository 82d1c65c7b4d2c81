"""A server of the leaderboard alone: no models, no database, nothing to vote on; for a published log."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI
from fastapi.responses import RedirectResponse

from camelid import __version__
from camelid.serve import errors
from camelid.serve.addresses import link
from camelid.serve.api_file import Api
from camelid.serve.dependencies import provide
from camelid.serve.keys import Keys
from camelid.serve.middleware import RequestMiddleware
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions
from camelid.serve.pages import login
from camelid.serve.pages import routes as pages


def board_app(routers: Sequence[APIRouter], options: ServeOptions | None = None) -> FastAPI:
    """The application.

    Args:
        routers: of `board_routers`, and others of pages.
        options: where, for whom, and how long things may take; what it says of models has no meaning here.
    """
    options = options if options is not None else ServeOptions()
    keys = Keys(options.api_keys)
    app = Api(title="camelid", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    provide(app, Models.none(), options, keys)
    errors.install(app)
    app.add_middleware(RequestMiddleware, options=options, keys=keys)
    for router in (*routers, _shell(), login.router):
        app.include_router(router)
    return app


def _shell() -> APIRouter:
    """What every page needs, and the way from the first page to the leaderboard."""
    router = APIRouter(include_in_schema=False)
    router.add_api_route("/", _home, methods=["GET"])
    router.add_api_route("/static/{version}/{name:path}", pages.static, methods=["GET"])
    router.add_api_route("/favicon.ico", pages.favicon, methods=["GET"])
    return router


async def _home() -> RedirectResponse:
    return RedirectResponse(link("/leaderboard"))

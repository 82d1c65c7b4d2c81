"""The application: routes, middleware and workers put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from camelid import __version__
from camelid.hub.store import home
from camelid.serve import errors, native
from camelid.serve.api_file import Api
from camelid.serve.dependencies import provide
from camelid.serve.keys import Keys
from camelid.serve.metrics import new_registry
from camelid.serve.middleware import RequestMiddleware
from camelid.serve.models import Models
from camelid.serve.openai import routes as openai
from camelid.serve.options import ServeOptions
from camelid.serve.pages import chat_api, flow_api, flow_routes, login, models_routes, runs_routes
from camelid.serve.pages import routes as pages
from camelid.serve.pages.answering import Answers
from camelid.serve.pages.flows import Flows
from camelid.serve.pages.runs import FOLDER, RunStore
from camelid.serve.storage.conversations import Store
from camelid.serve.storage.database import Database, file_url

ROUTERS = (
    *(openai.router, native.router, pages.router, login.router),
    *(chat_api.router, flow_routes.router, flow_api.router, models_routes.router, runs_routes.router),
)


def database_of(options: ServeOptions) -> Database:
    """Where `options` say that everything is kept.

    Raises:
        OptionError, MissingError: as `Database`.
    """
    return Database(options.database or file_url(options.data or home() / "serve.db"))


def create_app(
    models: Models,
    options: ServeOptions | None = None,
    routers: Sequence[APIRouter] = (),
    database: Database | None = None,
    hidden: Collection[str] = (),
) -> FastAPI:
    """All routes over these models. Workers start and stop with the application.

    Args:
        models: what is served.
        options: where, for whom, and how long things may take.
        routers: of guests, before the application's own: a guest's page stands in place of one of the same path.
            Their handlers ask for its parts as its own do (`dependencies.py`); their lifespans begin when the database
            is open, and end before it closes.
        database: of `database_of`, where a guest needs it before the application is made.
        hidden: paths of the application's own that are not served, nor what lies below them.
    """
    options = options if options is not None else ServeOptions()
    database = database if database is not None else database_of(options)
    store, answers, keys = Store(database), Answers(options.request_seconds), Keys(options.api_keys)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(store.open)
        for worker in models:
            worker.start()
        try:
            yield
        finally:
            await models.stop(options.shutdown_seconds)
            await answers.stop()
            await store.close()

    app = Api(
        title="camelid", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False
    )
    provide(app, models, options, keys, database, store, new_registry(models))
    provide(app, answers, Flows(), RunStore(options.runs or FOLDER))
    errors.install(app)
    app.add_middleware(RequestMiddleware, options=options, keys=keys)
    for router in (*routers, *(_without(hidden, own) for own in ROUTERS)):
        app.include_router(router)
    return app


def _without(hidden: Collection[str], router: APIRouter) -> APIRouter:
    kept = APIRouter()
    for route in router.routes:
        path = getattr(route, "path", "")
        if not any(path == each or path.startswith(f"{each}/") for each in hidden):
            kept.routes.append(route)
    return kept if hidden else router

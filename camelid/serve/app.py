"""The application: routes, guards and workers put together; and running it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from camelid import __version__
from camelid.hub.store import home
from camelid.serve import errors, login, native
from camelid.serve.api_file import Api
from camelid.serve.conversations import Store
from camelid.serve.keys import Keys
from camelid.serve.middleware import Guards
from camelid.serve.models import Models
from camelid.serve.openai import routes as openai
from camelid.serve.options import ServeOptions
from camelid.serve.pages import chat_api, flow_api, flow_routes, models_routes, runs_routes
from camelid.serve.pages import routes as pages
from camelid.serve.pages.answering import Answers
from camelid.serve.pages.flows import Flows
from camelid.serve.pages.runs import FOLDER, Shelf


def create_app(models: Models, options: ServeOptions | None = None) -> FastAPI:
    """All routes over these models. Workers start and stop with the application; handlers find what they need in
    `app.state`: `models`, `options` and `keys`."""
    options = options if options is not None else ServeOptions()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(app.state.store.open)
        for worker in models:
            worker.start()
        try:
            yield
        finally:
            await models.stop(options.shutdown_seconds)
            await app.state.answers.stop()
            await app.state.store.close()

    app = Api(
        title="camelid", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False
    )
    app.state.models, app.state.options, app.state.keys = models, options, Keys(options.api_keys)
    app.state.flows, app.state.answers = Flows(), Answers(options.request_seconds)
    app.state.runs = Shelf(options.runs or FOLDER)
    app.state.store = Store(options.data or home() / "serve.db")
    errors.install(app)
    app.add_middleware(Guards, options=options, keys=app.state.keys)
    for router in (openai.router, native.router, pages.router, login.router):
        app.include_router(router)
    for router in (chat_api.router, flow_routes.router, flow_api.router, models_routes.router, runs_routes.router):
        app.include_router(router)
    return app

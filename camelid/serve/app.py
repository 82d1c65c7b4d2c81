"""The application: routes, guards and workers put together; and running it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from camelid import __version__
from camelid.serve import errors
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions


def create_app(models: Models, options: ServeOptions | None = None) -> FastAPI:
    """All routes over these models. Workers start and stop with the application; handlers find what they need in
    `app.state`: `models` and `options`."""
    options = options if options is not None else ServeOptions()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for worker in models:
            worker.start()
        try:
            yield
        finally:
            await models.stop(options.shutdown_seconds)

    app = FastAPI(
        title="camelid", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False
    )
    app.state.models, app.state.options = models, options
    errors.install(app)
    return app

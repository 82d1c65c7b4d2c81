"""The arena as an application: models, API and pages over `camelid.serve`, and who may see what.

People reach the arena's own pages and API, and Direct Chat, where nobody is shown other people's conversations.
Everything else of the server, as OpenAI's API and metrics, tells which model is busy, and is for operators, who bring
the admin key.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from camelid.arena.battles import Battles
from camelid.arena.board.following import Following
from camelid.arena.board.live import LiveSource
from camelid.arena.board.routes import board_routers
from camelid.arena.board.source import Facts
from camelid.arena.config import ArenaConfig
from camelid.arena.live.clock import Clock
from camelid.arena.live.contenders import Contender, EngineContender
from camelid.arena.live.endpoint import EndpointContender
from camelid.arena.live.log import Log
from camelid.arena.live.rounds import Judged, Moderation, Rounds
from camelid.arena.live.routes import ArenaApi
from camelid.arena.live.store import Store
from camelid.arena.live.tickets import Signer
from camelid.arena.pages.direct import HIDDEN
from camelid.arena.pages.routes import NOTICE, arena_pages
from camelid.arena.pairing import Tally
from camelid.errors import MissingError, OptionError
from camelid.evals.browsing import ResultStore
from camelid.hub.store import home
from camelid.serve.app import create_app, database_of
from camelid.serve.dependencies import provide
from camelid.serve.errors import ApiError, error_response
from camelid.serve.keys import Keys
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions
from camelid.serve.pages.benchmarks.routes import benchmarks_router
from camelid.serve.storage.database import Database

OPEN = (
    *("/", "/arena", "/battle", "/side-by-side", "/chat", "/leaderboard", "/about", "/health", "/login"),
    *("/favicon.ico", "/api/panel", "/api/conversations"),
)
OPEN_BELOW = ("/arena/", "/benchmarks/", "/leaderboard/", "/leaderboard.", "/static/", "/chat/", "/api/conversations/")
SECRET = 32  # characters that a signing key of the environment must have
TALLY_SECONDS = 30.0  # for which pairs are drawn by the votes as they were


def arena_app(
    config: ArenaConfig,
    models: Models,
    options: ServeOptions,
    contenders: Mapping[str, Contender] | None = None,
    moderation: Moderation | None = None,
    clock: Clock | None = None,
    seed: int | None = None,
) -> FastAPI:
    """The application.

    Args:
        config: the arena.
        models: those of camelid's engine, by the names that they have in `config`; may be none.
        options: where, and with which database.
        contenders: in place of those that `config` and `models` make.
        moderation: in place of the one that `config` names.
        clock, seed: of the time, and of drawing pairs.

    Raises:
        MissingError: a key is not in the environment; there is no such moderation.
        OptionError: the signing key of the environment is short.
    """
    fighters = contenders if contenders is not None else contenders_of(config, models)
    chosen = moderation if moderation is not None else moderation_of(config)
    signing, database, clock = _secret(config), database_of(options), clock or Clock()
    store = Store(database, clock)
    rounds = Rounds(config, fighters, store, chosen, seed, _tally(config, database, clock))
    api = ArenaApi(rounds, store, Log(config.log) if config.log is not None else None)
    operators = os.environ.get(config.admin_key_env)
    source = LiveSource(lambda: facts_of(config), name=config.name)
    results = ResultStore(options.results or Path("results"))
    routers = [
        APIRouter(lifespan=_lifespan(api, signing)),
        api.router(),
        arena_pages(config.models, api.shared, config.notice or NOTICE, _longest(config)),
        *board_routers(source, results=results, snapshots=_boards(options), admin_key=operators),
        benchmarks_router(results),
    ]
    app = create_app(models, options, routers, database, HIDDEN)
    provide(app, config, store, rounds, api)
    # within the layer that knows who may come in, and under which path
    app.user_middleware.append(Middleware(ForOperators, keys=Keys([operators] if operators else [])))
    return app


def _longest(config: ArenaConfig) -> dict[str, int]:
    return {"battle": config.limits.question, "side-by-side": config.limits.question_side_by_side}


def _boards(options: ServeOptions) -> Path:
    """Where the board of each day is kept: beside the database's file, else in camelid's folder."""
    return (options.data.parent if options.data is not None else home()) / "arena-boards"


def contenders_of(config: ArenaConfig, models: Models) -> dict[str, Contender]:
    """What answers, by name.

    Raises:
        MissingError: an endpoint's key is not in the environment.
    """
    return {
        model.name: EndpointContender(model) if model.is_endpoint else EngineContender(model, models.get(model.name))
        for model in config.models
    }


def facts_of(config: ArenaConfig) -> list[Facts]:
    """What boards say of the models."""
    names = ("organisation", "licence", "cutoff", "link", "parameters", "results", "run")
    return [Facts(model.name, **{name: getattr(model, name) for name in names}) for model in config.models]


def moderation_of(config: ArenaConfig) -> Moderation | None:
    """The function that `moderation` names, as package.module:function; it may be a coroutine function.

    Raises:
        MissingError: no such module or function.
    """
    if not config.moderation:
        return None
    module, _, name = config.moderation.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise MissingError(f"moderation: {config.moderation}: {error}; write package.module:function") from None

    async def ask(judged: Judged) -> bool:
        if inspect.iscoroutinefunction(function):
            return bool(await function(judged))
        return bool(await asyncio.to_thread(function, judged))

    return ask


class ForOperators:
    """Lets people reach what is the arena's, and whoever brings the admin key everything.

    Args:
        app: what it stands before.
        keys: of operators; none: nobody reaches the rest.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and not self._may(scope):
            error = ApiError(403, "This is for the arena's operators; send the admin key as Authorization: Bearer KEY.")
            await error_response(error)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _may(self, scope: Scope) -> bool:
        path = scope["path"]
        if path in OPEN or path.startswith(OPEN_BELOW):
            return True
        return len(self.keys) > 0 and self.keys.allow(dict(scope["headers"]))


def _lifespan(api: ArenaApi, signing: str | None) -> Any:
    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        await asyncio.to_thread(api.store.open)
        api.signer = Signer((signing or await api.store.secret("signing")).encode())
        try:
            yield
        finally:
            await api.rounds.stop()
            for contender in api.rounds.contenders.values():
                if isinstance(contender, EndpointContender):
                    await contender.close()

    return lifespan


def _secret(config: ArenaConfig) -> str | None:
    """The signing key of the environment; None: the database makes and keeps one."""
    secret = os.environ.get(config.secret_env)
    if secret and len(secret) < SECRET:
        raise OptionError(f"{config.secret_env}: has {len(secret)} characters; a signing key needs {SECRET} or more")
    return secret or None


def _tally(config: ArenaConfig, database: Database, clock: Clock) -> Callable[[], Tally | None]:
    """Votes so far, read again every `TALLY_SECONDS`, where pairs are drawn by them."""
    source = LiveSource(lambda: facts_of(config))
    following, kept = Following(source), [(-TALLY_SECONDS, Tally.of(Battles.of([], [], [])))]

    def tally() -> Tally | None:
        now = clock.steady()
        if now - kept[0][0] >= TALLY_SECONDS:
            source.bind(database)
            kept[0] = (now, Tally.of(following.votes().battles))
        return kept[0][1]

    return tally

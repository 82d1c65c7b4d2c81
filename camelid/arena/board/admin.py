"""The operators' pages: nothing of them is shown without the key, whose comparison tells nothing by its time."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from sqlalchemy import Engine

from camelid.arena.battles import WINNERS, Battles
from camelid.arena.board import operators
from camelid.arena.board.boards import Boards
from camelid.arena.board.live import LiveSource
from camelid.errors import CamelidError
from camelid.serve.addresses import ROOT, link
from camelid.serve.errors import ApiError
from camelid.serve.keys import SESSION_SECONDS, Keys
from camelid.serve.pages.login import MOST_BYTES, WRONG_KEY_SECONDS
from camelid.serve.pages.shell import render

COOKIE = "camelid_arena_admin"
ENVIRONMENT = "CAMELID_ARENA_KEY"
KEPT_SECONDS = 10  # for which figures are shown as they were
WEEK = 7 * operators.DAY
_ROWS = 5000  # of an export, written at once
PICTURE = (1000, 120)  # width and height of the columns of traffic


def admin_key(given: str | None) -> str | None:
    """The key of the configuration, else that of the environment."""
    return given or os.environ.get(ENVIRONMENT) or None


class Operators:
    """Handlers, run in threads.

    Args:
        boards: over the votes.
        key: None: the pages say that there is none, and show nothing.
    """

    def __init__(self, boards: Boards, key: str | None) -> None:
        self.boards, self.source = boards, boards.following.source
        self.keys = Keys([key] if key else [])
        self._kept: tuple[float, dict[str, Any]] | None = None

    def allow(self, request: Request) -> bool:
        """Whether the key, or a session that began with it, came with a request."""
        return len(self.keys) > 0 and self.keys.allow(dict(request.scope["headers"]), COOKIE)

    def page(self, request: Request, fraud: str = "") -> Response:
        """Everything on one page."""
        if not self.allow(request):
            return self._ask(request)
        try:
            figures = self._figures()
            found = self._search() if fraud else None
        except CamelidError as error:
            return render(request, "board/wrong.html", status=503, wrong=" ".join(str(error).split()))
        return render(request, "board/admin.html", found=found, picture=PICTURE, **figures)

    def _ask(self, request: Request, is_wrong: bool = False) -> HTMLResponse:
        has_key = len(self.keys) > 0
        status = 401 if has_key else 404
        return render(request, "board/admin_key.html", status=status, is_wrong=is_wrong, has_key=has_key)

    async def enter(self, request: Request) -> Response:
        """Take the key, and keep a session in a cookie that scripts cannot read and other sites cannot use."""
        body = await request.body()
        if len(body) > MOST_BYTES:
            raise ApiError(413, f"body: has {len(body)} bytes, the limit is {MOST_BYTES}; send a key", "body_too_large")
        key = parse_qs(body.decode("utf-8", "replace")).get("key", [""])[0].strip()
        if not len(self.keys) or not self.keys.has(key):
            await asyncio.sleep(WRONG_KEY_SECONDS)
            return self._ask(request, is_wrong=True)
        response = RedirectResponse(link("/arena/admin"), 303)
        secure, path = request.url.scheme == "https", f"{ROOT.get()}/arena/admin"
        cookie: dict[str, Any] = {
            "max_age": SESSION_SECONDS,
            "httponly": True,
            "samesite": "strict",
            "secure": secure,
            "path": path,
        }
        response.set_cookie(COOKIE, self.keys.session(), **cookie)
        return response

    def _figures(self) -> dict[str, Any]:
        """As they were at most `KEPT_SECONDS` ago."""
        now = time.time()
        if self._kept is not None and 0 <= now - self._kept[0] < KEPT_SECONDS:
            return self._kept[1]
        battles = self.boards.following.votes().battles
        figures: dict[str, Any] = {
            "n_votes": len(battles),
            "n_voters": _n_voters(battles),
            "days": operators.drift(battles),
        }
        figures |= {"now": now, "columns": [], "models": [], "turns": [], "states": [], "is_live": False, "totals": {}}
        if isinstance(self.source, LiveSource):
            with self.source.reading("the operators' figures"):
                figures |= _live(self.source.engine, now)
        moments = [now, *(day.day for day in figures["days"]), *(each["hour"].start for each in figures["columns"])]
        figures["moments"] = {each: f"{datetime.fromtimestamp(each, UTC):%Y-%m-%d %H:%M}" for each in moments}
        self._kept = (now, figures)
        return figures

    def _search(self) -> Any:
        """Voters whose votes are unlikely; it takes seconds, so it is asked for."""
        from camelid.arena.fraud.search import find_fraud

        return find_fraud(with_names(self.boards.following.votes().battles))

    def export(self, request: Request) -> Response:
        """Votes that count, without texts; people are numbers."""
        if not self.allow(request):
            return self._ask(request)
        battles = self.boards.following.votes().battles
        name = f"votes-{datetime.now(UTC):%Y-%m-%d}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        return StreamingResponse(rows_of(battles), media_type="text/csv; charset=utf-8", headers=headers)


def _live(engine: Engine, now: float) -> dict[str, Any]:
    """What only a live arena has."""
    hours = operators.traffic(engine, now)
    return {
        "is_live": True,
        "totals": {name: sum(getattr(hour, name) for hour in hours[-24:]) for name in ("battles", "votes")},
        "columns": operators.columns_of(hours, *PICTURE),
        "models": operators.health(engine, now - WEEK),
        "turns": operators.failed_turns(engine, now - WEEK),
        "states": operators.states(engine),
    }


def with_names(battles: Battles) -> Battles:
    """With names for voters that have numbers only."""
    n = _n_voters(battles)
    return battles if battles.voters else replace(battles, voters=tuple(f"voter {at}" for at in range(n)))


def _n_voters(battles: Battles) -> int:
    return int(battles.voter.max(initial=-1)) + 1


def rows_of(battles: Battles) -> Iterator[str]:
    """A log of votes as CSV, in parts."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "model_a", "model_b", "winner", "voter", "turn", "tstamp"])
    for start in range(0, max(1, len(battles)), _ROWS):
        for at in range(start, min(start + _ROWS, len(battles))):
            voter, moment = int(battles.voter[at]), float(battles.time[at])
            writer.writerow(
                [
                    *(battles.ids[at], battles.models[battles.a[at]], battles.models[battles.b[at]]),
                    *(WINNERS[battles.winner[at]], voter if voter >= 0 else "", int(battles.turns[at])),
                    "" if np.isnan(moment) else f"{moment:.4f}",
                ]
            )
        yield out.getvalue()
        out.seek(0)
        out.truncate()


def admin_router(boards: Boards, key: str | None) -> APIRouter:
    """The operators' pages over the boards' source."""
    pages, router = Operators(boards, key), APIRouter(include_in_schema=False)
    handlers: dict[str, Callable[..., Any]] = {"/arena/admin": pages.page, "/arena/admin/votes.csv": pages.export}
    for path, handler in handlers.items():
        router.add_api_route(path, handler, methods=["GET"], response_model=None)
    router.add_api_route("/arena/admin", pages.enter, methods=["POST"], response_model=None)
    return router

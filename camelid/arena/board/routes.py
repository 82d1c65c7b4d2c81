"""The leaderboard's pages. Each is complete without JavaScript, and an address says everything that was chosen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, Response

from camelid.arena.board import plots
from camelid.arena.board.admin import admin_router
from camelid.arena.board.boards import Boards, Choice, Shown
from camelid.arena.board.download import FORMS
from camelid.arena.board.following import Following
from camelid.arena.board.full import with_figures
from camelid.arena.board.live import LiveSource
from camelid.arena.board.snapshots import Snapshots, moves
from camelid.arena.board.source import Facts, Source
from camelid.arena.board.table import COLUMNS, SIZES, Filters, Line, ordered
from camelid.arena.board.votes import OUTCOMES, found, moment
from camelid.arena.board.votes import shown as shown_vote
from camelid.arena.ratings import RateOptions
from camelid.errors import CamelidError, MissingError, NotFoundError
from camelid.evals.browsing import ResultStore
from camelid.serve.dependencies import part_of
from camelid.serve.pages.shell import render, take_in
from camelid.serve.storage.database import Database

NAME = "board"
AT_ONCE = 50  # votes on a page
TIME_SECONDS = 60
VIEWS = {"arena": "Arena", "full": "Full Leaderboard"}
PLOTS = {
    "intervals": "Ratings with 95 % intervals",
    "wins": "Share of wins, ties aside",
    "counts": "Battles of each pair",
    "win-rates": "Mean win rate against each other model alike",
    "time": "Ratings over time",
}

Text = Annotated[str, Query(max_length=300)]


@dataclass(frozen=True)
class Asked:
    """What an address asks of the leaderboard; what it does not know is taken as not said."""

    view: str
    choice: Choice
    filters: Filters
    sort: str
    since: str

    def query(self, **changes: str) -> list[tuple[str, str]]:
        """As an address says it, with some values changed."""
        told = {
            "view": self.view if self.view != "arena" else "",
            "category": self.choice.category,
            "style": "1" if self.choice.style else "",
            "since": self.since,
            **dict(self.filters.query()),
            "sort": self.sort if self.sort != "rank" else "",
        }
        return [(name, value) for name, value in {**told, **changes}.items() if value]


def asked(
    view: Text = "arena",
    category: Text = "",
    style: Text = "",
    open: Text = "",
    licence: Text = "",
    size: Text = "",
    organisation: Text = "",
    q: Text = "",
    sort: Text = "rank",
    since: Text = "",
) -> Asked:
    """From an address."""
    filters = Filters(bool(open), licence, size if size in SIZES else "", organisation, " ".join(q.split()))
    view = view if view in VIEWS else "arena"
    return Asked(view, Choice(category, bool(style)), filters, sort or "rank", since)


AskedDep = Annotated[Asked, Depends(asked)]


def board_routers(
    source: Source,
    *,
    options: RateOptions | None = None,
    results: ResultStore | None = None,
    snapshots: Path | None = None,
    admin_key: str | None = None,
) -> list[APIRouter]:
    """The pages over a source, for `create_app(routers=…)`.

    Args:
        source: of votes: a live store's, or a log.
        options: how votes are rated.
        results: of `camelid eval`, for the full leaderboard.
        snapshots: folder in which the board of each day is kept.
        admin_key: of the operators' pages; without it they show nothing.
    """
    take_in(NAME, Path(__file__).parent)
    boards = Boards(Following(source), options)
    pages = Pages(boards, results, Snapshots(snapshots) if snapshots is not None else None)
    router = APIRouter(include_in_schema=False, lifespan=_lifespan(source, boards))
    handlers: dict[str, Callable[..., Response]] = {
        "/leaderboard": pages.listed,
        "/leaderboard/plots/{name}": pages.plot,
        "/leaderboard/votes": pages.votes,
        "/leaderboard/battles/{id}": pages.battle,
        "/leaderboard/moves": pages.moved,
        "/leaderboard/influence": pages.influence,
        "/leaderboard.{ending}": pages.download,
    }
    for path, handler in handlers.items():
        router.add_api_route(path, handler, methods=["GET"])
    return [router, admin_router(boards, admin_key)]


def _lifespan(source: Source, boards: Boards) -> Any:
    """A live source reads from the application's database, which is open by then."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if isinstance(source, LiveSource):
            source.bind(part_of(app, Database))
        boards.warm()
        try:
            yield
        finally:
            boards.close()
            if isinstance(source, LiveSource):
                source.close()

    return lifespan


class Pages:
    """Handlers, run in threads."""

    def __init__(self, boards: Boards, results: ResultStore | None, snapshots: Snapshots | None) -> None:
        self.boards, self.results, self.snapshots = boards, results, snapshots
        self.source = boards.following.source
        self._curves: dict[Choice, tuple[float, plots.Curves | None]] = {}

    def listed(self, request: Request, what: AskedDep) -> HTMLResponse:
        """The leaderboard."""
        try:
            shown = self.boards.get(what.choice)
            if self.snapshots is not None and what.choice == Choice():
                self.snapshots.keep(shown.board, shown.votes.read)
            every, tasks = self._lines(shown, what)
        except CamelidError as error:
            return self._wrong(request, error)
        lines = ordered([line for line in every if what.filters.keep(line)], what.sort)
        values = self._choices(what, every) | self._banner(shown, len(every))
        values |= {"lines": lines, "tasks": tasks, "columns": _heads(what, tasks), "asked": what}
        values |= {"warnings": shown.board.warnings, "coefficients": shown.board.coefficients}
        values |= {"days": self.snapshots.days() if self.snapshots is not None else []}
        return render(request, "board/leaderboard.html", **values)

    def _lines(self, shown: Shown, what: Asked) -> tuple[list[Line], list[str]]:
        """A line a model, and the tasks of the full leaderboard."""
        facts = self.source.facts()
        before = {}
        if what.since and self.snapshots is not None and (day := _day(what.since)) is not None:
            before = {row.name: row for row in self.snapshots.open(day).board.rows}
        lines = []
        for row in shown.board.rows:
            was = before.get(row.name)
            line = Line(
                *(row.name, row.rank, row.rating, row.lower, row.upper, row.votes),
                facts.get(row.name, Facts(row.name)),
                was.rank - row.rank if was is not None else None,
                was.rating if was is not None else None,
            )
            lines.append(line)
        return with_figures(lines, self.results) if what.view == "full" else (lines, [])

    def _choices(self, what: Asked, every: Sequence[Line]) -> dict[str, Any]:
        """What the form offers."""
        facts = [line.facts for line in every]
        return {
            "views": VIEWS,
            "categories": self.boards.categories(),
            "licences": sorted({each.licence for each in facts if each.licence}, key=str.casefold),
            "organisations": sorted({each.organisation for each in facts if each.organisation}, key=str.casefold),
            "sizes": list(SIZES),
            "plots": PLOTS,
            "has_style": self.boards.has_style(),
            "endings": list(FORMS),
        }

    def _banner(self, shown: Shown, n_models: int) -> dict[str, Any]:
        """How many models and votes, of how many, and how new."""
        battles = shown.votes.battles
        return {
            "source": self.source.name,
            "n_models": n_models,
            "all_models": len(battles.models),
            "n_votes": shown.n_votes,
            "all_votes": len(battles),
            "newest": moment(float(np.nanmax(battles.time))) if _is_timed(battles.time) else "",
            "read": moment(shown.votes.read),
        }

    def plot(self, request: Request, name: str, what: AskedDep) -> HTMLResponse:
        """One plot, with its figures as a table."""
        if name not in PLOTS:
            return self._wrong(request, NotFoundError(f"There is no plot {name}."))
        try:
            shown = self.boards.get(what.choice)
            makers: dict[str, Callable[[], Any]] = {
                "intervals": lambda: plots.intervals(shown),
                "wins": lambda: plots.wins_map(shown),
                "counts": lambda: plots.counts_map(shown),
                "win-rates": lambda: plots.win_rates(shown),
                "time": lambda: self._over_time(shown),
            }
            drawn = makers[name]()
        except CamelidError as error:
            return self._wrong(request, error)
        values = {"plots": PLOTS, "name": name, "drawn": drawn, "asked": what, "categories": self.boards.categories()}
        values |= {
            "has_style": self.boards.has_style(),
            "n": len(shown.board.rows),
            "top": plots.TOP,
            "width": plots.WIDTH,
            "left": plots.LEFT,
        }
        values |= {"cell": plots.CELL, "names": plots.NAMES, "above": plots.ABOVE, "height": plots.HEIGHT}
        return render(request, "board/plot.html", **values)

    def _over_time(self, shown: Shown) -> plots.Curves | None:
        """Dozens of boards, so those of at most `TIME_SECONDS` ago are good."""
        kept = self._curves.get(shown.choice)
        if kept is not None and 0 <= shown.votes.read - kept[0] < TIME_SECONDS:
            return kept[1]
        curves = plots.over_time(shown, self.boards.options)
        self._curves[shown.choice] = (shown.votes.read, curves)
        return curves

    def votes(
        self,
        request: Request,
        model_a: Text = "",
        model_b: Text = "",
        outcome: Text = "",
        category: Text = "",
        at: Text = "",
    ) -> HTMLResponse:
        """Votes on a model, or on two against each other, whichever side they were on; the newest first."""
        try:
            votes = self.boards.following.votes()
            places = found(votes.battles, model_a, model_b, outcome, self._category(category))
        except CamelidError as error:
            return self._wrong(request, error)
        start = int(at) if at.isascii() and at.isdigit() and len(at) < 12 else 0
        start -= start % AT_ONCE
        rows = [shown_vote(votes.battles, int(place)) for place in places[start : start + AT_ONCE]]
        query = [("model_a", model_a), ("model_b", model_b), ("outcome", outcome), ("category", category)]
        paging: dict[str, int] = {"first": start + 1, "last": start + len(rows), "of": len(places)}
        paging |= {"before": start - AT_ONCE if start else -1}
        paging |= {"behind": start + AT_ONCE if start + AT_ONCE < len(places) else -1}
        values: dict[str, Any] = {
            "rows": rows,
            "paging": paging,
            "query": [pair for pair in query if pair[1]],
            "outcome": outcome,
        }
        values |= {"model_a": model_a, "model_b": model_b, "outcomes": OUTCOMES, "models": votes.battles.models}
        return render(request, "board/votes.html", category=category, categories=self.boards.categories(), **values)

    def _category(self, name: str) -> str:
        if name not in self.boards.categories():
            raise NotFoundError(f"category: there is no {name!r}")
        return name

    def battle(self, request: Request, id: str) -> HTMLResponse:
        """A battle: who answered what, and the vote."""
        battles = self.boards.following.votes().battles
        found = np.flatnonzero(battles.ids == id)
        if not len(found):
            return self._wrong(request, NotFoundError(f"There is no vote on a battle {id}."))
        try:
            text = self.source.text(id)
        except CamelidError as error:
            return self._wrong(request, error)
        votes = [shown_vote(battles, int(place)) for place in found[:AT_ONCE]]
        return render(request, "board/battle.html", id=id, text=text, votes=votes)

    def moved(self, request: Request, since: Text = "", until: Text = "") -> HTMLResponse:
        """What changed between the boards of two days, or of a day and now."""
        try:
            if self.snapshots is None or not (days := self.snapshots.days()):
                raise NotFoundError("No board of another day was kept yet.")
            first = _day(since) or days[0]
            last = _day(until)
            before = self.snapshots.open(first).board
            after = self.boards.get(Choice()).board if last is None else self.snapshots.open(last).board
        except CamelidError as error:
            return self._wrong(request, error)
        values: dict[str, Any] = {"days": days, "since": first, "until": last, "moves": moves(before, after)}
        return render(request, "board/moves.html", n_votes=(before.n_votes, after.n_votes), **values)

    def influence(self, request: Request, what: AskedDep) -> HTMLResponse:
        """Which few votes would change the first place."""
        try:
            votes, flip = self.boards.influence(what.choice.category)
            n_votes = self.boards.get(Choice(what.choice.category)).board.n_votes
        except CamelidError as error:
            return self._wrong(request, error)
        n = 0 if flip is None else len(flip.votes)
        rows = [] if flip is None else [shown_vote(votes.battles, int(place)) for place in flip.votes[:AT_ONCE]]
        values = {"asked": what, "categories": self.boards.categories(), "n": n, "n_votes": n_votes, "rows": rows}
        return render(request, "board/influence.html", flip=flip, **_any(values))

    def download(self, request: Request, ending: str, what: AskedDep) -> Response:
        """The board as a file, filtered and sorted as the page."""
        if ending not in FORMS:
            return self._wrong(request, NotFoundError(f"A board comes as {', '.join(FORMS)}, not as {ending}."))
        media_type, write = FORMS[ending]
        try:
            shown = self.boards.get(what.choice)
            every, _ = self._lines(shown, what)
            lines = ordered([line for line in every if what.filters.keep(line)], what.sort)
            content = write(shown, lines)
        except CamelidError as error:
            return self._wrong(request, error)
        name = f"leaderboard-{datetime.fromtimestamp(shown.votes.read, UTC):%Y-%m-%d}.{ending}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        return Response(content, media_type=media_type, headers=headers)

    def _wrong(self, request: Request, error: CamelidError) -> HTMLResponse:
        status = 404 if isinstance(error, NotFoundError) else 501 if isinstance(error, MissingError) else 400
        return render(request, "board/wrong.html", status=status, wrong=" ".join(str(error).split()))


def _any(values: dict[str, Any]) -> dict[str, Any]:
    """What a template names, of several kinds, which the checker of types cannot tell apart."""
    return values


def _heads(what: Asked, tasks: Sequence[str]) -> list[dict[str, str]]:
    """Heads of columns: title, the address that sorts by it, and how it is sorted now."""
    titles = [(name, title, most_first) for name, (title, _, most_first) in COLUMNS.items()]
    titles += [(task, task, True) for task in tasks]
    heads = []
    for name, title, most_first in titles:
        now = {name: "ascending", f"-{name}": "descending"}.get(what.sort, "none")
        first, other = (f"-{name}", name) if most_first else (name, f"-{name}")
        heads.append({"name": name, "title": title, "now": now, "sort": other if what.sort == first else first})
    return heads


def _is_timed(times: np.ndarray[Any, Any]) -> bool:
    return bool(len(times)) and not bool(np.isnan(times).all())


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None

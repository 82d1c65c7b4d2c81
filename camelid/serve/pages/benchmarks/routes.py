"""The Benchmarks pages: the list of results, a result, two results side by side, and items to click through.

serve does not know evals, nor evals serve: whoever puts the application together hands the store in.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from camelid.errors import CamelidError
from camelid.serve.pages.benchmarks import views
from camelid.serve.pages.shell import render

if TYPE_CHECKING:
    from camelid.evals.browsing import Compared, ItemIndex, Listed, Outcome, ResultStore
    from camelid.evals.result import Result

AT_ONCE = 50  # results, or items, on a page
ONLY = {"": "all", "wrong": "wrong", "unread": "could not be read"}
OUTCOMES = {"both": "both right", "first": "only the first", "second": "only the second", "neither": "neither"}

Text = Annotated[str, Query(max_length=1000)]
Chosen = Annotated[list[str], Query()]
T = TypeVar("T")


def benchmarks_router(store: ResultStore) -> APIRouter:
    """The pages over a store, for `create_app(routers=…)`."""
    pages, router = Pages(store), APIRouter(include_in_schema=False)
    handlers: dict[str, Callable[..., HTMLResponse]] = {
        "/benchmarks": pages.listed,
        "/benchmarks/compare": pages.compare,
        "/benchmarks/{name}": pages.result,
        "/benchmarks/{name}/items": pages.items,
        "/benchmarks/{name}/items/{at}": pages.item,
    }
    for path, handler in handlers.items():
        router.add_api_route(path, handler, methods=["GET"])
    return router


@dataclass(frozen=True)
class Selection:
    """Which items somebody looks at.

    Attributes:
        metric: by which they are right or wrong; empty if no metric says so.
        against: the other result of a comparison.
        places: of the items, and of the same items in the other result.
    """

    metric: str
    only: str
    group: str
    against: Listed | None
    places: Sequence[int]
    theirs: Sequence[int]

    def query(self) -> list[tuple[str, str]]:
        """What an address says of it."""
        against = "" if self.against is None else self.against.name
        metric = self.metric if self.only else ""
        told = {"against": against, "only": self.only, "metric": metric, "group": self.group}
        return [(name, value) for name, value in told.items() if value]


class Pages:
    """Handlers; each is complete without JavaScript."""

    def __init__(self, store: ResultStore) -> None:
        self.store = store

    def listed(self, request: Request, task: Text = "", model: Text = "", at: Text = "") -> HTMLResponse:
        """Every result of the folder, or those of a task or model."""
        return self._list(request, task, model, at)

    def _list(
        self, request: Request, task: str = "", model: str = "", at: str = "", missing: str = "", status: int = 200
    ) -> HTMLResponse:
        every = self.store.all()
        results = [each.result for each in every if each.result is not None]
        tasks, models = sorted({each.task for each in results}), sorted({each.model for each in results})
        task, model = task if task in tasks else "", model if model in models else ""
        found = [each for each in every if _is_of(each, task, model)]
        values: dict[str, Any] = {
            "folder": str(self.store.folder),
            "tasks": tasks,
            "models": models,
            "task": task,
            "model": model,
        }
        cut, paging = page_of(found, at)
        query = [(name, value) for name, value in (("task", task), ("model", model)) if value]
        values |= {"rows": [views.row(each) for each in cut], "paging": paging, "query": query, "missing": missing}
        return render(request, "benchmarks/list.html", status=status, **values)

    def result(self, request: Request, name: str) -> HTMLResponse:
        """A result: figures with intervals, groups, conditions."""
        listed = self.store.get(name)
        if listed is None:
            return self._missing(request, name)
        if listed.result is None:
            return _wrong(request, listed.name, listed.wrong)
        others = [each.name for each in self.store.all() if each.name != name and _is_of(each, listed.result.task, "")]
        values = views.result_view(listed, listed.result)
        return render(request, "benchmarks/result.html", result=values, others=others)

    def items(
        self,
        request: Request,
        name: str,
        only: Text = "",
        metric: Text = "",
        group: Text = "",
        at: Text = "",
    ) -> HTMLResponse:
        """Items of a result, a page at a time."""
        listed = self.store.get(name)
        if listed is None:
            return self._missing(request, name)
        try:
            index = self.store.items(_finished(listed))
            selection = self._select(listed, index, "", only, metric, group)
            cut, paging = page_of(selection.places, at)
            rows = [views.item_row(place, index.read(place)) for place in cut]
        except (CamelidError, *_DAMAGE) as error:
            return _wrong(request, name, _line(error, name))
        values: dict[str, Any] = {"name": name, "rows": rows, "paging": paging, "selection": selection, "choices": ONLY}
        metrics, damaged = list(_scores(listed.result)), _damaged(listed, index)
        return render(request, "benchmarks/items.html", metrics=metrics, groups=index.groups, damaged=damaged, **values)

    def item(
        self,
        request: Request,
        name: str,
        at: str,
        only: Text = "",
        metric: Text = "",
        group: Text = "",
        against: Text = "",
    ) -> HTMLResponse:
        """An item, and ways to those before and behind it."""
        listed = self.store.get(name)
        if listed is None:
            return self._missing(request, name)
        try:
            index = self.store.items(_finished(listed))
            place = _number(at, len(index))
            if place is None:
                return _wrong(request, name, f"{name}: there is no item {at}; it has {len(index):,}", 404)
            selection = self._select(listed, index, against, only, metric, group)
            values: dict[str, Any] = {"item": views.item_view(index.read(place)), "place": place, "name": name}
            values |= _around(selection.places, place)
            values["other"] = self._other(selection, place)
        except (CamelidError, *_DAMAGE) as error:
            return _wrong(request, name, _line(error, name))
        words = {**ONLY, **OUTCOMES}[selection.only]
        return render(request, "benchmarks/item.html", selection=selection, words=words, **values)

    def _other(self, selection: Selection, place: int) -> dict[str, Any] | None:
        """The same item in the other result; None if there is none."""
        here = bisect_left(selection.places, place)
        if selection.against is None or here == len(selection.places) or selection.places[here] != place:
            return None
        there = self.store.items(selection.against)
        return views.item_view(there.read(selection.theirs[here])) | {"name": selection.against.name}

    def compare(
        self,
        request: Request,
        result: Chosen = [],  # noqa: B006 - FastAPI copies it
        only: Text = "",
        metric: Text = "",
        at: Text = "",
    ) -> HTMLResponse:
        """Two results on the items that both have."""
        found = [(name, self.store.get(name)) for name in dict.fromkeys(result)]
        listed = [each for _, each in found if each is not None]
        if len(listed) != 2:
            gone = [name for name, each in found if each is None]
            return (
                self._missing(request, gone[0])
                if gone
                else self._list(request, missing="Tick two results.", status=400)
            )
        try:
            compared = self.store.compare(listed[0], listed[1])
            first = _finished(listed[0]).result
            assert first is not None
            values = self._compared(compared, first, only, metric, at)
        except (CamelidError, *_DAMAGE) as error:
            return _wrong(request, " and ".join(each.name for each in listed), _line(error, listed[0].name))
        return render(request, "benchmarks/compare.html", names=[each.name for each in listed], **values)

    def _compared(self, compared: Compared, first: Result, only: str, metric: str, at: str) -> dict[str, Any]:
        """What compare.html names."""
        scores = _scores(first)
        metric = metric if metric in scores else next(iter(scores), "")
        outcomes = compared.outcomes(*scores[metric]) if metric else {}
        only = only if only in OUTCOMES else ""
        chosen = outcomes[cast("Outcome", only)] if only and outcomes else []
        cut, paging = page_of(chosen, at)
        rows = []
        for here, there in cut:
            one, other = compared.indexes[0].read(here), compared.indexes[1].read(there)
            rows.append({**views.item_row(here, one), "other": views.scores(other)})
        counts = {name: (words, len(outcomes.get(cast("Outcome", name), ()))) for name, words in OUTCOMES.items()}
        selection = Selection(metric, only, "", compared.second, (), ())
        return {
            "task": first.task,
            "n": len(compared.both),
            "models": [first.model, compared.second.result.model if compared.second.result else ""],
            "sizes": [compared.first.n, compared.second.n],
            "differing": [name.replace("_", " ") for name in compared.differing],
            "comparisons": views.comparison_rows(compared, first),
            "metrics": list(scores),
            "score": scores[metric][0] if metric else "",
            "counts": counts,
            "selection": selection,
            "rows": rows,
            "paging": paging,
        }

    def _select(self, listed: Listed, index: ItemIndex, against: str, only: str, metric: str, group: str) -> Selection:
        scores = _scores(listed.result)
        metric = metric if metric in scores else next(iter(scores), "")
        other = self.store.get(against) if against else None
        if other is not None and metric and only in OUTCOMES:
            pairs = self.store.compare(listed, other).outcomes(*scores[metric])[cast("Outcome", only)]
            return Selection(metric, only, "", other, [here for here, _ in pairs], [there for _, there in pairs])
        only = only if only in ONLY and metric else ""
        places: Sequence[int] = range(len(index))
        if only:
            places = index.wrong(*scores[metric]) if only == "wrong" else index.unread(scores[metric][0])
        if group in index.groups:
            number = index.groups.index(group)
            places = [place for place in places if index.group[place] == number]
        return Selection(metric, only, group if group in index.groups else "", None, places, ())

    def _missing(self, request: Request, name: str) -> HTMLResponse:
        return self._list(request, missing=f"There is no result {name} in {self.store.folder}.", status=404)


_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)


def _line(error: BaseException, name: str) -> str:
    """What is wrong, on a line."""
    if isinstance(error, CamelidError):
        return str(error)
    return f"{name}: an item is not as camelid writes it; evaluate again, with --again"


def _wrong(request: Request, name: str, wrong: str, status: int = 200) -> HTMLResponse:
    return render(request, "benchmarks/wrong.html", status=status, name=name, wrong=wrong)


def _finished(listed: Listed) -> Listed:
    if listed.result is None:
        raise CamelidError(listed.wrong)
    return listed


def _damaged(listed: Listed, index: ItemIndex) -> str:
    """What is missing of a result's items."""
    if not index.broken and len(index) == listed.n:
        return ""
    lines = f"line {index.broken[0]} is no item; " if index.broken else ""
    return f"{index.path}: {lines}{len(index):,} of {listed.n:,} items can be read; evaluate again, with --again"


def _scores(result: Result | None) -> dict[str, tuple[str, bool]]:
    """Metric → the items' score that it is the mean of, and whether more is better."""
    shown = {} if result is None else result.shown
    return {name: (each["score"], bool(each["higher_is_better"])) for name, each in shown.items() if "score" in each}


def _is_of(listed: Listed, task: str, model: str) -> bool:
    result = listed.result
    if result is None:
        return not task and not model
    return task in ("", result.task) and model in ("", result.model)


def page_of(values: Sequence[T], at: str) -> tuple[Sequence[T], dict[str, Any]]:
    """The values from `at` on that stand on a page, and where the pages before and behind it begin."""
    start = _number(at, len(values)) or 0
    start -= start % AT_ONCE
    behind = start + AT_ONCE
    paging: dict[str, Any] = {"first": start + 1, "last": min(behind, len(values)), "of": len(values)}
    paging |= {"before": max(0, start - AT_ONCE) if start else None, "behind": behind if behind < len(values) else None}
    return values[start:behind], paging


def _number(text: str, below: int) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 and int(text) < below else None


def _around(places: Sequence[int], place: int) -> dict[str, int | None]:
    """The items before and behind one, and how many there are."""
    here = bisect_left(places, place)
    stands = here < len(places) and places[here] == place
    behind = here + 1 if stands else here
    return {
        "number": here + 1 if stands else None,
        "of": len(places),
        "before": places[here - 1] if here > 0 else None,
        "behind": places[behind] if behind < len(places) else None,
        "start": here,
    }

"""Runs a task: plan, ask, score, record; and goes on where a kill left off.

plan.py  items and shots ─→ ask.py  a model ─→ the task's score ─→ records.py  log, then whole files
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from camelid.chat.llama import Llama
from camelid.errors import OptionError, first_few
from camelid.evals.ask import Asker, LlamaAsker, Reply
from camelid.evals.canary import Canary
from camelid.evals.identity import describe_code
from camelid.evals.plan import Plan, canonical, make_plan
from camelid.evals.records import Key, Log, answer_as_json, forget, read_items, read_result, read_timing, write_result
from camelid.evals.result import Result, from_record, summarise
from camelid.evals.sources import core_source, open_source
from camelid.evals.statistics import Figure, Row, figures
from camelid.evals.task import Answered, Choices, Generate, Item, Request, Task, Text, Verdict, Written
from camelid.evals.tasks import find_task
from camelid.pedigree import write_pedigree

_TELL = 1.0  # seconds between two reports of progress


@dataclass(frozen=True)
class Progress:
    """How a run stands.

    Attributes:
        done, total: items that are scored, and all.
        seconds_left: at the pace of this run; None before there is one.
        figures: over the items that are scored, by metric.
    """

    done: int
    total: int
    seconds_left: float | None
    figures: Mapping[str, Figure]


Tell = Callable[[Progress], None]


def evaluate(
    model: Llama | Asker,
    task: str | Task,
    *,
    data: str | Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    out: str | Path | None = None,
    truncate: bool = False,
    judge: Llama | Asker | None = None,
    scorer: Mapping[str, Any] | None = None,
    again: bool = False,
    progress: Tell | None = None,
) -> Result:
    """Ask a model all items of a task.

    Args:
        model: a loaded one, or whatever answers requests.
        task: a task, or its name.
        data: file, folder or archive in the published form, or hf:owner/name; left out: what `camelid pull eval:core`
            brought.
        limit: only the first so many items, in the published order.
        shots: instead of the task's own number.
        out: folder of results; this one gets a folder of its own in it. Left out: nothing is written.
        truncate: drop shots from the left where a prompt is longer than the context.
        judge: the model that judges, for tasks that need one.
        scorer: what the user chose for scorers, as `sandbox`.
        again: forget what an earlier run of the same name left.
        progress: told about once a second.

    Raises:
        OptionError: no such task or split, prompts longer than the context, or another run's result in the way.
        MissingError: no data were named, and none were pulled.
        FormatError: items of another form.
        VerifyError: an item stands in its own prompt.
        NumericsError: all scores are equal, or not finite.
    """
    task = find_task(task) if isinstance(task, str) else task
    asker, judging = _asker(model), None if judge is None else _asker(judge)
    if task.needs_judge and judging is None:
        raise OptionError(f"{task.name}: a model must judge the answers; name one with --judge", param="judge")
    source = core_source(task) if data is None else open_source(data, task.splits.items)
    plan = make_plan(task, source, limit, shots)
    folder = None if out is None else Path(out) / result_name(plan, asker)
    with task.open_scorer(scorer or {}) as opened:
        conditions = _conditions(plan, asker, judging, limit, truncate, opened.conditions)
        if folder is not None and again:
            forget(folder)
        if folder is not None and (done := _finished(folder, conditions)) is not None:
            return done
        run = _Run(plan, asker, judging, truncate, opened)
        log = Log(folder, conditions)
        try:
            run.go(log, progress)
        finally:
            log.close()
        items = [run.record(number, log) for number in range(len(plan.items))]
    metrics = summarise(task.metrics, items, task.clustered, task.categories)
    result = Result(
        task=task.name,
        model=asker.name,
        shots=plan.n_shots,
        conditions=conditions,
        items=items,
        seconds=log.seconds,
        folder=folder,
        **metrics,
    )
    if folder is not None:
        write_result(folder, items, result.as_record(), {"seconds": round(log.seconds, 3)})
        write_pedigree(folder, "eval", [], {"task": task.name, "model": asker.name}, {"items": len(items)})
    return result


def _asker(model: Llama | Asker) -> Asker:
    return LlamaAsker(model) if isinstance(model, Llama) else model


def result_name(plan: Plan, asker: Asker) -> str:
    """The folder's name: task, model, and what is not as usual."""
    parts = [plan.task.name, asker.name]
    if plan.n_shots != (plan.task.n_shots or 0):
        parts.append(f"{plan.n_shots}shots")
    if len(plan.items) < plan.n_all:
        parts.append(f"first{len(plan.items)}")
    return "--".join(re.sub(r"[^\w.@+-]+", "-", part).strip("-.") for part in parts)


def _conditions(
    plan: Plan, asker: Asker, judge: Asker | None, limit: int | None, truncate: bool, scorer: Mapping[str, Any]
) -> dict[str, Any]:
    task = plan.task
    conditions = {
        "task_version": task.version,
        "split": task.splits.items,
        "shots": plan.n_shots,
        "shots_from": task.splits.shots if plan.n_shots else None,
        "first_items": len(plan.items) if limit is not None else None,
        "items_in_all": plan.n_all,
        "chat": None,
        "decoding": None,
        "truncate": truncate,
        **task.conditions,
        **_kind(plan.request(0)),
        "scorer": dict(scorer),
        "data_sha256": plan.data_sha256,
        "model": dict(asker.describe()),
        "judge": None if judge is None else {"name": judge.name, **judge.describe()},
        "code": dict(describe_code()),
    }
    return {name: value for name, value in conditions.items() if value not in (None, {})}


def _kind(request: Request) -> dict[str, Any]:
    """What the first request says of how the model is asked."""
    if isinstance(request, Generate):
        decoding = {name: getattr(request, name) for name in ("temperature", "top_p", "n", "max_tokens", "seed")}
        if request.temperature == 0:
            decoding = {"temperature": 0, "max_tokens": request.max_tokens}
        decoding["stops"] = list(request.stops)
        return {"request": "generate", "chat": isinstance(request.prompt, tuple), "decoding": decoding}
    return {"request": "choices" if isinstance(request, Choices) else "text", "chat": False}


def _finished(folder: Path, conditions: Mapping[str, Any]) -> Result | None:
    record = read_result(folder)
    if record is None:
        return None
    differing = [
        name
        for name in sorted({*conditions, *record["conditions"]})
        if canonical(conditions.get(name)) != canonical(record["conditions"].get(name))
    ]
    if differing:
        raise OptionError(
            f"{folder}: holds a result under other conditions ({', '.join(differing)}); take another --out, or --again"
        )
    return from_record(record, read_items(folder), read_timing(folder), folder)


class _Run:
    """What is asked of whom, item by item."""

    def __init__(self, plan: Plan, asker: Asker, judge: Asker | None, truncate: bool, scorer: Any) -> None:
        self.plan, self.task, self.asker, self.judge, self.scorer = plan, plan.task, asker, judge, scorer
        self.dropped: dict[int, int] = {}
        self.too_long: set[int] = set()
        self._fit(truncate)

    def _fit(self, truncate: bool) -> None:
        """Find out which prompts are too long; drop their shots if that was asked for."""
        excess = {}
        for number in range(len(self.plan.items)):
            over = self.asker.excess(self.plan.request(number))
            if over:
                excess[number] = over
        if excess and not truncate:
            names = first_few([self.plan.items[number].id for number in excess])
            raise OptionError(
                f"{self.task.name}: {len(excess)} of {len(self.plan.items)} prompts are longer than the context of "
                f"{self.asker.name}, by up to {max(excess.values())} tokens ({names}); ask for fewer --shots, or "
                f"--truncate left drops their first shots",
                param="truncate",
            )
        for number in excess:
            counts = range(1, len(self.plan.shots[number]) + 1)
            fits = (n for n in counts if not self.asker.excess(self.plan.request(number, n)))
            if (n_dropped := next(fits, None)) is not None:
                self.dropped[number] = n_dropped
            else:
                self.too_long.add(number)

    def go(self, log: Log, progress: Tell | None) -> None:
        """Ask and score until every item has its verdict."""
        started = time.perf_counter()
        with _Scoring(self, log, _Teller(self, log, progress)) as scoring:
            for number in self.too_long - set(log.verdicts):
                scores = {metric.score: None for metric in self.task.metrics}
                scoring.done(number, Verdict(scores, notes=("prompt too long",)))
            canary = Canary(self.task.name, self.asker.name)
            asked = [number for number in range(len(self.plan.items)) if number not in self.too_long]
            for key, reply in log.replies.items():
                canary.see(key, reply)
            for kind, asker in (("turn", self.asker), ("judge", self.judge)):
                while wave := [key for number in asked for key in self._open(number, log) if key[1] == kind]:
                    assert asker is not None
                    self._ask(asker, wave, log, scoring, canary)
            for number in asked:
                if number not in log.verdicts:
                    scoring.score(number)
        canary.end()
        log.add_seconds(time.perf_counter() - started)

    def _ask(self, asker: Asker, wave: Sequence[Key], log: Log, scoring: _Scoring, canary: Canary) -> None:
        hashes: dict[int, str] = {}

        def requests() -> Iterator[tuple[Request, str]]:
            for place, key in enumerate(wave):
                request = self._request(key, log)
                hashes[place] = prompt_hash(request)
                yield request, "/".join([self.plan.items[key[0]].id, *map(str, key[1:])])

        for place, reply in asker.ask(requests()):
            key = wave[place]
            canary.see(key, reply)
            log.add_reply(key, hashes.pop(place), reply)
            if not self._open(key[0], log):
                scoring.score(key[0])

    def _open(self, number: int, log: Log) -> list[Key]:
        """Requests of an item that can be asked now."""
        if number in log.verdicts:
            return []
        if (number, "turn", 0) not in log.replies:
            return [(number, "turn", 0)]
        turns = self._turns(number, log)
        if self.task.follow(self.plan.items[number], [reply.answer for reply in turns]) is not None:
            return [(number, "turn", len(turns))]
        wanted = range(len(self._judge_requests(number, log)))
        return [key for at in wanted if (key := (number, "judge", at)) not in log.replies]

    def _request(self, key: Key, log: Log) -> Request:
        number, kind, at = key
        if kind == "judge":
            return self._judge_requests(number, log)[at]
        if at == 0:
            return self.plan.request(number, self.dropped.get(number, 0))
        request = self.task.follow(self.plan.items[number], [each.answer for each in self._turns(number, log)])
        assert request is not None
        return request

    def _judge_requests(self, number: int, log: Log) -> Sequence[Generate]:
        turns = [reply.answer for reply in self._turns(number, log)]
        return self.task.judge(self.plan.items[number], turns) if self.task.needs_judge else ()

    def _turns(self, number: int, log: Log) -> list[Reply]:
        return _in_order(number, "turn", log)

    def answered(self, number: int, log: Log) -> Answered:
        """All that an item got."""
        judged = [reply.answer for reply in _in_order(number, "judge", log)]
        assert all(isinstance(answer, Written) for answer in judged)
        turns = tuple(reply.answer for reply in self._turns(number, log))
        return Answered(turns, tuple(answer for answer in judged if isinstance(answer, Written)))

    def verdict(self, item: Item, answered: Answered) -> Verdict:
        """The task's own word."""
        return self.task.score(item, answered, self.scorer)

    def record(self, number: int, log: Log) -> dict[str, Any]:
        """The line of `items.jsonl`."""
        item, verdict = self.plan.items[number], log.verdicts[number]
        n_dropped = self.dropped.get(number, 0)
        shots = self.plan.shots[number][n_dropped:]
        turns, judged = self._turns(number, log), _in_order(number, "judge", log)
        notes = [note for reply in (*turns, *judged) for note in reply.notes]
        notes += [f"{n_dropped} shots dropped"] if n_dropped else []
        return {
            "id": item.id,
            "group": item.group,
            "fields": dict(item.fields),
            "shots": [shot.id for shot in shots],
            "turns": [_told(reply, log.prompts[number, "turn", at]) for at, reply in enumerate(turns)],
            "judged": [_told(reply, log.prompts[number, "judge", at]) for at, reply in enumerate(judged)],
            "filtered": dict(verdict.filtered),
            "scores": dict(verdict.scores),
            "notes": [*notes, *verdict.notes],
        }


def _in_order(number: int, kind: str, log: Log) -> list[Reply]:
    found: list[Reply] = []
    while (reply := log.replies.get((number, kind, len(found)))) is not None:
        found.append(reply)
    return found


def _told(reply: Reply, prompt_sha256: str) -> dict[str, Any]:
    return {
        "prompt_sha256": prompt_sha256,
        "ids_sha256": reply.ids_sha256,
        "n_prompt": reply.n_prompt,
        "answer": answer_as_json(reply.answer),
    }


def prompt_hash(request: Request) -> str:
    """SHA-256 of a prompt's text; of several contexts or of messages, of their JSON."""
    if isinstance(request, Text):
        prompt: Any = request.text
    elif isinstance(request, Choices):
        prompt = request.context
    else:
        prompt = request.prompt
    if not isinstance(prompt, str):
        parts = prompt if isinstance(prompt, tuple) else (prompt,)
        return hashlib.sha256(
            canonical([each if isinstance(each, str) else asdict(each) for each in parts])
        ).hexdigest()
    return hashlib.sha256(prompt.encode(errors="surrogatepass")).hexdigest()


class _Teller:
    """Tells how a run stands, about once a second."""

    def __init__(self, run: _Run, log: Log, progress: Tell | None) -> None:
        self._run, self._log, self._progress = run, log, progress
        self._began, self._last = len(log.verdicts), 0.0
        self._started = time.perf_counter()

    def tell(self, is_last: bool = False) -> None:
        now = time.perf_counter()
        if self._progress is None or (now - self._last < _TELL and not is_last):
            return
        self._last = now
        done, total = len(self._log.verdicts), len(self._run.plan.items)
        fresh = done - self._began
        left = (total - done) * (now - self._started) / fresh if fresh else None
        items = self._run.plan.items
        rows = [Row(items[number].group, verdict.scores) for number, verdict in self._log.verdicts.items()]
        task = self._run.task
        self._progress(Progress(done, total, left, figures(task.metrics, rows, task.clustered, interval=False)))


class _Scoring:
    """Scores items as their answers come: at once, or in threads where a scorer waits for processes."""

    def __init__(self, run: _Run, log: Log, teller: _Teller) -> None:
        self._run, self._log, self._teller = run, log, teller
        threads = run.task.scoring_threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._waiting: dict[Future[Verdict], int] = {}

    def __enter__(self) -> _Scoring:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._collect(wait=True)
                self._teller.tell(is_last=True)
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)

    def score(self, number: int) -> None:
        """An item has all its answers."""
        item, answered = self._run.plan.items[number], self._run.answered(number, self._log)
        if self._pool is None:
            self.done(number, self._run.verdict(item, answered))
            return
        self._waiting[self._pool.submit(self._run.verdict, item, answered)] = number
        self._collect(wait=False)

    def done(self, number: int, verdict: Verdict) -> None:
        """An item has its verdict."""
        self._log.add_verdict(number, verdict)
        self._teller.tell()

    def _collect(self, wait: bool) -> None:
        for future in [future for future in self._waiting if wait or future.done()]:
            self.done(self._waiting.pop(future), future.result())

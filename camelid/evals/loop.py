"""The loop of a run: what is asked next, of whom; answers are scored as they come, and logged.

A turn's requests of all items are a wave. What an answer leads to, another turn or a judge's question, is in a later
wave; with no more to ask, an item is scored.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from camelid.errors import OptionError, first_few
from camelid.evals.ask import Asker, Reply
from camelid.evals.canary import Canary
from camelid.evals.plan import Plan, canonical
from camelid.evals.records import Key, Log, answer_as_json
from camelid.evals.statistics import Figure, Row, figures
from camelid.evals.task import Answered, Choices, Generate, Item, Request, Text, Verdict, Written

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


class Run:
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

    def __init__(self, run: Run, log: Log, progress: Tell | None) -> None:
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

    def __init__(self, run: Run, log: Log, teller: _Teller) -> None:
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

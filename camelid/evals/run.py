"""Runs a task: plan, ask, score, record; and goes on where a kill left off.

plan.py  items and shots ─→ ask.py  a model ─→ the task's score ─→ records.py  log, then whole files
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from camelid.chat.llama import Llama
from camelid.errors import OptionError
from camelid.evals.ask import Asker, LlamaAsker
from camelid.evals.contamination import contamination_of, read_contamination, training_fingerprint
from camelid.evals.identity import describe_code
from camelid.evals.loop import Run, Tell
from camelid.evals.plan import Plan, canonical, make_plan
from camelid.evals.records import Log, forget, read_items, read_result, read_timing, write_result
from camelid.evals.result import Result, from_record, summarise
from camelid.evals.sources import core_source, open_source
from camelid.evals.task import Choices, Generate, Request, Task
from camelid.evals.tasks import find_task
from camelid.pedigree import write_pedigree


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
    training: str | Path | None = None,
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
        training: a run or its data folder, in which the items are looked for.
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
    if folder is not None and again:
        forget(folder)
    with task.open_scorer(scorer or {}) as opened:
        conditions = _conditions(plan, asker, judging, limit, truncate, opened.conditions)
        result = None if folder is None else _finished(folder, conditions)
        if result is None:
            run = Run(plan, asker, judging, truncate, opened)
            with Log(folder, conditions) as log:
                run.go(log, progress)
                result = _written(run, log, conditions, folder)
    return result if training is None else _looked_for(result, plan, Path(training))


def _looked_for(result: Result, plan: Plan, training: Path) -> Result:
    """The result with what of its items stands in training data; looked up once for each data."""
    known = None if result.folder is None else read_contamination(result.folder)
    if known is None or known.training != training_fingerprint(training):
        known = contamination_of(result, plan.task, plan.items, training)
    return replace(result, contamination=known)


def _written(run: Run, log: Log, conditions: Mapping[str, Any], folder: Path | None) -> Result:
    """The result of a run that is done, in its files if it has a folder."""
    task = run.task
    items = [run.record(number, log) for number in range(len(run.plan.items))]
    result = Result(
        task=task.name,
        model=run.asker.name,
        shots=run.plan.n_shots,
        conditions=conditions,
        items=items,
        seconds=log.seconds,
        folder=folder,
        **summarise(task.metrics, items, task.clustered, task.categories),
    )
    if folder is not None:
        options = {"task": task.name, "model": run.asker.name, "conditions": conditions}
        write_pedigree(folder, "eval", [], options, {"items": len(items)})
        write_result(folder, items, result.as_record(), {"seconds": round(log.seconds, 3)})
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

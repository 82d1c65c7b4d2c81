"""What tasks share whose answers are programs: a sandbox for as long as a run lasts, and pass@k."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from camelid.evals.pass_at_k import pass_at_k
from camelid.evals.sandbox import Check, Limits, Sandbox
from camelid.evals.task import Metric, Scorer, Task, Verdict

# A program has 3 s of a processor, as human-eval gives it by the clock; a busy machine then changes no verdict.
LIMITS = Limits(seconds=15.0, cpu_seconds=3)


class ProgramScorer(Scorer):
    """Runs programs with their tests."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.conditions = {"sandbox": sandbox.level, "enforced": list(sandbox.enforced)}

    def verdict(self, programs: Sequence[str], check: Check, ks: Sequence[int]) -> Verdict:
        """pass@k of an item's programs; equal ones run once.

        Returns:
            Scores `pass@k`; as `filtered` the programs and why each passed or not; a note for each that met a limit.
        """
        ran = {program: self.sandbox.run(program, check) for program in dict.fromkeys(programs)}
        passed = sum(ran[program].passed for program in programs)
        scores = {f"pass@{k}": pass_at_k(len(programs), passed, k) for k in ks if k <= len(programs)}
        reasons = [ran[program].reason for program in programs]
        notes = tuple(f"{limit} limit" for program in programs if (limit := ran[program].limit))
        return Verdict(scores, {"program": list(programs), "reason": reasons}, notes)


@contextmanager
def _opened(options: Mapping[str, Any]) -> Iterator[ProgramScorer]:
    level: Any = options.get("sandbox") or "strict"
    accepted = bool(options.get("accept_generated_code"))
    with Sandbox(level, LIMITS, accept_generated_code=accepted) as sandbox:
        yield ProgramScorer(sandbox)


class ProgramTask(Task):
    """A task whose answers are programs. `ks`: which pass@k it tells."""

    scoring_threads = 4
    ks: tuple[int, ...] = (1,)

    def __init__(self) -> None:
        self.metrics = tuple(Metric(f"pass@{k}", f"pass@{k}") for k in self.ks)

    def open_scorer(self, options: Mapping[str, Any]) -> Any:
        return _opened(options)

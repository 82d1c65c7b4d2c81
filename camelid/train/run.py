"""A run of any stage of training: lock, data, resume, record, signals and saving around the loop.

What is learned, a stage's `Objective` says; this is what `camelid train` does from its start to its end, on every rank.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tomli_w
import torch

from camelid.errors import OptionError, ResourceError
from camelid.files import size_text, whole_file, writing
from camelid.machine import available_bytes, keep_freed_memory, threads
from camelid.model.config import ModelConfig
from camelid.model.llama_torch import LlamaTorch
from camelid.recipe import Recipe
from camelid.run_layout import RECIPE
from camelid.train.adapters.adapter import adapt, base_of, begin_adapters
from camelid.train.checkpoints import store
from camelid.train.checkpoints.checkpoint import About, Checkpoints
from camelid.train.checkpoints.start import start_fingerprint
from camelid.train.cluster.preemption import Stopper, end_of_job
from camelid.train.events import Event, Saved, Started, Step, Stopped
from camelid.train.loop import State, optimise
from camelid.train.mixed_precision import Learner
from camelid.train.objective import Objective
from camelid.train.optim import make_optimizer
from camelid.train.options import RunOptions
from camelid.train.parallel import Parallel
from camelid.train.planning.devices import flops_per_token
from camelid.train.planning.flops import fusing_pays, matrix_peak
from camelid.train.planning.plan import RUNTIME_BYTES, memory_of
from camelid.train.report.metrics import MetricsWriter
from camelid.train.report.trackers import open_trackers
from camelid.train.rollouts.sampler import Sampler
from camelid.train.run_stage import RunStage
from camelid.train.stages import load_stage


def train(
    stage: RunStage, *, stop_after: int | None = None, fresh: bool = False, prepares: bool = True
) -> Iterator[Event]:
    """Train until the recipe's last step, from the newest checkpoint if there is one.

    Every rank calls this. Checkpoints are saved as the options say, and at the end of every session: of the recipe, of
    `stop_after`, or when a signal or the job's time limit asks for it.

    Args:
        stage: of the run; its data is prepared where it is missing, and its ranks are entered.
        stop_after: steps after which this session saves and ends.
        fresh: put the checkpoints aside and begin at step 0.
        prepares: make the data where it is missing, and see that it is the recipe's; else it is taken as it is.

    Returns:
        a `Started`, then a `Step` for each change and a `Saved` for each checkpoint, then a `Stopped`; nothing, if no
        step is left.

    Raises:
        OptionError: the recipe is wrong, or not the one that the checkpoint was trained with.
        MissingError, FormatError, VerifyError: the data is not there, damaged or changed; no checkpoint is whole.
        ResourceError: memory or disk do not suffice, or another process trains here.
        NumericsError: the loss, a gradient or a weight is lost; the last checkpoint is as it was.
    """
    with ExitStack() as stack:
        stage.parallel.from_first(lambda: stack.enter_context(store.holding(stage.folder)))
        kind = load_stage(stage.name)
        if prepares:
            kind.prepare(stage, stage.options(kind.Options))
        session = _Session(stage, fresh)
        yield from session.events(stack, stop_after)


class _Session:
    """What one process does from its start to its end."""

    def __init__(self, stage: RunStage, fresh: bool) -> None:
        self.parallel, self.folder, self.recipe = stage.parallel, stage.folder, stage.recipe.as_json()
        parallel = self.parallel
        _set_up(parallel)

        def open_stage() -> str:
            kind = load_stage(stage.name)
            self.objective: Objective[Any] = kind.open(stage, stage.options(kind.Options))
            _check_memory(stage.name, self.objective.config, self.objective.options, parallel)
            return self.objective.fingerprint

        check_alike(parallel.each(lambda: [self.recipe, open_stage()]))
        self.options = self.objective.options
        begins = self.objective.start
        start = None if begins is None else parallel.from_first(lambda: start_fingerprint(begins))
        about = About.of(stage.name, self.objective, self.recipe, start)
        self.checkpoints = Checkpoints(self.folder, parallel, about)
        self.sampler = Sampler(stage, self.objective)
        self.record: MetricsWriter | None = None
        self.state = self._begin(fresh)
        parallel.from_first(lambda: _write_recipe(stage.run / RECIPE, stage.recipe, stage.name, self.options))

    def events(self, stack: ExitStack, stop_after: int | None) -> Iterator[Event]:
        """Steps, saved where they must be."""
        state, parallel, steps = self.state, self.parallel, self.options.steps
        if state.step >= steps:
            return
        last = steps if stop_after is None else min(steps, state.step + stop_after)
        peak = matrix_peak(parallel.device, self.options.precision)
        fuse = self._fuses(peak)
        yield parallel.from_first(lambda: self._begin_record(stack, peak, fuse))
        learner = Learner(state.model, self.options, parallel, fuse)
        verifier = self.objective.verifier(parallel.rank, parallel.n_ranks)
        parallel.each(lambda: stack.enter_context(verifier) and None)
        stopper = stack.enter_context(Stopper(parallel, end_of_job(os.environ)))
        sampler = self.sampler
        if not state.step:
            sampler.after(0, state.model)
        lost = None
        for step in optimise(state, learner, self.objective, parallel, peak):
            lost = self._write(step) or lost
            if lost is not None:
                stopper.ask("metrics cannot be written")
            if verifier.found:
                stopper.ask("the data is damaged")
            yield step
            sampler.after(state.step, state.model)
            asked = stopper.due(self.checkpoints.expected_seconds(state.model))
            whole = self.objective.whole(state.step) or state.step >= steps
            ends = whole and (asked or state.step >= last)
            if ends or (whole and self._saves_after(state.step)):
                parallel.each(verifier.check)
                yield self._save()
                stopper.saved()
            if ends and lost is not None:  # on rank 0 only, but all have saved and end
                raise lost
            if ends:
                break
        yield self._stop(None if state.step >= steps else stopper.reason)

    def _saves_after(self, step: int) -> bool:
        return bool(self.options.save_every) and step % self.options.save_every == 0

    def _write(self, step: Step) -> ResourceError | None:
        """Put a step on record; what is wrong if that cannot be: other ranks must not wait, so all save first."""
        try:
            if self.record is not None:
                self.record.write(step)
        except ResourceError as error:
            return error
        return None

    def _begin(self, fresh: bool) -> State:
        """The newest checkpoint's state, or a new model's."""
        model = self.objective.model()
        adapt(model, self.options, self.parallel)
        model = self.parallel.shard(model, self.options.precision)
        state = State(model, make_optimizer(model, self.options))
        checkpoint = self.checkpoints.latest(fresh)
        if checkpoint is None:
            torch.manual_seed(_own_seed(self.objective.seed, self.folder.name, self.parallel.rank))
        if checkpoint is None or model.adapters is not None:  # of these a checkpoint has what learns alone
            self._first_numbers(model)
        if checkpoint is not None:
            self.checkpoints.restore(checkpoint, model, state.optimizer)
            state.step, state.tokens = checkpoint.step, checkpoint.tokens
        return state

    def _first_numbers(self, model: LlamaTorch) -> None:
        if model.adapters is None:
            self.objective.initialise(model)
            return
        start = self.objective.start
        self.objective.start = base = base_of(start)  # of an adapter, what it lies beside
        self.objective.initialise(model)
        self.objective.start = start
        begin_adapters(model, start or base, self.objective.seed, self.recipe.get("base"))

    def _fuses(self, peak: float | None) -> bool:
        """As the recipe says; else as the run began, so that a pause changes no bit; else if it pays."""
        fuse = self.options.compile
        if fuse is None:
            fuse = self.checkpoints.notes.get("compiled")
        if fuse is None:
            fuse = self.parallel.everyone(self._fusing_pays(peak))[0]  # each measures; rank 0 decides
        self.checkpoints.notes["compiled"] = fuse
        return fuse

    def _fusing_pays(self, peak: float | None) -> bool:
        left = (self.options.steps - self.state.step) * self.options.batch_tokens
        flops = flops_per_token(self.objective.config, self.options.context) * left
        return fusing_pays(self.parallel.device, flops / self.parallel.n_ranks, peak)

    def _begin_record(self, stack: ExitStack, peak: float | None, fuse: bool) -> Started:
        device = self.parallel.device
        about = {
            "parameters": self.objective.config.n_parameters,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "ranks": self.parallel.n_ranks,
            "threads": torch.get_num_threads(),
            "compiled": fuse,
            "peak_flops": peak,
            **self.objective.about(),
        }
        step, steps = self.state.step, self.options.steps
        trackers = open_trackers(self.options.log_to, self.folder, step, {**self.recipe, **about})
        self.record = stack.enter_context(MetricsWriter(self.folder, steps, step, trackers, **about))
        return Started(step, steps, about)

    def _save(self) -> Saved:
        state = self.state
        path = self.checkpoints.save(state.step, state.tokens, state.model, state.optimizer)
        if self.record is not None:
            self.record.event("save", step=state.step, folder=path.name, seconds=self.checkpoints.seconds)
        return Saved(state.step, path.name, self.checkpoints.seconds)

    def _stop(self, reason: str | None) -> Stopped:
        step, done = self.state.step, self.state.step >= self.options.steps
        if self.record is not None:
            self.record.event("done", step=step) if done else self.record.event("stop", step=step, reason=reason)
        return Stopped(step, done, reason)


def _own_seed(seed: int, stage: str, rank: int) -> int:
    """Of torch's generators where a stage begins, so that it draws the same after another stage as alone."""
    return zlib.crc32(f"{seed} {stage} {rank}".encode())


def check_alike(starts: list[Any]) -> None:
    """Refuse ranks that would train together on different recipes or data.

    Args:
        starts: by rank, the recipe as JSON and the data's fingerprint.
    """
    for rank, (recipe, _) in enumerate(starts):
        if starts[rank] != starts[0]:
            what = "recipe" if recipe != starts[0][0] else "data folder"
            raise OptionError(f"process {rank} has another {what} than process 0; let all read the same files")


def _set_up(parallel: Parallel) -> None:
    """Threads that help, and memory that stays."""
    if parallel.device.type == "cpu":
        keep_freed_memory()
        torch.set_num_threads(min(torch.get_num_threads(), threads()[0]))


def _check_memory(stage: str, config: ModelConfig, options: RunOptions, parallel: Parallel) -> None:
    """Refuse before anything is allocated."""
    if parallel.device.type != "cpu":
        return
    rows = options.rows_at_once(parallel.data_ranks, gpu=False)
    need = memory_of(config, options.with_(micro_rows=rows), parallel.n_ranks, stage).total - RUNTIME_BYTES
    free = available_bytes()
    if need > free:
        raise ResourceError(
            f"needs about {size_text(need)} of memory, {size_text(free)} free; "
            f"try --set {stage}.micro_rows=1, --set {stage}.recompute=true, or a smaller model"
        )


def _write_recipe(path: Path, recipe: Recipe, stage: str, options: RunOptions) -> None:
    """The recipe as it is trained: all of this stage's options, the rest as it was given."""
    text = to_toml({**recipe.as_json(), stage: options.model_dump(mode="json")})
    with writing(path), whole_file(path) as file:
        file.write(text.encode())


def to_toml(values: dict[str, Any]) -> str:
    """Text that `tomllib` reads as the same values; what is None is left out, for TOML has no word for it."""
    return tomli_w.dumps(_without_none(values))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(inner) for name, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list | tuple) else value

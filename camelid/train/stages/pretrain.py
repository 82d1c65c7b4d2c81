"""Pretraining: prepared data and a recipe become a model, and a folder with everything that happened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from camelid.data.batches import Batches
from camelid.data.manifest import NAME as MANIFEST
from camelid.data.shards import FOLDER
from camelid.data.verifying import Verifier
from camelid.errors import OptionError, ResourceError
from camelid.files import whole_file, writing
from camelid.machine import available_bytes, keep_freed_memory, threads
from camelid.model.config import ModelConfig
from camelid.model.llama_torch import LlamaTorch
from camelid.model.options import ModelOptions
from camelid.recipe import Recipe
from camelid.run_layout import DATA, RECIPE
from camelid.train import checkpoint_store
from camelid.train.checkpoint import About, Checkpoints
from camelid.train.cluster.preemption import Stopper, end_of_job
from camelid.train.devices import flops_per_token
from camelid.train.flops import fusing_pays, matrix_peak
from camelid.train.init import initialise
from camelid.train.loop import State, micro_rows, optimise
from camelid.train.mixed_precision import Working
from camelid.train.optim import make_optimizer
from camelid.train.options import PretrainOptions
from camelid.train.parallel import Parallel
from camelid.train.plan import RUNTIME_BYTES, memory_of
from camelid.train.report.metrics import Record
from camelid.train.report.trackers import open_trackers
from camelid.train.step import Step
from camelid.train.toml import to_toml

STAGE = "pretrain"
Tell = Callable[[str, dict[str, Any]], None]
"""What happened ("start", "save", "stop", "done") and what is known of it; the same words are kept in metrics.jsonl."""


def pretrain(
    recipe: Recipe,
    run: Path,
    parallel: Parallel,
    *,
    stop_after: int | None = None,
    fresh: bool = False,
    tell: Tell | None = None,
) -> Iterator[Step]:
    """Train until the recipe's last step, from the newest checkpoint if there is one; one `Step` for each change.

    Every rank calls this. Checkpoints are saved as the options say, and at the end of every sitting: of the recipe, of
    `stop_after`, or when a signal or the job's time limit asks for it.

    Args:
        recipe: its tables `model` and `pretrain`.
        run: the run's folder, as runs/tiny, with its data in `data`.
        parallel: the ranks, entered.
        stop_after: steps after which this sitting saves and ends.
        fresh: put the checkpoints aside and begin at step 0.
        tell: is told of other things than steps; of "start" on rank 0 only.

    Raises:
        OptionError: the recipe is wrong, or not the one that the checkpoint was trained with.
        MissingError, FormatError, VerifyError: the data is not there, damaged or changed; no checkpoint is whole.
        ResourceError: memory or disk do not suffice, or another process trains here.
        NumericsError: the loss, a gradient or a weight is lost; the last checkpoint is as it was.
    """
    with ExitStack() as stack:
        parallel.from_first(lambda: _hold(stack, run / STAGE))
        sitting = _Sitting(recipe, run, parallel, tell or _nobody, fresh)
        yield from sitting.steps(stack, stop_after)


class _Sitting:
    """What one process does from its start to its end."""

    def __init__(self, recipe: Recipe, run: Path, parallel: Parallel, tell: Tell, fresh: bool) -> None:
        self.parallel, self.folder, self.tell = parallel, run / STAGE, tell
        self.recipe = recipe.as_json()
        self.options = recipe.table("pretrain", PretrainOptions)
        _set_up(parallel)
        check_alike(parallel.each(lambda: [self.recipe, self._open(recipe, run / DATA)]))
        made_from = (self.batches.fingerprint(), recipe.seed, self.batches.tokenizer, self.recipe)
        about = About(self.options, *made_from, (run / DATA / MANIFEST,))
        self.checkpoints = Checkpoints(self.folder, parallel, about)
        self.record: Record | None = None
        self.state = self._begin(recipe.seed, fresh)
        parallel.from_first(lambda: _write_recipe(run / RECIPE, recipe, self.options))

    def _open(self, recipe: Recipe, data: Path) -> str:
        """Batches, their tokenizer and the model's shape; returns the data's fingerprint."""
        options, parallel = self.options, self.parallel
        each = micro_rows(options, parallel)
        self.batches = Batches(data, options.context, options.rows, recipe.seed)
        apart = Batches(data, options.context, each * parallel.data_ranks, recipe.seed, validation=True)
        self.validation = apart if apart.n_rows else None
        self.config = recipe.table("model", ModelOptions).config(self.batches.tokenizer.vocab_size, options.context)
        _check_memory(self.config, options.with_(micro_rows=each), parallel)
        return self.batches.fingerprint()

    def steps(self, stack: ExitStack, stop_after: int | None) -> Iterator[Step]:
        """Steps, saved where they must be."""
        options, state, parallel = self.options, self.state, self.parallel
        if state.step >= options.steps:
            return
        last = options.steps if stop_after is None else min(options.steps, state.step + stop_after)
        peak = matrix_peak(parallel.device, options.precision)
        fuse = self._fuses(peak)
        parallel.from_first(lambda: self._begin_record(stack, peak, fuse))
        working = Working(state.model, options, parallel, fuse)
        verifier = self._verifier()
        parallel.each(lambda: stack.enter_context(verifier) and None)
        stopper = stack.enter_context(Stopper(parallel, end_of_job(os.environ)))
        for step in optimise(state, working, self.batches, options, parallel, self.validation, peak):
            lost = self._write(step)
            if lost is not None:
                stopper.ask("metrics cannot be written")
            if verifier.found:
                stopper.ask("the data is damaged")
            yield step
            asked = stopper.due(self.checkpoints.expected_seconds(state.model))
            ends = asked or state.step >= last
            if ends or (options.save_every and state.step % options.save_every == 0):
                parallel.each(verifier.check)
                self._save()
                stopper.saved()
            if lost is not None:  # on rank 0 only, but all have saved and end
                raise lost
            if ends:
                break
        done = state.step >= options.steps
        self._happened("done" if done else "stop", step=state.step, **({} if done else {"reason": stopper.reason}))

    def _verifier(self) -> Verifier:
        """Of this rank's share of all shards."""
        mine = self.batches.manifest.shards[self.parallel.rank :: self.parallel.n_ranks]
        return Verifier(self.batches.data / FOLDER, mine)

    def _write(self, step: Step) -> ResourceError | None:
        """Put a step on record; what is wrong if that cannot be: other ranks must not wait, so all save first."""
        try:
            if self.record is not None:
                self.record.write(step)
        except ResourceError as error:
            return error
        return None

    def _begin(self, seed: int, fresh: bool) -> State:
        """The newest checkpoint's state, or a new model's."""
        with torch.device("meta"):
            model = LlamaTorch(self.config, self.options.context)
        model = self.parallel.shard(model, self.options.precision)
        state = State(model, make_optimizer(model, self.options))
        checkpoint = self.checkpoints.latest(fresh)
        if checkpoint is None:
            initialise(model, seed)
        else:
            self.checkpoints.restore(checkpoint, model, state.optimizer)
            state.step, state.tokens = checkpoint.step, checkpoint.tokens
        return state

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
        flops = flops_per_token(self.config, self.options.context) * left
        return fusing_pays(self.parallel.device, flops / self.parallel.n_ranks, peak)

    def _begin_record(self, stack: ExitStack, peak: float | None, fuse: bool) -> None:
        device = self.parallel.device
        about = {
            "parameters": self.config.n_parameters,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "ranks": self.parallel.n_ranks,
            "threads": torch.get_num_threads(),
            "compiled": fuse,
            "peak_flops": peak,
        }
        about["unigram_entropy"] = unigram_entropy(self.batches)
        self.tell("start", {"step": self.state.step, "steps": self.options.steps, **about})
        trackers = open_trackers(self.options.log_to, self.folder, self.state.step, {**self.recipe, **about})
        self.record = stack.enter_context(Record(self.folder, self.options.steps, self.state.step, trackers, **about))

    def _save(self) -> None:
        state = self.state
        path = self.checkpoints.save(state.step, state.tokens, state.model, state.optimizer)
        self._happened("save", step=state.step, folder=path.name, seconds=self.checkpoints.seconds)

    def _happened(self, event: str, **about: Any) -> None:
        if self.record is not None:
            self.record.event(event, **about)
        self.tell(event, about)


def unigram_entropy(batches: Batches, most: int = 10_000_000) -> float:
    """Nats per token of a model that knows how frequent tokens are, and nothing else; of `most` tokens of a source,
    weighted as in training."""
    manifest = batches.manifest
    frequencies, weights = np.zeros(manifest.vocab_size), sum(source.weight for source in manifest.sources)
    for source in manifest.sources:
        tokens = manifest.tokens(batches.data, source.name, batches.validation)
        counts = np.bincount(tokens.slice(0, min(len(tokens), most)), minlength=manifest.vocab_size)
        frequencies += counts / max(1, counts.sum()) * source.weight / weights
    seen = frequencies[frequencies > 0]
    return float(-(seen * np.log(seen)).sum())


def _hold(stack: ExitStack, folder: Path) -> None:
    stack.enter_context(checkpoint_store.holding(folder))


def check_alike(told: list[Any]) -> None:
    """Refuse ranks that would train together on different recipes or data.

    Args:
        told: by rank, the recipe as JSON and the data's fingerprint.
    """
    for rank, one in enumerate(told):
        if one != told[0]:
            what = "recipe" if one[0] != told[0][0] else "data folder"
            raise OptionError(f"process {rank} has another {what} than process 0; let all read the same files")


def _set_up(parallel: Parallel) -> None:
    """Threads that help, and memory that stays."""
    if parallel.device.type == "cpu":
        keep_freed_memory()
        torch.set_num_threads(min(torch.get_num_threads(), threads()[0]))


def _check_memory(config: ModelConfig, options: PretrainOptions, parallel: Parallel) -> None:
    """Refuse before anything is allocated."""
    if parallel.device.type != "cpu":
        return
    need = memory_of(config, options, parallel.n_ranks).total - RUNTIME_BYTES
    free = available_bytes()
    if need > free:
        raise ResourceError(
            f"needs about {need / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB free; "
            "try --set pretrain.micro_rows=1, --set pretrain.recompute=true, or a smaller model"
        )


def _write_recipe(path: Path, recipe: Recipe, options: PretrainOptions) -> None:
    """The recipe as it is trained: all of this stage's options, the rest as it was given."""
    text = to_toml({**recipe.as_json(), STAGE: options.model_dump(mode="json")})
    with writing(path), whole_file(path) as file:
        file.write(text.encode())


def _nobody(event: str, about: dict[str, Any]) -> None:
    return

"""Checkpoints: a model folder that anyone can open, and beside the model all that training needs to go on.

A save is one piece, whenever it is killed: everything is written in a hidden folder, seen on the disk, hashed, and only
then takes its name. State is written by torch.distributed.checkpoint: each rank writes its shards, and any other
number of ranks can read them.
"""

from __future__ import annotations

import errno
import functools
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.optim import Optimizer

from camelid.errors import MissingError, NumericsError, VerifyError
from camelid.files import cannot_write, check_space
from camelid.model.config import ModelConfig, tensor_shapes
from camelid.model.llama_torch import LlamaTorch
from camelid.pedigree import write_pedigree
from camelid.train.adapters.adapter import write_adapters
from camelid.train.checkpoints import store
from camelid.train.checkpoints.resume import as_json, check_same
from camelid.train.objective import Objective
from camelid.train.options import RunOptions
from camelid.train.parallel import Parallel, held
from camelid.train.runs import Checkpoint
from camelid.weights.formats.hf_write import write_beside, write_hf
from camelid.weights.quants import QUANTS, quantise_rows
from camelid.weights.tensor import Tensor
from camelid.weights.weights import Weights

if TYPE_CHECKING:
    from camelid.tokens.tokenizer import Tokenizer

T = TypeVar("T")

log = logging.getLogger(__name__)

_KINDS = {"bf16": "BF16", "fp32": "F32"}
_STATE_BYTES = 12  # of a parameter: float32 value and two averages
_FOR_FILES_BESIDE = 16_000_000
_FIRST_GUESS = 100e6  # bytes a second, before a save was measured


@dataclass(frozen=True)
class About:
    """What a run is made from; kept in each checkpoint, and compared when it goes on.

    Attributes:
        stage: its name.
        options: of the stage.
        data: fingerprint of its batches.
        seed: of the run.
        tokenizer: goes into each checkpoint.
        recipe: as JSON, for run.json.
        inputs: files that run.json names with their hashes, as the data's manifest.
        start: fingerprint of the model that it began from; None: from random numbers.
        written_as: the model whose files a checkpoint resembles; None: it has a tokenizer alone.
    """

    stage: str
    options: RunOptions
    data: str
    seed: int
    tokenizer: Tokenizer
    recipe: Mapping[str, Any]
    inputs: tuple[Path, ...] = ()
    start: str | None = None
    written_as: Weights | None = None

    @classmethod
    def of(cls, stage: str, objective: Objective[Any], recipe: Mapping[str, Any], start: str | None = None) -> Self:
        """What a stage of this name says of itself; `start` is the fingerprint of the model that it began from."""
        made_from = (objective.fingerprint, objective.seed, objective.tokenizer, recipe)
        return cls(stage, objective.options, *made_from, objective.inputs, start, objective.written_as())


class Checkpoints:
    """The checkpoints of one stage of a run. Every rank makes one, and calls every method together with the others.

    Args:
        folder: of the stage, as runs/tiny/pretrain; made if it is not there.
        parallel: the ranks.
        about: what the run is made from.
        phase: called before each part of a save: "model NAME", "state",
            "hash", "record", "appear", "link", "keep", "done".

    Attributes:
        seconds: how long the last save took; None before the first.
        notes: JSON values that each checkpoint keeps and `restore` brings back: what was decided at the beginning.
    """

    def __init__(
        self, folder: Path, parallel: Parallel, about: About, phase: Callable[[str], None] | None = None
    ) -> None:
        self.folder, self._parallel, self._about = folder, parallel, about
        self._phase = phase or (lambda name: None)
        self.seconds: float | None = None
        self.notes: dict[str, Any] = {}
        if parallel.is_main:
            folder.mkdir(parents=True, exist_ok=True)

    def latest(self, fresh: bool = False) -> Checkpoint | None:
        """The newest checkpoint whose files are what they were; None where there is none at all.

        Newer ones that are damaged are put aside, with a warning. What killed saves have left is removed. Reads every
        byte of what it looks at, each rank its share.

        Args:
            fresh: put all aside, and begin at step 0.

        Raises:
            VerifyError: there are checkpoints, and all are damaged.
            UnsupportedError: a later camelid wrote one.
        """
        good, damaged = self._together(lambda: self._look(fresh))
        for checkpoint in good:
            problem = self._problem(checkpoint.path)
            if problem is None:
                self._together(functools.partial(self._settle, checkpoint.name, damaged))
                return checkpoint
            damaged[checkpoint.name] = problem
        if damaged:
            problems = "; ".join(f"{name}: {problem}" for name, problem in damaged.items())
            raise VerifyError(
                f"{self.folder}: no checkpoint can be trusted ({problems}); put one back from a copy, "
                "or start again at step 0 with --fresh"
            )
        return None

    def restore(self, checkpoint: Checkpoint, model: LlamaTorch, optimizer: Optimizer) -> None:
        """Put a checkpoint's numbers into a sharded model and its optimiser, and set the random generators.

        Raises:
            OptionError: it was made from other data, with another model or with other options.
        """
        record, about = store.read_record(checkpoint.path), self._about
        check_same(
            checkpoint.path, record, about.stage, about.options, model.config, about.data, about.seed, about.start
        )
        self.seconds, self.notes = float(record["seconds"]), dict(record["notes"])
        place = checkpoint.path / store.STATE
        kinds = dcp.FileSystemReader(place).read_metadata().state_dict_metadata
        state: dict[str, Any] = {}
        for name, parameter in kept_of(model):
            state[f"model.{name}"] = parameter.detach()
            own = f"optimizer.{name}."
            for key in (key for key in kinds if key.startswith(own)):
                alike = kinds[key].size == parameter.shape
                values = torch.zeros_like(parameter) if alike else torch.zeros(kinds[key].size)
                state[key] = optimizer.state[parameter][key.removeprefix(own)] = values.detach()
        random = {key: value for key, value in self._random().items() if key in kinds}
        with _quietly():
            dcp.load({**state, **random}, checkpoint_id=place, no_dist=self._parallel.n_ranks == 1)
        for key, value in random.items():
            (torch.cuda.set_rng_state if ".cuda." in key else torch.set_rng_state)(value)

    def save(self, step: int, tokens: int, model: LlamaTorch, optimizer: Optimizer) -> Path:
        """Write the state after `step`, in which `tokens` have been read; then older ones go as the options say.

        Raises:
            NumericsError: a weight or an average of the optimiser is not finite. Nothing is written.
            ResourceError: the disk has not enough room, or cannot be written. Nothing of it stays.
        """
        begin = time.monotonic()
        name = store.folder_name(step, tokens)
        if self._problem(self.folder / name) is None:
            return self.folder / name  # never take away what may be the only one
        self._parallel.each(lambda: self._check_finite(step, model, optimizer))
        try:
            record = self._write(name, step, tokens, model, optimizer)
            record["seconds"] = round(time.monotonic() - begin, 3)
            self._parallel.from_first(lambda: self._finish(name, step, record))
        except OSError as error:
            if self._parallel.is_main:
                store.sweep(self.folder)
            raise cannot_write(self.folder, error) from None
        self.seconds = max(self._parallel.everyone(time.monotonic() - begin))
        return self.folder / name

    def expected_seconds(self, model: LlamaTorch) -> float:
        """How long the next save will take: as long as the last one; before the first, at 100 MB/s."""
        if self.seconds is not None:
            return self.seconds
        return 1 + self._bytes(model) / _FIRST_GUESS / self._parallel.n_ranks

    def _look(self, fresh: bool) -> tuple[list[Checkpoint], dict[str, str]]:
        store.sweep(self.folder)
        if fresh:
            store.begin_anew(self.folder)
        return store.candidates(self.folder)

    def _settle(self, good: str, damaged: Mapping[str, str]) -> None:
        """Go on from a good checkpoint."""
        for name, problem in damaged.items():
            log.warning("%s: damaged (%s); it is passed over", self.folder / name, problem)
        store.put_aside(self.folder, damaged)
        store.link(self.folder, good)

    def _problem(self, checkpoint: Path) -> str | None:
        """What is wrong with its files, all ranks' shares together; None if nothing is."""
        files = self._parallel.everyone(store.read_files(checkpoint) if self._parallel.is_main else {})[0]
        mine = sorted(files)[self._parallel.rank :: self._parallel.n_ranks]
        problem = store.damage(checkpoint, {name: files[name] for name in mine})
        problems = [said for said in self._parallel.everyone(problem) if said]
        return next(iter(problems), None if files else f"{store.NAME} is missing or damaged")

    def _check_finite(self, step: int, model: LlamaTorch, optimizer: Optimizer) -> None:
        """Refuse to save ruined numbers as if they were good; this rank's share, and as it is stored."""
        stored = torch.bfloat16 if self._about.options.precision == "bf16" else torch.float32
        for name, value in self._state(model, optimizer).items():
            if name.startswith("random."):
                continue
            local, _ = held(value)
            if not torch.isfinite(local.to(stored) if name.startswith("model.") else local).all():
                raise NumericsError(
                    f"step {step}: {name} is not finite any more; nothing is saved: go on from the last checkpoint, "
                    "or begin again, with a lower learning rate"
                )

    def _write(self, name: str, step: int, tokens: int, model: LlamaTorch, optimizer: Optimizer) -> dict[str, Any]:
        """Write all files but checkpoint.json in the hidden folder; returns what that will say."""
        parallel, partial = self._parallel, store.saving(self.folder, name)
        parallel.from_first(lambda: self._begin(partial, model))
        parallel.rest(model)
        write = self._write_model if model.adapters is None else self._write_adapter
        parallel.each(lambda: write(partial, model))
        self._phase("state")
        parallel.each(lambda: self._write_state(partial, model, optimizer))
        parallel.from_first(lambda: self._write_pedigree(partial, step, tokens))
        self._phase("hash")
        names = parallel.from_first(lambda: store.files_of(partial))
        described = parallel.each(lambda: store.describe(partial, names[parallel.rank :: parallel.n_ranks]))
        files = {name: row for part in described for name, row in part.items()}
        return self._record(model, step, tokens) | {"files": {name: files[name] for name in sorted(files)}}

    def _begin(self, partial: Path, model: LlamaTorch) -> None:
        store.sweep(self.folder)
        check_space(self.folder, self._bytes(model))
        partial.parent.mkdir()

    def _bytes(self, model: LlamaTorch) -> int:
        stored = QUANTS[_KINDS[self._about.options.precision]].bytes_per_block
        if model.adapters is not None:
            return sum(parameter.numel() for _, parameter in kept_of(model)) * (4 + _STATE_BYTES) + _FOR_FILES_BESIDE
        return model.config.n_parameters * (stored + _STATE_BYTES) + _FOR_FILES_BESIDE

    def _write_model(self, partial: Path, model: LlamaTorch) -> None:
        """The folder as transformers and camelid open it; one tensor is whole at a time, on every rank."""
        parameters = {name.removesuffix(".weight"): value for name, value in model.named_parameters()}
        left = list(tensor_shapes(model.config))
        kind = _KINDS[self._about.options.precision]

        def tensor(name: str) -> Tensor:
            def read() -> Any:
                self._phase(f"model {name}")
                left.remove(name)
                array = self._parallel.whole(parameters[name]).cpu().numpy()
                return quantise_rows(QUANTS[kind], array.reshape(-1, array.shape[-1]))

            return Tensor(name, tuple(parameters[name].shape), kind, read)

        try:
            if self._parallel.is_main:
                tensors = {name: tensor(name) for name in left}
                write_hf(partial, self._as_model(partial, model.config, tensors), kind, 1, None)
        finally:  # all of them on the other ranks; after an error the rest, for which the others wait
            for name in left:
                self._parallel.whole(parameters[name])

    def _write_adapter(self, partial: Path, model: LlamaTorch) -> None:
        """What was learned beside the base, as PEFT and camelid open it, with the files beside a model's weights."""
        whole = {name: self._parallel.whole(parameter) for name, parameter in kept_of(model)}
        if self._parallel.is_main:
            self._phase("model adapter")
            write_beside(partial, self._as_model(partial, model.config, {}))
            write_adapters(partial, model, whole)

    def _as_model(self, partial: Path, config: ModelConfig, tensors: Mapping[str, Tensor]) -> Weights:
        """These numbers with all that is written beside them: files as they are where the model began from a Hugging
        Face folder."""
        tokenizer, old = self._about.tokenizer, self._about.written_as
        if old is None:
            return Weights(partial, "hf", config, tensors, load_tokenizer=lambda: tokenizer)
        if old.format == "hf" and old.files and old.config == config:
            if not old.path.is_dir():
                raise MissingError(f"{old.path}: gone, and this stage began from it; put it back")
            return replace(old, config=config, tensors=tensors)
        new = replace(old, path=partial, format="hf", metadata={}, files=())
        return replace(new, config=config, tensors=tensors, load_tokenizer=lambda: tokenizer)

    def _write_state(self, partial: Path, model: LlamaTorch, optimizer: Optimizer) -> None:
        """What training goes on from, each rank its shards.

        Raises:
            OSError: a rank could not write.
        """
        try:
            with _quietly():
                alone = self._parallel.n_ranks == 1
                dcp.save(self._state(model, optimizer), checkpoint_id=partial / store.STATE, no_dist=alone)
        except (RuntimeError, CheckpointException) as error:
            raise _write_error(error) from None

    def _state(self, model: LlamaTorch, optimizer: Optimizer) -> dict[str, Any]:
        state: dict[str, Any] = self._random()
        for name, parameter in kept_of(model):
            state[f"model.{name}"] = parameter.detach()
            for key, value in optimizer.state[parameter].items():
                state[f"optimizer.{name}.{key}"] = value
        return state

    def _random(self) -> dict[str, Any]:
        """This rank's generators."""
        rank = self._parallel.rank
        states = {f"random.cpu.{rank}": torch.get_rng_state()}
        if self._parallel.device.type == "cuda":
            states[f"random.cuda.{rank}"] = torch.cuda.get_rng_state()
        return states

    def _write_pedigree(self, partial: Path, step: int, tokens: int) -> None:
        counts = {"step": step, "tokens": tokens, "ranks": self._parallel.n_ranks}
        write_pedigree(partial, "train", self._about.inputs, self._about.recipe, counts)

    def _record(self, model: LlamaTorch, step: int, tokens: int) -> dict[str, Any]:
        return {
            "step": step,
            "tokens": tokens,
            "options": self._about.options.model_dump(mode="json"),
            "model": as_json(model.config),
            "data": self._about.data,
            "start": self._about.start,
            "seed": self._about.seed,
            "notes": self.notes,
            "ranks": self._parallel.n_ranks,
            "torch": torch.__version__,
        }

    def _finish(self, name: str, step: int, record: Mapping[str, Any]) -> None:
        self._phase("record")
        store.write_record(store.saving(self.folder, name), record)
        self._phase("appear")
        store.appear(self.folder, name)
        self._phase("link")
        store.link(self.folder, name)
        self._phase("keep")
        store.keep(self.folder, step, self._about.options.keep_last, self._about.options.keep_every)
        self._phase("done")

    def _together(self, work: Callable[[], T]) -> T:
        """Rank 0 does it; if it fails, every rank says so and none waits."""
        try:
            return self._parallel.from_first(work)
        except OSError as error:
            raise cannot_write(self.folder, error) from None


def kept_of(model: LlamaTorch) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The parameters that a state holds: all of them; of a model with adapters those that learn."""
    named = model.named_parameters()
    return ((name, each) for name, each in named if model.adapters is None or each.requires_grad)


def _write_error(error: BaseException) -> OSError:
    """What the system said when torch could not write a file: torch wraps it, or says it in its own words."""
    failures = [failure for failure, _ in error.failures.values()] if isinstance(error, CheckpointException) else []
    seen: BaseException | None
    for seen in (error, *failures):
        while seen is not None:
            if isinstance(seen, OSError):
                return seen
            seen = seen.__cause__ or seen.__context__
    return OSError(errno.EIO, " ".join(str((failures or [error])[0]).split())[:200])


@contextmanager
def _quietly() -> Iterator[None]:
    """torch says of each save that one process is one process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""Checkpoints: a model folder that anyone can open, and beside the model all that training needs to go on.

A save is one piece, whenever it is killed: everything is written in a hidden folder, seen on the disk, hashed, and only
then takes its name. State is written by torch.distributed.checkpoint: each rank writes its shards, and any other
number of ranks can read them.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed.checkpoint as dcp
from torch.optim import Optimizer

from camelid.errors import CamelidError, ResourceError
from camelid.model.config import tensor_shapes
from camelid.model.llama_torch import LlamaTorch
from camelid.pedigree import write_pedigree
from camelid.train import kept
from camelid.train.options import PretrainOptions
from camelid.train.parallel import Parallel
from camelid.train.resume import as_json, check_same
from camelid.train.runs import Checkpoint
from camelid.weights.hf_write import write_hf
from camelid.weights.quants import QUANTS, quantise_rows
from camelid.weights.tensor import Tensor
from camelid.weights.weights import Weights
from camelid.weights.writing import check_space

if TYPE_CHECKING:
    from camelid.tokens.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_KINDS = {"bf16": "BF16", "fp32": "F32"}
_STATE_BYTES = 12  # of a parameter: float32 value and two averages
_FOR_FILES_BESIDE = 16_000_000
_FIRST_GUESS = 100e6  # bytes a second, before a save was measured


@dataclass(frozen=True)
class About:
    """What a run is made from; kept in each checkpoint, and compared when it goes on.

    Attributes:
        options: of the stage.
        data: fingerprint of its batches.
        seed: of the run.
        tokenizer: goes into each checkpoint.
        recipe: as JSON, for run.json.
        inputs: files that run.json names with their hashes, as the data's manifest.
    """

    options: PretrainOptions
    data: str
    seed: int
    tokenizer: Tokenizer
    recipe: Mapping[str, Any]
    inputs: tuple[Path, ...] = ()


class Checkpoints:
    """The checkpoints of one stage of a run. Every rank makes one, and calls every method together with the others.

    Args:
        folder: of the stage, as runs/tiny/pretrain; made if it is not there.
        parallel: the ranks.
        about: what the run is made from.
        phase: told what a save does next: "model NAME", "state", "hash", "record", "appear", "link", "keep", "done".

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

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint whose files are what they were; a warning tells of each that is damaged.

        What killed saves have left is removed. Reads every byte, each rank its share.
        """
        if self._parallel.is_main:
            kept.sweep(self.folder)
        found = self._parallel.everyone(kept.candidates(self.folder) if self._parallel.is_main else [])[0]
        for checkpoint in found:
            if self._is_good(checkpoint.path):
                if self._parallel.is_main:
                    kept.link(self.folder, checkpoint.name)
                return checkpoint
        return None

    def restore(self, checkpoint: Checkpoint, model: LlamaTorch, optimizer: Optimizer) -> None:
        """Put a checkpoint's numbers into a sharded model and its optimiser, and set the random generators.

        Raises:
            OptionError: it was made from other data, with another model or with other options.
        """
        record, about = kept.read_record(checkpoint.path), self._about
        check_same(checkpoint.path, record, about.options, model.config, about.data, about.seed)
        self.seconds, self.notes = float(record["seconds"]), dict(record["notes"])
        place = checkpoint.path / kept.STATE
        kinds = dcp.FileSystemReader(place).read_metadata().state_dict_metadata
        state: dict[str, Any] = {}
        for name, parameter in model.named_parameters():
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
            ResourceError: the disk has not enough room, or cannot be written.
        """
        begin = time.monotonic()
        name = kept.folder_name(step, tokens)
        if self._is_good(self.folder / name):  # never take away what may be the only one
            return self.folder / name
        partial = kept.saving(self.folder, name)
        self._together(lambda: self._begin(partial, model))
        self._parallel.rest(model)
        try:
            self._write_model(partial, model)
            self._phase("state")
            with _quietly():
                dcp.save(
                    self._state(model, optimizer),
                    checkpoint_id=partial / kept.STATE,
                    no_dist=self._parallel.n_ranks == 1,
                )
        except OSError as error:
            raise ResourceError(f"{partial}: cannot be written ({error.strerror}); free some disk") from None
        self._together(lambda: self._write_pedigree(partial, step, tokens))
        self._phase("hash")
        names = self._parallel.everyone(kept.files_of(partial))[0]
        mine = kept.describe(partial, names[self._parallel.rank :: self._parallel.n_ranks])
        files = {name: row for part in self._parallel.everyone(mine) for name, row in part.items()}
        record = self._record(model, step, tokens) | {"seconds": round(time.monotonic() - begin, 3)}
        record["files"] = {name: files[name] for name in sorted(files)}
        self._together(lambda: self._finish(name, record))
        self.seconds = max(self._parallel.everyone(time.monotonic() - begin))
        return self.folder / name

    def expected_seconds(self, model: LlamaTorch) -> float:
        """How long the next save will take: as long as the last one; before the first, at 100 MB/s."""
        if self.seconds is not None:
            return self.seconds
        return 1 + self._bytes(model) / _FIRST_GUESS / self._parallel.n_ranks

    def _is_good(self, checkpoint: Path) -> bool:
        """Whether it is there and its files are what they were; a warning says what is not."""
        files = self._parallel.everyone(kept.read_files(checkpoint) if self._parallel.is_main else {})[0]
        mine = sorted(files)[self._parallel.rank :: self._parallel.n_ranks]
        problem = kept.damage(checkpoint, {name: files[name] for name in mine})
        problems = [said for said in self._parallel.everyone(problem) if said]
        if problems and self._parallel.is_main:
            log.warning("%s: damaged (%s); it is passed over", checkpoint, problems[0])
        return bool(files) and not problems

    def _begin(self, partial: Path, model: LlamaTorch) -> None:
        kept.sweep(self.folder)
        check_space(self.folder, self._bytes(model))
        partial.parent.mkdir()

    def _bytes(self, model: LlamaTorch) -> int:
        stored = QUANTS[_KINDS[self._about.options.precision]].bytes_per_block
        return model.config.n_parameters * (stored + _STATE_BYTES) + _FOR_FILES_BESIDE

    def _write_model(self, partial: Path, model: LlamaTorch) -> None:
        """The folder as transformers and camelid open it; one tensor is whole at a time, on every rank."""
        parameters = {name.removesuffix(".weight"): value for name, value in model.named_parameters()}
        names = list(tensor_shapes(model.config))
        if not self._parallel.is_main:
            for name in names:
                self._parallel.whole(parameters[name])
            return
        kind = _KINDS[self._about.options.precision]

        def tensor(name: str) -> Tensor:
            def read() -> Any:
                self._phase(f"model {name}")
                array = self._parallel.whole(parameters[name]).cpu().numpy()
                return quantise_rows(QUANTS[kind], array.reshape(-1, array.shape[-1]))

            return Tensor(name, tuple(parameters[name].shape), kind, read)

        tensors = {name: tensor(name) for name in names}
        tokenizer = self._about.tokenizer
        weights = Weights(partial, "hf", model.config, tensors, load_tokenizer=lambda: tokenizer)
        write_hf(partial, weights, kind, 1, None)

    def _state(self, model: LlamaTorch, optimizer: Optimizer) -> dict[str, Any]:
        state: dict[str, Any] = self._random()
        for name, parameter in model.named_parameters():
            state[f"model.{name}"] = parameter.detach()
            for key, value in optimizer.state[parameter].items():
                state[f"optimizer.{name}.{key}"] = value
        return state

    def _random(self) -> dict[str, Any]:
        """This rank's generators."""
        rank = self._parallel.rank
        found = {f"random.cpu.{rank}": torch.get_rng_state()}
        if self._parallel.device.type == "cuda":
            found[f"random.cuda.{rank}"] = torch.cuda.get_rng_state()
        return found

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
            "seed": self._about.seed,
            "notes": self.notes,
            "ranks": self._parallel.n_ranks,
            "torch": torch.__version__,
        }

    def _finish(self, name: str, record: Mapping[str, Any]) -> None:
        self._phase("record")
        kept.write_record(kept.saving(self.folder, name), record)
        self._phase("appear")
        kept.appear(self.folder, name)
        self._phase("link")
        kept.link(self.folder, name)
        self._phase("keep")
        kept.keep(self.folder, self._about.options.keep_last, self._about.options.keep_every)
        self._phase("done")

    def _together(self, work: Callable[[], None]) -> None:
        """Rank 0 does it; if it fails, every rank says so and none waits."""
        failure: Exception | None = None
        if self._parallel.is_main:
            try:
                work()
            except CamelidError as error:
                failure = error
            except OSError as error:
                failure = ResourceError(f"{self.folder}: cannot be written ({error.strerror}); check the disk")
        if (said := self._parallel.everyone(failure)[0]) is not None:
            raise said


@contextmanager
def _quietly() -> Iterator[None]:
    """torch says of each save that one process is one process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

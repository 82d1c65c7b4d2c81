"""Pretraining: the next token of documents, packed into rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from camelid.data.batches import Batches, TrainingBatch
from camelid.data.manifest import NAME as MANIFEST
from camelid.data.shards import FOLDER
from camelid.data.verifying import Verifier
from camelid.model.config import ModelConfig
from camelid.model.options import ModelOptions
from camelid.recipe import Recipe
from camelid.run_layout import DATA
from camelid.train.devices import batch_flops
from camelid.train.objective import Objective, Size
from camelid.train.options import RunOptions, TokenLossOptions
from camelid.train.report.entropy import unigram_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from camelid.train.loss import Loss
    from camelid.train.mixed_precision import Learner
    from camelid.train.parallel import Parallel


class PretrainOptions(RunOptions, TokenLossOptions):
    """How a model is pretrained."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "llama2": {},  # the defaults
        # Warm-up, stable, decay to nothing over the last fifth (Hägele et al. 2024, arXiv:2405.18392), so that a run
        # can be prolonged; eps and z-loss of OLMo 2 (arXiv:2501.00656, sections 3.2 and 3.3).
        "modern": {"schedule": "wsd", "min_lr_ratio": 0.0, "eps": 1e-8, "z_loss": 1e-5},
    }


class Pretrain(Objective[TrainingBatch]):
    """Every token of a document from those before it; documents of a row do not see each other."""

    Options = PretrainOptions
    options: PretrainOptions

    def __init__(self, options: PretrainOptions, config: ModelConfig, batches: Batches, parallel: Parallel) -> None:
        self.options, self.config, self.batches, self.seed = options, config, batches, batches.seed
        self.tokenizer, self.fingerprint = batches.tokenizer, batches.fingerprint()
        self.inputs = (batches.data / MANIFEST,)
        self._rank, self._ranks = parallel.data_rank, parallel.data_ranks
        self._rows = options.rows_at_once(self._ranks, parallel.device.type == "cuda")
        each = self._rows * self._ranks
        self._validation = Batches(batches.data, options.context, each, batches.seed, validation=True)

    @classmethod
    def open(cls, recipe: Recipe, options: PretrainOptions, run: Path, parallel: Parallel) -> Self:
        batches = Batches(run / DATA, options.context, options.rows, recipe.seed)
        config = recipe.table("model", ModelOptions).config(batches.tokenizer.vocab_size, options.context)
        return cls(options, config, batches, parallel)

    def batch(self, step: int, learner: Learner) -> TrainingBatch:
        return self.batches.step(step, self._rank, self._ranks)

    def size(self, share: TrainingBatch) -> Size:
        return Size(share.n_trained, share.ids.size, batch_flops(self.config, share))

    def micro_batches(self, share: TrainingBatch) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(share.ids), self._rows):
            rows = slice(start, start + self._rows)
            yield share.ids[rows], share.positions[rows], share.targets[rows]

    def loss(self, learner: Learner, divisor: int, *piece: Tensor) -> Loss:
        ids, positions, targets = piece
        return learner.token_loss(learner.hidden(ids, positions), targets, divisor, self.options.z_loss)

    def metrics(self, means: Sequence[float]) -> dict[str, float]:
        return {"loss": means[0]} | ({"z_loss": means[1]} if self.options.z_loss else {})

    def validation(self) -> Iterator[TrainingBatch]:
        wanted = math.ceil(self.options.validation_rows / self._validation.rows_per_step)
        for step in range(min(self._validation.n_steps, wanted)):
            yield self._validation.step(step, self._rank, self._ranks)

    def about(self) -> dict[str, Any]:
        return {"unigram_entropy": unigram_entropy(self.batches)}

    def verifier(self, rank: int, n_ranks: int) -> Verifier:
        return Verifier(self.batches.data / FOLDER, self.batches.manifest.shards[rank::n_ranks])


STAGE = Pretrain

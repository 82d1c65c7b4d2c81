"""Learning the next token from packed rows: what pretraining, fine-tuning and distillation have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from camelid.data.batches import Batches, TrainingBatch
from camelid.data.chats.rows import ConversationRows
from camelid.data.manifest import NAME as MANIFEST
from camelid.data.shards import FOLDER
from camelid.data.verifying import Verifier
from camelid.errors import OptionError
from camelid.model.config import ModelConfig
from camelid.run_layout import CHECKPOINT
from camelid.train.objective import Objective, Size
from camelid.train.options import RunOptions, TokenLossOptions
from camelid.train.planning.devices import batch_flops
from camelid.weights.open import open_weights

if TYPE_CHECKING:
    from torch import Tensor

    from camelid.train.losses.token_loss import Loss
    from camelid.train.mixed_precision import Learner
    from camelid.train.parallel import Parallel
    from camelid.train.run_stage import RunStage


Rows = Batches | ConversationRows


class RowOptions(RunOptions, TokenLossOptions):
    """What every stage says that learns from packed rows."""


class RowObjective(Objective[TrainingBatch]):
    """Every token that is a target from those before it in its document; documents of a row do not see each other.

    Args:
        options: of the stage.
        config: of the model.
        batches: what is learned from, in its order.
        parallel: the ranks.
    """

    options: RowOptions
    reader: ClassVar[type[Batches] | type[ConversationRows]] = Batches
    """What makes rows of a data folder: (folder, context, rows of a step, seed, whether those for validation)."""

    def __init__(self, options: RowOptions, config: ModelConfig, batches: Rows, parallel: Parallel) -> None:
        self.options, self.config, self.batches, self.seed = options, config, batches, batches.seed
        self.tokenizer, self.fingerprint = batches.tokenizer, batches.fingerprint()
        self.inputs = (batches.data / MANIFEST,)
        self._rank, self._ranks = parallel.data_rank, parallel.data_ranks
        self._rows = options.rows_at_once(self._ranks, parallel.device.type == "cuda")
        each = self._rows * self._ranks
        self._validation = self.reader(batches.data, options.context, each, batches.seed, validation=True)

    @classmethod
    def reading(cls, data: Path, options: Any, seed: int) -> Rows:
        return cls.reader(data, options.context, options.rows, seed)

    @classmethod
    def going_on(cls, start: Path, stage: RunStage, options: Any, batches: Rows) -> Self:
        """One that begins from a model.

        Raises:
            OptionError: the data is another tokenizer's, the model was made for shorter rows, or the recipe describes
                a model.
        """
        opened = open_weights(start)
        if batches.tokenizer.fingerprint() != opened.tokenizer.fingerprint():
            raise OptionError(
                f"{batches.data}: made with another tokenizer than that of {start}, which {stage.name} begins from; "
                f"prepare it again, with [tokenizer] open = {str(start)!r}"
            )
        if options.context > opened.config.context:
            raise OptionError(
                f"{stage.name}.context: rows of {options.context} tokens, and {start} was made for "
                f"{opened.config.context}; lower it"
            )
        objective = cls(options, opened.config, batches, stage.parallel)
        objective.start = start
        begun = start / CHECKPOINT
        objective.inputs += (begun,) if begun.is_file() else ()
        return objective

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

    def verifier(self, rank: int, n_ranks: int) -> Verifier:
        return Verifier(self.batches.data / FOLDER, self.batches.manifest.shards[rank::n_ranks])

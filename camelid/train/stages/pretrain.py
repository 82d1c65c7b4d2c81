"""Pretraining: a new model learns the next token of documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from camelid.data.batches import Batches
from camelid.model.options import ModelOptions
from camelid.train.report.entropy import unigram_entropy
from camelid.train.rows import RowObjective, RowOptions

if TYPE_CHECKING:
    from camelid.train.run_stage import RunStage


class PretrainOptions(RowOptions):
    """How a model is pretrained."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "llama2": {},  # the defaults
        # Warm-up, stable, decay to nothing over the last fifth (Hägele et al. 2024, arXiv:2405.18392), so that a run
        # can be prolonged; eps and z-loss of OLMo 2 (arXiv:2501.00656, sections 3.2 and 3.3).
        "modern": {"schedule": "wsd", "min_lr_ratio": 0.0, "eps": 1e-8, "z_loss": 1e-5},
    }


class Pretrain(RowObjective):
    """Learns every token but a document's first."""

    Options = PretrainOptions

    @classmethod
    def open(cls, stage: RunStage, options: PretrainOptions) -> Self:
        batches = Batches(stage.data, options.context, options.rows, stage.recipe.seed)
        config = stage.recipe.table("model", ModelOptions).config(batches.tokenizer.vocab_size, options.context)
        return cls(options, config, batches, stage.parallel)

    def about(self) -> dict[str, Any]:
        return {"unigram_entropy": unigram_entropy(self.batches)}


STAGE = Pretrain

"""Pretraining: a new model learns the next token of documents."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, ClassVar, Self

from camelid.data.batches import Batches
from camelid.data.folder import DataFolder
from camelid.data.prepare import already, prepare
from camelid.errors import MissingError
from camelid.machine import available_bytes, threads
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
    batches: Batches

    @classmethod
    def prepare(cls, stage: RunStage, options: PretrainOptions) -> None:
        """Make the run's documents and tokens if they are not there, and see that they are the recipe's."""
        stage.parallel.from_first(lambda: _prepare(stage))

    @classmethod
    def open(cls, stage: RunStage, options: PretrainOptions) -> Self:
        batches = Batches(stage.data, options.context, options.rows, stage.recipe.seed)
        start = stage.start()
        if start is None:
            config = stage.recipe.table("model", ModelOptions).config(batches.tokenizer.vocab_size, options.context)
            return cls(options, config, batches, stage.parallel)
        return cls.going_on(start, stage, options, batches)

    def about(self) -> dict[str, Any]:
        return {"unigram_entropy": unigram_entropy(self.batches)}


def _prepare(stage: RunStage) -> None:
    recipe, folder, show = stage.recipe, stage.data, stage.show
    if DataFolder(folder).is_finished():
        for note in already(recipe, folder, quick=True).notes:
            show.note(note)
    elif stage.parallel.n_ranks > 1:
        made_by = f"camelid prepare {shlex.quote(str(recipe.path))}"
        raise MissingError(f"{folder}: no data is there; make it first, with: {made_by}")
    else:
        with show.bars() as progress:
            prepare(recipe, folder, threads()[0], free=available_bytes(), planned=show.planned, progress=progress)


STAGE = Pretrain

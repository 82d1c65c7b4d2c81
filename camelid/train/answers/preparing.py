"""What stages on pairs and on prompts begin with: a model, and its conversations as ids."""

from __future__ import annotations

from pathlib import Path

from camelid.data.chats.options import ChatDataOptions, Form
from camelid.data.chats.prepare import prepare_chats
from camelid.errors import OptionError
from camelid.machine import available_bytes, threads
from camelid.model.config import ModelConfig
from camelid.run_layout import CHECKPOINT
from camelid.train.run_stage import RunStage
from camelid.weights.open import open_weights


def beginning(stage: RunStage, named: str | None) -> Path:
    """The model that a stage begins from, which there must be.

    Raises:
        OptionError: there is none.
    """
    start = stage.start(named)
    if start is None:
        raise OptionError(
            f'{stage.recipe.path}: {stage.name} begins from a model; give base = "NAME", or a stage before it'
        )
    return start


def files_of(model: Path) -> tuple[Path, ...]:
    """What a run's record names of a model: a checkpoint's own record, else its files."""
    record = model / CHECKPOINT
    return (record,) if record.is_file() else open_weights(model).files


def prepare_records(stage: RunStage, data: ChatDataOptions, form: Form, context: int, start: Path) -> None:
    """Write pairs or prompts as ids in the stage's folder, if they are not there; every rank must call this.

    Raises:
        CamelidError: as `prepare_chats`.
    """
    stage.parallel.from_first(lambda: _prepare(stage, data, form, context, start))


def _prepare(stage: RunStage, data: ChatDataOptions, form: Form, context: int, start: Path) -> None:
    show = stage.show
    with show.bars() as progress:
        done = prepare_chats(
            *(data, stage.data, form, start, context),
            base=stage.recipe.path.parent,
            seed=stage.recipe.seed,
            workers=threads()[0],
            free=available_bytes(),
            planned=show.planned,
            progress=progress,
        )
    for note in done.notes:
        show.note(note)


def check_context(stage: str, context: int, config: ModelConfig) -> None:
    """Refuse conversations that are longer than what a model was made for.

    Raises:
        OptionError: they are.
    """
    if context > config.context:
        raise OptionError(f"{stage}.context: {context} tokens, and the model was made for {config.context}; lower it")

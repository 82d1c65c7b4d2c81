"""Supervised fine-tuning: a model learns to write the answers of conversations."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from camelid.data.batches import IGNORED
from camelid.data.chats.model import open_chat_model
from camelid.data.chats.options import ChatDataOptions
from camelid.data.chats.prepare import prepare_chats
from camelid.data.chats.rows import ConversationRows
from camelid.errors import OptionError
from camelid.machine import available_bytes, threads
from camelid.tokens.templates.chat_format import choose_format
from camelid.tokens.templates.message import Message
from camelid.train.options import LOGIT_TOKENS, EpochOptions
from camelid.train.rows import RowObjective, RowOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from camelid.data.batches import TrainingBatch
    from camelid.train.losses.token_loss import Loss
    from camelid.train.mixed_precision import Learner
    from camelid.train.objective import Size
    from camelid.train.run_stage import RunStage
    from camelid.weights.weights import Weights


class SftOptions(EpochOptions, RowOptions):
    """How a model is fine-tuned on conversations."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        # Touvron et al. 2023, arXiv:2307.09288, section 3.1: cosine from 2e-5, weight decay .1, 64 rows of 4096, two
        # epochs. What it does not say (betas, eps, clip, the last rate) is as in pretraining; no warm-up.
        "llama2": {"epochs": 2, "lr": 2e-5, "batch_tokens": 64 * 4096, "context": 4096, "warmup_steps": 0},
        # Tülu 3 8B (Lambert et al. 2024, arXiv:2411.15124, table 8): linear from 5e-6, 128 rows, 3 % warm-up, no decay.
        "modern": {
            **{"epochs": 2, "lr": 5e-6, "batch_tokens": 128 * 4096, "context": 4096, "warmup_steps": 0},
            **{"warmup_share": 0.03, "schedule": "linear", "min_lr_ratio": 0.0},
            **{"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
        },
    }

    data: ChatDataOptions = Field(default_factory=ChatDataOptions, description="The conversations.")
    start: str | None = Field(None, description="A stage of the recipe, or a model; the stage before, if not given.")
    chat_format: str | None = Field(
        None, description="How conversations are written; the model's own template if none."
    )
    mean_over: Literal["tokens", "conversations"] = Field(
        "tokens", description="What counts the same in the loss of a step: every learned token, or every conversation."
    )
    neftune_alpha: float = Field(0.0, ge=0, le=1000, description="Noise on the embeddings (NEFTune); 0: none.")


class Sft(RowObjective):
    """Learns the tokens that an assistant wrote, and what ends its turns; each conversation sees itself alone."""

    Options = SftOptions
    validated = ("loss", "accuracy")
    reader = ConversationRows
    options: SftOptions

    _chat: Weights | None = None

    @classmethod
    def prepare(cls, stage: RunStage, options: SftOptions) -> None:
        """Write the conversations as ids and masks, if they are not there."""
        start = _start(stage, options)
        stage.parallel.from_first(lambda: _prepare(stage, options, start))

    @classmethod
    def open(cls, stage: RunStage, options: SftOptions) -> Self:
        rows = ConversationRows(stage.data, options.context, options.rows, stage.recipe.seed)
        objective = cls.going_on(_start(stage, options), stage, options.resolved(rows.n_steps), rows)
        if options.mean_over == "conversations":
            objective.unit = "conversations"  # type: ignore[misc]  # of this one alone
        objective._chat = _talking(objective.start, _chat_format(options))
        return objective

    def written_as(self) -> Weights | None:
        return self._chat

    def size(self, share: TrainingBatch) -> Size:
        """Where conversations count the same, their number."""
        size = super().size(share)
        if self.options.mean_over == "tokens":
            return size
        return size._replace(learned=_n_conversations(share))  # what `unit` calls so, then

    def micro_batches(self, share: TrainingBatch) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(share.ids), self._rows):
            rows = slice(start, start + self._rows)
            own = share.ids[rows], share.positions[rows], share.targets[rows]
            yield *own, share.documents[rows], share.samples[rows]

    def loss(self, learner: Learner, divisor: int, *piece: Tensor) -> Loss:
        """Scores are computed where something is learned, and nowhere else."""
        from camelid.train.losses.neftune import added_to, noise
        from camelid.train.losses.token_loss import Loss

        ids, positions, targets, documents, samples = piece
        options, width = self.options, self.config.dim
        noisy = options.neftune_alpha > 0 and learner.learns
        values = noise(positions, documents, samples, width, options.neftune_alpha, self.seed) if noisy else None
        with nullcontext() if values is None else added_to(learner.model, values):
            hidden = learner.hidden(ids, positions)
        weights = _equal_conversations(targets, documents) if options.mean_over == "conversations" else None
        places = _learned(targets)
        some = None if weights is None else weights.flatten()[places]
        loss = learner.token_loss(hidden[places], targets.flatten()[places], divisor, options.z_loss, some)
        counts = loss.parts.new_tensor([(targets != IGNORED).sum().item(), targets.numel()]) / divisor
        return Loss(loss.total, loss.parts.new_tensor([*loss.parts.tolist(), *counts.tolist()]))

    def metrics(self, means: Sequence[float]) -> dict[str, float]:
        loss, z_loss, right, learned, read = means
        own = {"loss": loss} | ({"z_loss": z_loss} if self.options.z_loss else {})
        own |= {"accuracy": right, "learned_share": learned / read}
        return own

    def about(self) -> Mapping[str, Any]:
        return {"conversations": sum(source.documents for source in self.batches.manifest.sources)}


def _start(stage: RunStage, options: SftOptions) -> Path:
    start = stage.start(options.start)
    if start is None:
        raise OptionError(
            f'{stage.recipe.path}: {stage.name} begins from a model; give base = "NAME", or a stage before it'
        )
    return start


def _chat_format(options: SftOptions) -> str | None:
    """The format that is named, in the stage's table or in that of its data."""
    one, other = options.chat_format, options.data.chat_format
    if one is not None and other is not None and one != other:
        raise OptionError(f"chat_format: {one} in the stage's table, {other} in its data's; leave one out")
    return one or other


def _prepare(stage: RunStage, options: SftOptions, start: Path) -> None:
    show = stage.show
    named = _chat_format(options)
    model = open_chat_model(start, named)
    if named is not None:  # says so before anything is made, if the vocabulary does not fit
        model.chat_format.render(model.tokenizer, [Message("user", "?")])
    with show.bars() as progress:
        done = prepare_chats(
            options.data.with_(chat_format=named),
            stage.data,
            "conversations",
            model,
            options.context,
            base=stage.recipe.path.parent,
            seed=stage.recipe.seed,
            workers=threads()[0],
            free=available_bytes(),
            planned=show.planned,
            progress=progress,
        )
    for note in done.notes:
        show.note(note)


def _talking(start: Path | None, chat_format: str | None) -> Weights:
    """The model that it began from, with the template and stop ids of the format that it learns."""
    from camelid.weights.open import open_weights

    assert start is not None
    opened = open_weights(start)
    if chat_format is None:
        return opened
    chosen = choose_format(opened.tokenizer, opened.chat_template, chat_format)
    if chosen.jinja is None:
        raise OptionError(f"chat_format: {chat_format} has no template that goes with a model; choose another")
    stops = dict.fromkeys((*chosen.stop_ids(opened.tokenizer), *opened.stop_ids))
    return replace(opened, files=(), chat_template=chosen.jinja, named_templates={}, stop_ids=tuple(stops))


def _learned(targets: Tensor) -> Tensor:
    """Places of the targets that are learned. On a GPU others fill them up to whole pieces of the loss, so that
    compiled code sees one shape."""
    import torch

    flat = targets.flatten()
    places = (flat != IGNORED).nonzero().flatten()
    if targets.device.type == "cpu":
        return places
    left = -len(places) % LOGIT_TOKENS
    others = (flat == IGNORED).nonzero().flatten()[:left]
    return torch.cat([places, others])


def _n_conversations(share: TrainingBatch) -> int:
    """Conversations of which something is learned."""
    return sum(
        len(set(row[targets != IGNORED].tolist())) for row, targets in zip(share.documents, share.targets, strict=True)
    )


def _equal_conversations(targets: Tensor, documents: Tensor) -> Tensor:
    """(R, T) float32: one over how many tokens are learned of the conversation that a token belongs to."""
    import torch

    learned = (targets != IGNORED).long()
    counts = torch.zeros_like(targets).scatter_add_(1, documents.long(), learned)
    return 1 / counts.gather(1, documents.long()).clamp_min(1).float()


STAGE = Sft

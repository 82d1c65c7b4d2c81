"""Reward models: a scalar head learns which of two answers people prefer, as Llama 2's two did."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from camelid.data.chats.examples import GRADES, Example, Pair
from camelid.data.chats.options import ChatDataOptions
from camelid.data.chats.pairs import Pairs
from camelid.data.chats.prepare import prepare_chats
from camelid.data.manifest import NAME as MANIFEST
from camelid.engine.reward import up_to_answer
from camelid.errors import OptionError
from camelid.machine import available_bytes, threads
from camelid.train.answers.packed import Packer, of_any_shape
from camelid.train.objective import Objective, Size
from camelid.train.options import EpochOptions, RunOptions
from camelid.train.packing import Packed
from camelid.train.planning.devices import flops_per_token
from camelid.weights.open import open_weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from camelid.model.llama_torch import LlamaTorch
    from camelid.train.losses.token_loss import Loss
    from camelid.train.mixed_precision import Learner
    from camelid.train.run_stage import RunStage

Margin = Annotated[float, Field(ge=0, le=1000)]


class RewardOptions(EpochOptions, RunOptions):
    """How a reward model is trained.

    `batch_tokens` follows from the pairs of a step, each answer in a row of its own at most.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        # Touvron et al. 2023, arXiv:2307.09288, section 3.2.2: one epoch, 512 pairs, 1e-5 (5e-6 for the 70B), cosine to
        # a tenth, 3 % warm-up but at least five steps; AdamW as in pretraining.
        "llama2": {"epochs": 1, "lr": 1e-5, "warmup_steps": 5, "warmup_share": 0.03},
        "llama2-70b": {"epochs": 1, "lr": 5e-6, "warmup_steps": 5, "warmup_share": 0.03},
    }

    data: ChatDataOptions = Field(default_factory=ChatDataOptions, description="The preferences.")
    start: str | None = Field(None, description="A stage of the recipe, or a model; the stage before, if not given.")
    pairs: int = Field(512, gt=0, description="Of a step, all devices together.")
    margins: Literal["none", "small", "large"] | tuple[Margin, Margin, Margin, Margin] = Field(
        "small",
        description="By how much a better answer must win: none, small, large, or four numbers, from significantly to "
        "negligibly better.",
    )
    safety_weight: float = Field(0.0, ge=0, le=1000, description="Of the loss that tells safe from unsafe answers.")

    def __init__(self, **values: Any) -> None:
        pairs, context = (values.get(name, RewardOptions.model_fields[name].default) for name in ("pairs", "context"))
        if isinstance(pairs, int) and isinstance(context, int):
            values.setdefault("batch_tokens", 2 * pairs * context)
        super().__init__(**values)


class Piece(NamedTuple):
    """Pairs that are computed together: rows of packed answers, and where each ends."""

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    lasts: NDArray[np.int64]
    grades: NDArray[np.int64]
    safe: NDArray[np.int64]


class Reward(Objective[tuple[Piece, ...]]):
    """Learns that the chosen answer of a pair has the larger reward."""

    Options = RewardOptions
    unit = "pairs"
    validated = ("loss", "accuracy", "calibration_error")
    options: RewardOptions

    def __init__(self, options: RewardOptions, start: Path, pairs: Pairs, stage: RunStage) -> None:
        weights = open_weights(start)
        if weights.tokenizer.fingerprint() != pairs.tokenizer.fingerprint():
            raise OptionError(f"{start}: has another tokenizer than {pairs.data}; delete that folder")
        self.options, self.start, self.seed = of_any_shape(options, stage.parallel), start, pairs.seed
        self.config = replace(weights.config, scalar_head=True, ties_embeddings=False)
        self.tokenizer, self.fingerprint = pairs.tokenizer, pairs.fingerprint()
        self.inputs = (pairs.data / MANIFEST,)
        self.pairs, self.packer = pairs, Packer(self.options, stage.parallel, together=2)
        self._rank, self._ranks = stage.parallel.data_rank, stage.parallel.data_ranks
        each = max(1, self.packer.rows // 2) * self._ranks
        self._validation = Pairs(pairs.data, each, pairs.seed, validation=True)

    @classmethod
    def prepare(cls, stage: RunStage, options: RewardOptions) -> None:
        """Write the pairs as ids and masks, if they are not there."""
        start = _start(stage, options)
        stage.parallel.from_first(lambda: _prepare(stage, options, start))

    @classmethod
    def reading(cls, data: Path, options: RewardOptions, seed: int) -> Pairs:
        return Pairs(data, options.pairs, seed)

    @classmethod
    def open(cls, stage: RunStage, options: RewardOptions) -> Self:
        pairs = Pairs(stage.data, options.pairs, stage.recipe.seed)
        return cls(options.resolved(pairs.n_steps), _start(stage, options), pairs, stage)

    def batch(self, step: int, learner: Learner) -> tuple[Piece, ...]:
        return self._pieces(self.pairs.step(step, self._rank, self._ranks))

    def size(self, share: tuple[Piece, ...]) -> Size:
        tokens = sum(piece.ids.size for piece in share)
        return Size(
            sum(len(piece.grades) for piece in share),
            tokens,
            tokens * flops_per_token(self.config, self.options.context),
        )

    def micro_batches(self, share: tuple[Piece, ...]) -> Iterator[tuple[Any, ...]]:
        yield from share

    def loss(self, learner: Learner, divisor: int, *piece: Tensor) -> Loss:
        import torch
        from torch.nn.functional import linear

        from camelid.train.losses import reward
        from camelid.train.losses.token_loss import Loss

        ids, positions, lasts, grades, safe = piece
        hidden = learner.hidden(ids, positions)[lasts].float()  # (2N, D)
        rewards = linear(hidden, learner.model.score.weight.float()).flatten()
        margins = self.options.margins
        by_grade = reward.MARGINS[margins] if isinstance(margins, str) else margins
        table = torch.tensor([*by_grade, 0.0], device=rewards.device)  # the last: no grade
        pairs = reward.Pairs(rewards[0::2], rewards[1::2], table[grades], grades, safe)
        total, parts = reward.reward_loss(pairs, self.options.safety_weight)
        return Loss(total / divisor, parts / divisor)

    def metrics(self, means: Sequence[float]) -> dict[str, float]:
        from camelid.train.losses.reward import measured

        return measured(list(means))

    def validation(self) -> Iterator[tuple[Piece, ...]]:
        wanted = math.ceil(self.options.validation_rows / self._validation.per_step)
        for step in range(min(self._validation.n_steps, wanted)):
            yield self._pieces(self._validation.step(step, self._rank, self._ranks))

    def initialise(self, model: LlamaTorch) -> None:
        """A head of normal numbers of deviation 1/√(D + 1), where the model it begins from has none
        (Huang et al. 2024, arXiv:2403.17031, detail 13)."""
        from camelid.train.init import initialise_score

        initialise_score(model, 1 / math.sqrt(self.config.dim + 1), self.seed)
        super().initialise(model)

    def _pieces(self, pairs: Sequence[Pair]) -> tuple[Piece, ...]:
        """A rank's pairs, as many pieces on every rank: one that has fewer computes filling."""
        groups = [[_rated(pair.chosen), _rated(pair.rejected)] for pair in pairs]
        return tuple(self._piece([pairs[number] for number in run], packed) for run, packed in self.packer.cut(groups))

    def _piece(self, pairs: Sequence[Pair], packed: Packed) -> Piece:
        grades = [-1 if pair.grade is None else GRADES.index(pair.grade) for pair in pairs]
        safe = [
            [-1 if said is None else int(said) for said in (pair.chosen_safe, pair.rejected_safe)] for pair in pairs
        ]
        return Piece(
            packed.ids,
            packed.positions,
            packed.lasts,
            np.array(grades, np.int64),
            np.array(safe, np.int64).reshape(-1, 2),
        )


def _rated(example: Example) -> Example:
    n = len(up_to_answer(example.ids.tolist(), example.learned.tolist()))
    return Example(example.ids[:n], example.learned[:n])


def _start(stage: RunStage, options: RewardOptions) -> Path:
    start = stage.start(options.start)
    if start is None:
        raise OptionError(f'{stage.name}: begins from a model that talks; say base = "…", or train one before it')
    return start


def _prepare(stage: RunStage, options: RewardOptions, start: Path) -> None:
    with stage.show.bars() as progress:
        prepared = prepare_chats(
            options.data,
            stage.data,
            "preferences",
            start,
            options.context,
            base=stage.recipe.path.parent,
            seed=stage.recipe.seed,
            workers=threads()[0],
            free=available_bytes(),
            planned=stage.show.planned,
            progress=progress,
        )
    for note in prepared.notes:
        stage.show.note(note)


STAGE = Reward

"""Direct preference optimisation: a model learns from pairs which answer people prefer, without a reward model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from camelid.data.batches import IGNORED
from camelid.data.chats.examples import Example, Pair
from camelid.data.chats.options import ChatDataOptions
from camelid.data.chats.pairs import Pairs
from camelid.data.manifest import NAME as MANIFEST
from camelid.data.shards import FOLDER
from camelid.data.verifying import Verifier
from camelid.errors import OptionError
from camelid.train.answers.packed import Packer, flops_of, of_any_shape, with_room
from camelid.train.answers.preparing import beginning, check_context, files_of, prepare_records
from camelid.train.answers.references import NAME as REFERENCE
from camelid.train.answers.references import Logprobs, References
from camelid.train.checkpoints.start import start_fingerprint
from camelid.train.objective import Objective, Size
from camelid.train.options import EpochOptions, RunOptions
from camelid.weights.open import open_weights

if TYPE_CHECKING:
    from torch import Tensor

    from camelid.train.losses.token_loss import Loss
    from camelid.train.mixed_precision import Learner
    from camelid.train.packing import Packed
    from camelid.train.parallel import Parallel
    from camelid.train.run_stage import RunStage

LOOKED_AT = 8  # pairs held out that a rank reads at once
PARTS = (
    *("loss", "preference_loss", "nll", "accuracy"),
    *("chosen_reward", "rejected_reward", "chosen_logprob", "rejected_logprob"),
)


class DpoOptions(EpochOptions, RunOptions):
    """How a model learns from pairs.

    Raises:
        OptionError: label smoothing where the loss knows none, or none that it could work with.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        # Llama 3 (arXiv:2407.21783, section 4.1.4): learning rate, β, the NLL's weight, control tokens left out. What
        # it does not say is as in Tülu 3.
        "llama3": {
            **{"lr": 1e-5, "beta": 0.1, "nll_weight": 0.2, "skip_control": True, "epochs": 1},
            **{"pairs_per_step": 128, "warmup_steps": 0, "warmup_share": 0.1, "schedule": "linear"},
            **{"min_lr_ratio": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
        },
        # Tülu 3 8B (Lambert et al. 2024, arXiv:2411.15124, table 20): length-normalised, β 5.
        "tulu3": {
            **{"lr": 5e-7, "loss": "sigmoid_norm", "beta": 5.0, "epochs": 1, "context": 2048},
            **{"pairs_per_step": 128, "warmup_steps": 0, "warmup_share": 0.1, "schedule": "linear"},
            **{"min_lr_ratio": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
        },
    }

    preset: str = Field("llama3", description="Where values that are not given come from: llama3 or tulu3.")
    data: ChatDataOptions = Field(default_factory=ChatDataOptions, description="The pairs.")
    start: str | None = Field(None, description="A stage of the recipe, or a model; the stage before, if not given.")
    reference: str | None = Field(None, description="What it is kept near to, likewise; its start, if not given.")
    pairs_per_step: int = Field(64, gt=0, description="Pairs of a step, all devices and micro-batches together.")
    loss: Literal["sigmoid", "sigmoid_norm", "robust", "ipo", "hinge"] = Field("sigmoid", description="Of a pair.")
    beta: float = Field(0.1, gt=0, le=1000, description="How much it is kept near to the reference.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="How often a preference is taken to be wrong.")
    nll_weight: float = Field(0.0, ge=0, le=1000, description="Of the chosen answer's own loss beside it.")
    nll_mean: Literal["answers", "tokens"] = Field("answers", description="What counts the same in that loss.")
    skip_control: bool = Field(False, description="Control tokens, as what ends a turn, are no part of a preference.")

    def __init__(self, **values: Any) -> None:
        super().__init__(**with_room(type(self), values, ("pairs_per_step",), lambda pairs: 2 * pairs))
        if self.label_smoothing and self.loss in ("ipo", "hinge"):
            raise OptionError(f"label_smoothing: the loss {self.loss} has none; leave it out", param="label_smoothing")


@dataclass(frozen=True)
class PairShare:
    """What one rank learns from in a step.

    Attributes:
        pairs: whole.
        reference: of each pair.
        nll_scale: (n,), what the sum over a chosen answer's tokens is multiplied by.
    """

    pairs: Sequence[Pair]
    reference: Sequence[Logprobs]
    nll_scale: NDArray[np.float32]


class Dpo(Objective[PairShare]):
    """The chosen answer shall gain on the rejected one, measured from the reference.

    Args:
        options: of the stage, resolved.
        start: the model that it begins from.
        pairs, held_out: to learn from, and to look at.
        references: what the reference says of them.
        parallel: the ranks.
    """

    Options = DpoOptions
    reads_more = True
    unit = "pairs"
    validated = ("loss", "accuracy", "margin")
    options: DpoOptions

    def __init__(
        self,
        options: DpoOptions,
        start: Path,
        pairs: Pairs,
        held_out: Pairs,
        references: References,
        parallel: Parallel,
    ) -> None:
        options = of_any_shape(options, parallel)
        opened = open_weights(start)
        check_context("dpo", options.context, opened.config)
        self.options, self.config, self.start, self.tokenizer = options, opened.config, start, pairs.tokenizer
        self.pairs, self.held_out, self.references, self.parallel = pairs, held_out, references, parallel
        self.fingerprint = pairs.fingerprint()
        self.packer = Packer(options, parallel, together=2)
        self._control = np.array(sorted(pairs.tokenizer.special_ids.values()), np.int64)

    @classmethod
    def prepare(cls, stage: RunStage, options: DpoOptions) -> None:
        """Write the pairs as ids and masks, and ask the reference about them, as far as that is not done."""
        from camelid.train.answers.frozen import ask_reference

        prepare_records(stage, options.data, "preferences", options.context, beginning(stage, options.start))
        ask_reference(cls.open(stage, options), beginning(stage, options.reference or options.start))

    @classmethod
    def reading(cls, data: Path, options: DpoOptions, seed: int) -> Pairs:
        return Pairs(data, options.pairs_per_step, seed)

    @classmethod
    def open(cls, stage: RunStage, options: DpoOptions) -> Self:
        start, reference = (beginning(stage, name) for name in (options.start, options.reference or options.start))
        seed, ranks = stage.recipe.seed, stage.parallel.data_ranks
        pairs = Pairs(stage.data, options.pairs_per_step, seed)
        held_out = Pairs(stage.data, LOOKED_AT * ranks, seed, validation=True)
        hashed = stage.parallel.from_first(lambda: start_fingerprint(reference))
        about = {"reference": hashed, "precision": options.precision, "skip_control": options.skip_control}
        references = References(stage.data / REFERENCE, about)
        objective = cls(options.resolved(pairs.n_steps), start, pairs, held_out, references, stage.parallel)
        objective.seed = seed
        objective.fingerprint = hashlib.sha256(f"{pairs.fingerprint()} {hashed}".encode()).hexdigest()
        objective.inputs = (stage.data / MANIFEST, *files_of(start))
        return objective

    def batch(self, step: int, learner: Learner) -> PairShare:
        return self._share(self.pairs.step(step, self.parallel.data_rank, self.parallel.data_ranks))

    def size(self, share: PairShare) -> Size:
        examples = list(chain.from_iterable(_both(pair) for pair in share.pairs))
        tokens = sum(len(example.ids) for example in examples)
        return Size(len(share.pairs), tokens, flops_of(self.config, examples))

    def micro_batches(self, share: PairShare) -> Iterator[tuple[Any, ...]]:
        for run, packed in self.packer.cut([_both(pair) for pair in share.pairs]):
            some = slice(run.start, run.stop)
            reference = np.array(share.reference[some], np.float32).reshape(-1, 2)
            yield *self.rows(packed), reference, share.nll_scale[some]

    def rows(self, packed: Packed) -> tuple[NDArray[np.int64], ...]:
        """Ids, positions, targets, owners of what is learned, and of that what counts as preference; -1 is nobody's."""
        learned = packed.targets != IGNORED
        owners = np.where(learned, packed.owners, -1)
        counted = ~np.isin(packed.targets, self._control) if self.options.skip_control else learned
        return packed.ids, packed.positions, packed.targets, owners, np.where(counted, owners, -1)

    def logprobs(self, learner: Learner, count: int, *rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of `count` pairs: (count, 2) sums over what counts and how many tokens that are, (count,) sums over all of
        the chosen answers; sums with gradient."""
        import torch

        from camelid.train.losses.dpo import summed
        from camelid.train.losses.token_loss import token_logprobs

        ids, positions, targets, owners, counted = rows
        hidden = learner.hidden(ids, positions)
        each, _ = token_logprobs(hidden, learner.model.output, targets.flatten())
        sums = summed(each, counted.flatten(), 2 * count).view(count, 2)
        lengths = summed(torch.ones_like(each), counted.flatten(), 2 * count).view(count, 2)
        return sums, lengths, summed(each, owners.flatten(), 2 * count).view(count, 2)[:, 0]

    def loss(self, learner: Learner, divisor: int, *piece: Tensor) -> Loss:
        import torch

        from camelid.train.losses.dpo import pair_losses
        from camelid.train.losses.token_loss import Loss

        *rows, reference, scale = piece
        options = self.options
        sums, lengths, chosen = self.logprobs(learner, len(reference), *rows)
        found = pair_losses(
            *(sums, reference, lengths), kind=options.loss, beta=options.beta, smoothing=options.label_smoothing
        )
        nll = -chosen * scale
        each = found.loss + options.nll_weight * nll
        right = found.chosen > found.rejected
        with torch.no_grad():
            parts = (each, found.loss, nll, right, found.chosen, found.rejected, sums[:, 0], sums[:, 1])
            summed_up = torch.stack([part.sum(dtype=torch.float64) for part in parts]) / divisor
        return Loss(each.sum() / divisor, summed_up)

    def metrics(self, means: Sequence[float]) -> dict[str, float]:
        named = dict(zip(PARTS, means, strict=True))
        return {**named, "margin": named["chosen_reward"] - named["rejected_reward"]}

    def validation(self) -> Iterable[PairShare]:
        found: list[Pair] = []
        wanted = -(-self.options.validation_rows // self.held_out.per_step)
        for step in range(min(self.held_out.n_steps, wanted)):
            found += self.held_out.step(step, self.parallel.data_rank, self.parallel.data_ranks)
        if self.held_out.n_steps:
            yield self._share(found)

    def about(self) -> Mapping[str, Any]:
        return {"pairs": self.pairs.n_pairs, "validation_pairs": self.held_out.n_pairs}

    def verifier(self, rank: int, n_ranks: int) -> Verifier:
        return Verifier(self.pairs.data / FOLDER, self.pairs.manifest.shards[rank::n_ranks])

    def _share(self, pairs: Sequence[Pair]) -> PairShare:
        """With what the reference says. Every rank must call this where tokens are averaged over all."""
        import torch

        lengths = np.array([pair.chosen.learned.sum() for pair in pairs], np.float32)
        if self.options.nll_mean == "answers":
            scale = 1 / lengths
        else:
            own = torch.tensor([len(pairs), lengths.sum()], dtype=torch.float64, device=self.parallel.device)
            n_pairs, n_tokens = self.parallel.sum(own).tolist()
            scale = np.full(len(pairs), n_pairs / n_tokens)
        return PairShare(pairs, self.references.of(pairs), scale.astype(np.float32))


def _both(pair: Pair) -> tuple[Example, Example]:
    return pair.chosen, pair.rejected


STAGE = Dpo

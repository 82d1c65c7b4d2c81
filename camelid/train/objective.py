"""What a stage of training brings: what it learns from, the loss of a few rows, and what is measured.

Everything else is the same for all stages: `run.py` holds the lock, the checkpoints, the record and the signals,
`loop.py` the optimiser, the ranks and the validation. A stage is one file in `stages/`: options, and an `Objective`.
No torch here, so that a plan can be made without it; a stage imports torch where it computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar

from camelid.data.verifying import Verifier
from camelid.model.config import ModelConfig
from camelid.train.options import RunOptions

if TYPE_CHECKING:
    from torch import Tensor

    from camelid.model.llama_torch import LlamaTorch
    from camelid.tokens.tokenizer import Tokenizer
    from camelid.train.losses.token_loss import Loss
    from camelid.train.mixed_precision import Learner
    from camelid.train.run_stage import RunStage
    from camelid.weights.weights import Weights

Share = TypeVar("Share")
"""What one rank reads in one step, in the stage's own words; on the host, cut into micro-batches later."""


class Size(NamedTuple):
    """How much one rank's share of a step is; the shares of all ranks are added up.

    Attributes:
        learned: what the step's losses are divided by: tokens that are targets, pairs, episodes.
        tokens: ids read, padding and all.
        flops: forward and backward.
    """

    learned: int
    tokens: int
    flops: float


class Objective(ABC, Generic[Share]):
    """What a stage learns. The gradient of a step is that of the sum of `loss` over all micro-batches of all ranks.

    How stages say what they are with it:

    - *Masked losses on rows* (pretraining, fine-tuning on conversations): a `RowObjective` of `rows.py`. A share is
      packed rows whose targets are IGNORED where nothing is learned; `loss` is `learner.token_loss`. Where a recipe
      says epochs, `open` works the steps out and puts them into `options`; `batch` stays a function of seed and step.
    - *Pairs* (reward models, DPO): a share is pairs, `learned` their number, and `micro_batches` never cuts one in two.
      `loss` computes from `learner.hidden`; accuracy and margin are further parts. A scalar head is a parameter more of
      what `model` gives.
    - *A second model* (DPO's reference, a teacher): `batch` is given the learner, so that a frozen model, spread by
      `parallel.shard` and run by a `Learner` of its own, can put its log-probabilities into the share; or `loss`
      asks it there and then. It is opened from a checkpoint in `inputs`, never from the weights of now.
    - *What the model wrote itself* (PPO, GRPO): `batch` generates with the weights of now, which the learner has, and
      scores it. It is not a function of the step alone then; where several steps learn from one generation, `whole`
      says after which of them a run may be saved and stopped.
    - *Few parameters* (LoRA, a frozen part): `model` gives parameters that need no gradient. They are neither changed
      nor have they a state of the optimiser.

    Every rank makes one, and calls each method together with the others, in the same order.

    Attributes:
        Options: what the recipe's table of this stage is read into.
        unit: what `Size.learned` counts, as metrics call it.
        validated: which of `metrics` are measured on validation rows too, as `validation_loss`.
        reads_more: whether `fingerprint` is of more than what `reading` gives, as of a reference.
        options: of the run, as resolved.
        seed: of the run.
        config: of the model that is trained.
        tokenizer: goes into each checkpoint.
        fingerprint: of all that decides what is learned from; a run goes on only where it is the same.
        inputs: files that run.json names by hash: the data's manifest, the checkpoint that a stage begins from.
        start: the model whose numbers are the first ones, for `open_weights`; None: random ones.
    """

    Options: ClassVar[type[RunOptions]]
    unit: ClassVar[str] = "trained_tokens"
    validated: ClassVar[tuple[str, ...]] = ("loss",)
    reads_more: ClassVar[bool] = False

    options: RunOptions
    seed: int
    config: ModelConfig
    tokenizer: Tokenizer
    fingerprint: str
    inputs: tuple[Path, ...]
    start: Path | None = None

    @classmethod
    def prepare(cls, stage: RunStage, options: Any) -> None:
        """Make what the stage learns from, in `stage.data`, where it is missing; nothing by default.

        Every rank calls it, before `open`, in a folder that no other process trains in. What one rank does for all is
        done within `stage.parallel.from_first`. It may be killed at any moment, and goes on when it is called again;
        where everything is there already it sees quickly that it is what the recipe asks for.

        Args:
            stage: as for `open`; `stage.show` is how a person sees what goes on.
            options: the stage's table, read.

        Raises:
            OptionError: the recipe is wrong, or what is there was made from something else.
            MissingError, FormatError, ResourceError: as preparing says.
        """

    @classmethod
    @abstractmethod
    def open(cls, stage: RunStage, options: Any) -> Self:
        """The stage of a run, its data opened.

        Args:
            stage: where it lies, the recipe, the ranks, and the model it begins from.
            options: the stage's table, read.

        Raises:
            OptionError: the recipe is wrong. MissingError, FormatError, VerifyError: the data is.
        """

    @classmethod
    def reading(cls, data: Path, options: Any, seed: int) -> Any:
        """What its steps read, told by their numbers alone: with `rows_of(step)` and `fingerprint()`, as `Batches` has
        them, for `camelid inspect`. None, where what is learned from is written while it is learned."""
        return None

    @abstractmethod
    def batch(self, step: int, learner: Learner) -> Share:
        """This rank's share of the change after `step` (from 0); the learner has the weights of now."""

    @abstractmethod
    def size(self, share: Share) -> Size:
        """How much it is."""

    @abstractmethod
    def micro_batches(self, share: Share) -> Iterator[tuple[Any, ...]]:
        """Its pieces, each as many rows as fit at once: arrays or tensors, which the loop brings to the device. All
        ranks have equally many."""

    @abstractmethod
    def loss(self, learner: Learner, divisor: int, *piece: Tensor) -> Loss:
        """What is minimised, of one piece: a sum over what is learned, divided by `divisor`.

        Its `parts` are measured, summed over pieces and ranks: the loss first, then whatever `metrics` names.
        Within `learner.looking()` nothing is learned, and the divisor is 1.
        """

    def metrics(self, means: Sequence[float]) -> dict[str, float]:
        """The parts of a step by name; `loss` among them."""
        return {"loss": means[0]}

    def validation(self) -> Iterable[Share]:
        """This rank's shares of the rows kept apart; none if the stage has none."""
        return ()

    def about(self) -> Mapping[str, Any]:
        """What metrics.jsonl says of the data when a session begins; asked on rank 0 only."""
        return {}

    def verifier(self, rank: int, n_ranks: int) -> Verifier:
        """Hashes this rank's share of the data beside the training."""
        return Verifier(Path(), ())

    def whole(self, step: int) -> bool:
        """Whether all that goes on after `step` is in the weights, so that a run may be saved and stopped there."""
        return True

    def model(self) -> LlamaTorch:
        """The model that is trained, on the meta device."""
        import torch

        from camelid.model.llama_torch import LlamaTorch

        with torch.device("meta"):
            return LlamaTorch(self.config, self.options.context)

    def written_as(self) -> Weights | None:
        """The model whose files its checkpoints resemble: tokenizer, chat templates, stop ids, sampling defaults. It is
        the one that it began from; None: there is a tokenizer, and nothing else."""
        from camelid.weights.open import open_weights

        return None if self.start is None else open_weights(self.start)

    def initialise(self, model: LlamaTorch) -> None:
        """Give a spread model its first numbers, where there is no checkpoint to go on from: those of `start`, or
        random ones."""
        from camelid.train.init import initialise, take_weights
        from camelid.weights.open import open_weights

        if self.start is None:
            initialise(model, self.seed)
        else:
            take_weights(model, open_weights(self.start))

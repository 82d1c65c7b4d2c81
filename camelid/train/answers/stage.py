"""What stages have in common that learn from a model's own answers: prompts, judges, and what ends a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import Field

from camelid.data.chats.model import read_chat_model
from camelid.data.chats.options import ChatDataOptions
from camelid.data.chats.prompts import Prompts
from camelid.data.manifest import NAME as MANIFEST
from camelid.data.shards import FOLDER
from camelid.data.verifying import Verifier
from camelid.errors import NumericsError, OptionError
from camelid.run_layout import TOKENIZER
from camelid.train.answers.groups import CODE, GroupWriter, Judges, Rewards, WrittenSteps, open_judges
from camelid.train.answers.packed import Packer, of_any_shape, with_room
from camelid.train.answers.preparing import beginning, check_context, files_of, prepare_records
from camelid.train.checkpoints.start import start_fingerprint
from camelid.train.objective import Objective
from camelid.train.options import EpochOptions, RunOptions
from camelid.weights.open import open_weights

if TYPE_CHECKING:
    from camelid.train.mixed_precision import Learner
    from camelid.train.parallel import Parallel
    from camelid.train.run_stage import RunStage

Share = TypeVar("Share")


class OwnAnswersOptions(EpochOptions, RunOptions):
    """How a model learns from its own answers.

    Raises:
        OptionError: numbers that do not go together.
    """

    data: ChatDataOptions = Field(default_factory=ChatDataOptions, description="The prompts.")
    start: str | None = Field(None, description="A stage of the recipe, or a model; the stage before, if not given.")
    reference: str | None = Field(None, description="What it is kept near to, likewise; its start, if not given.")
    reward: Rewards | None = Field(
        None, description="code:NAME, a stage of the recipe or a reward model; or several, each with its weight."
    )
    safety_reward: str | None = Field(None, description="A second model, which has the say where safety is at stake.")
    safety_threshold: float = Field(0.15, gt=0, lt=1, description="Below this probability of being safe it has.")
    prompts_per_generation: int = Field(16, gt=0, description="Prompts that are answered at once, on all devices.")
    answers: int = Field(1, gt=0, le=1024, description="Answers to each prompt.")
    max_tokens: int = Field(512, gt=0, description="Longest answer.")
    temperature: float = Field(1.0, gt=0, le=100, description="That answers are drawn at, and learned at.")
    top_p: float = Field(1.0, gt=0, le=1, description="Of the answers' sampling; below 1 what is learned is another.")
    max_running: int = Field(64, gt=0, description="Answers that are written at once.")
    minibatches: int = Field(1, gt=0, description="Steps in which all answers of a generation are learned once.")
    updates: int = Field(1, gt=0, description="How often they are learned from.")
    scale: Literal["group", "batch", "none"] = Field("group", description="Whose deviation divides an advantage.")
    epsilon: float = Field(0.2, gt=0, lt=1, description="How far the ratio of probabilities counts below 1, and above.")
    beta: float = Field(0.0, ge=0, le=1000, description="Weight of the divergence from the reference.")
    kl_limit: float = Field(10.0, gt=0, description="Mean divergence of a token, in nats, beyond which it ends.")

    def __init__(self, **values: Any) -> None:
        names = ("prompts_per_generation", "answers", "minibatches")
        super().__init__(
            **with_room(type(self), values, names, lambda prompts, answers, parts: prompts * answers // parts)
        )
        if self.prompts_per_generation % self.minibatches:
            said = f"{self.minibatches} do not divide prompts_per_generation, {self.prompts_per_generation}"
            raise OptionError(f"minibatches: {said}", param="minibatches")
        if self.max_tokens >= self.context:
            said = f"{self.max_tokens} leave no room for a prompt in a context of {self.context}"
            raise OptionError(f"max_tokens: {said}; raise context", param="max_tokens")
        if self.reward is not None and not self.reward:
            raise OptionError("reward: names nothing; give code:NAME or a reward model", param="reward")

    @property
    def span(self) -> int:
        """Steps that learn from one generation."""
        return self.minibatches * self.updates


class OwnAnswers(Objective[Share]):
    """A stage that answers prompts with the weights of now, has the answers judged, and learns from them.

    Args:
        options: of the stage.
        start: the model it begins from.
        reference: the one that it is kept near to.
        prompts: in their order; as many in a step as are learned from in one.
        judges: who says what answers are worth.
        stop_ids: what ends an answer.
        parallel: the ranks.
        folder: of the stage, for what was written.
    """

    validated = ()
    reads_more = True
    options: OwnAnswersOptions

    def __init__(
        self,
        options: OwnAnswersOptions,
        start: Path,
        reference: Path,
        prompts: Prompts,
        judges: Judges,
        stop_ids: Sequence[int],
        parallel: Parallel,
        folder: Path,
    ) -> None:
        options = of_any_shape(options, parallel)
        self.options, self.start, self.config = options, start, open_weights(start).config
        check_context(self.kind(), options.context, self.config)
        self.reference, self.prompts, self.judges, self.parallel = reference, prompts, judges, parallel
        self.tokenizer, self.fingerprint, self.seed = prompts.tokenizer, prompts.fingerprint(), prompts.seed
        self.packer = Packer(options, parallel)
        self.writer = GroupWriter(options, prompts, judges, stop_ids, parallel, folder)
        self._frozen: Learner | None = None
        share, left = divmod(options.prompts_per_generation, parallel.data_ranks * options.minibatches)
        if left or not share:
            raise OptionError(
                f"{self.kind()}.prompts_per_generation: {options.prompts_per_generation} cannot be divided among "
                f"{parallel.data_ranks} ranks and {options.minibatches} minibatches"
            )

    @classmethod
    def kind(cls) -> str:
        """The stage's, for messages."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def prepare(cls, stage: RunStage, options: Any) -> None:
        """Write the prompts as ids, if they are not there."""
        start, most = beginning(stage, options.start), options.context - options.max_tokens
        prepare_records(stage, options.data, "prompts", most, start)

    @classmethod
    def open(cls, stage: RunStage, options: Any) -> Self:
        if options.reward is None:
            raise OptionError(f"{stage.name}.reward: must be said: code:NAME, a stage or a reward model")
        start, reference = (beginning(stage, name) for name in (options.start, options.reference or options.start))
        prompts = Prompts(stage.data, options.prompts_per_generation // options.minibatches, stage.recipe.seed)
        judges = open_judges(stage, options.reward, options.safety_reward, options.safety_threshold)
        options = options.resolved(prompts.n_steps * options.updates)
        stops = _stop_ids(stage, prompts, start)
        objective = cls(options, start, reference, prompts, judges, stops, stage.parallel, stage.folder)
        named = [name for name in judges.names if not name.startswith(CODE)]
        named += [] if options.safety_reward is None else [options.safety_reward]
        others = [beginning(stage, name) for name in named] + ([reference] if options.beta else [])
        hashes = stage.parallel.from_first(lambda: [start_fingerprint(path) for path in others])
        objective.fingerprint = hashlib.sha256(" ".join([prompts.fingerprint(), *hashes]).encode()).hexdigest()
        objective.inputs = (stage.data / MANIFEST, *files_of(start))
        return objective

    @classmethod
    def reading(cls, data: Path, options: Any, seed: int) -> WrittenSteps:
        prompts = Prompts(data, options.prompts_per_generation // options.minibatches, seed)
        return WrittenSteps(data.parent, options.span, options.minibatches, prompts.fingerprint())

    def whole(self, step: int) -> bool:
        return step % self.options.span == 0

    def about(self) -> Mapping[str, Any]:
        return {"prompts": self.prompts.n_prompts, "rewards": list(self.judges.names)}

    def verifier(self, rank: int, n_ranks: int) -> Verifier:
        return Verifier(self.prompts.data / FOLDER, self.prompts.manifest.shards[rank::n_ranks])

    def frozen(self) -> Learner:
        """The reference, opened when it is first asked for."""
        from camelid.train.answers.frozen import frozen_learner

        if self._frozen is None:
            self._frozen = frozen_learner(self.reference, self.config, self.options, self.parallel)
        return self._frozen

    def check_divergence(self, kl: float) -> None:
        """End a run whose policy went too far; `kl` is in nats a token.

        Raises:
            NumericsError: it did, or is not a number.
        """
        if not kl <= self.options.kl_limit:
            raise NumericsError(
                f"{self.kind()}: the policy is {kl:.3g} nats a token from its reference, beyond kl_limit, "
                f"{self.options.kl_limit:g}; let a further stage begin from the last checkpoint, with a lower learning "
                "rate or a larger beta"
            )


def _stop_ids(stage: RunStage, prompts: Prompts, start: Path) -> tuple[int, ...]:
    """Ids that end an answer: of the chat format, of the model's files, and the one that ends texts."""
    eos = prompts.tokenizer.eos_id
    stops = read_chat_model(stage.data / TOKENIZER).chat_format.stop_ids(prompts.tokenizer)
    return tuple(dict.fromkeys([*stops, *open_weights(start).stop_ids, *([] if eos is None else [eos])]))

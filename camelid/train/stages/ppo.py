"""Proximal policy optimisation, Llama 2's last stage: a model learns from its own answers, which reward models judge.

An iteration: answers with the weights of now → scores, whitened → minibatches, one step each. What the paper leaves
open (docs/decisions/ppo.md) is as in Huang et al. 2024, arXiv:2403.17031.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from camelid.data.batches import IGNORED
from camelid.data.chats.examples import Example
from camelid.data.chats.model import read_chat_model
from camelid.data.chats.options import ChatDataOptions
from camelid.data.chats.prompts import Prompts
from camelid.data.manifest import NAME as MANIFEST
from camelid.data.shards import FOLDER
from camelid.data.verifying import Verifier
from camelid.errors import NumericsError, OptionError
from camelid.run_layout import TOKENIZER
from camelid.train.answers.groups import CODE, Group, GroupWriter, Judges, Rewards, WrittenSteps, open_judges
from camelid.train.answers.packed import Packer, flops_of, with_room
from camelid.train.answers.preparing import beginning, check_context, files_of, prepare_records
from camelid.train.checkpoints.start import start_fingerprint
from camelid.train.objective import Objective, Size
from camelid.train.options import EpochOptions, RunOptions
from camelid.weights.open import open_weights

if TYPE_CHECKING:
    from torch import Tensor

    from camelid.model.llama_torch import LlamaTorch
    from camelid.train.losses.token_loss import Loss
    from camelid.train.mixed_precision import Learner
    from camelid.train.parallel import Parallel
    from camelid.train.run_stage import RunStage

Floats = NDArray[np.float32]


class PpoOptions(EpochOptions, RunOptions):
    """How a model learns from rewards.

    Raises:
        OptionError: no reward, or numbers that do not go together.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        # Touvron et al. 2023, arXiv:2307.09288, section 3.2.3: 512 prompts, minibatches of 64, one step each, 1e-6.
        "llama2": {
            **{"lr": 1e-6, "beta": 0.01, "prompts_per_generation": 512, "minibatches": 8},
            **{"schedule": "constant", "warmup_steps": 0, "max_tokens": 1024, "context": 4096},
        },
        "llama2-70b": {  # and the 34B's
            **{"lr": 1e-6, "beta": 0.005, "prompts_per_generation": 512, "minibatches": 8},
            **{"schedule": "constant", "warmup_steps": 0, "max_tokens": 1024, "context": 4096},
        },
    }

    data: ChatDataOptions = Field(default_factory=ChatDataOptions, description="The prompts.")
    start: str | None = Field(None, description="A stage of the recipe, or a model; the stage before, if not given.")
    reference: str | None = Field(None, description="What it is kept near to, likewise; its start, if not given.")
    reward: Rewards | None = Field(None, description="A stage of the recipe, a reward model, or code:NAME; or several.")
    safety_reward: str | None = Field(None, description="A second model, which has the say where safety is at stake.")
    safety_threshold: float = Field(0.15, gt=0, lt=1, description="Below this probability of being safe it has.")
    unfinished_score: float | None = Field(
        None, description="Score of answers that were cut at their length's limit, instead of the reward's."
    )
    whiten_scores: bool = Field(True, description="Scores of a generation get mean 0 and deviation 1.")
    prompts_per_generation: int = Field(512, gt=0, description="Prompts that are answered at once, on all devices.")
    answers: Literal[1] = Field(1, description="Answers to each prompt.")
    max_tokens: int = Field(512, gt=0, description="Longest answer.")
    temperature: float = Field(1.0, gt=0, le=100, description="That answers are drawn at, and learned at.")
    top_p: float = Field(1.0, gt=0, le=1, description="Of the answers' sampling; below 1 what is learned is another.")
    max_running: int = Field(64, gt=0, description="Answers that are written at once.")
    minibatches: int = Field(8, gt=0, description="Steps in which all answers of a generation are learned once.")
    updates: int = Field(1, gt=0, description="How often they are learned from.")
    epsilon: float = Field(0.2, gt=0, lt=1, description="How far the ratio of probabilities counts.")
    value_epsilon: float = Field(0.2, gt=0, description="How far a value counts from what it was.")
    value_weight: float = Field(0.1, ge=0, le=1000, description="Of the values' loss beside the policy's.")
    gamma: float = Field(1.0, ge=0, le=1, description="What a reward of the next token is worth now.")
    lam: float = Field(0.95, ge=0, le=1, description="λ of the generalised advantages.")
    beta: float = Field(0.01, ge=0, le=1000, description="Weight of the divergence from the reference in the reward.")
    kl_limit: float = Field(10.0, gt=0, description="Mean divergence of a token, in nats, beyond which it ends.")
    scale: Literal["none"] = Field("none", description="Advantages come from values, not from groups.")

    def __init__(self, **values: Any) -> None:
        names = ("prompts_per_generation", "minibatches")
        super().__init__(**with_room(type(self), values, names, lambda prompts, parts: prompts // parts))
        if self.prompts_per_generation % self.minibatches:
            said = f"{self.minibatches} do not divide prompts_per_generation, {self.prompts_per_generation}"
            raise OptionError(f"minibatches: {said}", param="minibatches")
        if self.max_tokens >= self.context:
            said = f"{self.max_tokens} leave no room for a prompt in a context of {self.context}"
            raise OptionError(f"max_tokens: {said}; raise context", param="max_tokens")

    @property
    def span(self) -> int:
        """Steps that learn from one generation."""
        return self.minibatches * self.updates


@dataclass(frozen=True)
class Episode:
    """A prompt with its answer, and what is known of the answer's n tokens, (n,) each.

    Attributes:
        old, values: log-probabilities and values by the weights that wrote it.
        advantages, returns: see `losses.ppo.advantages_of`.
    """

    example: Example
    old: Floats
    values: Floats
    advantages: Floats
    returns: Floats

    @property
    def known(self) -> tuple[Floats, Floats, Floats, Floats]:
        """In the order of the loss."""
        return self.old, self.values, self.advantages, self.returns


class Ppo(Objective[Sequence[Episode]]):
    """Answers that are worth more than the value head foresaw become likelier; far from the reference they are worth
    less."""

    Options = PpoOptions
    unit = "answer_tokens"
    validated = ()
    reads_more = True
    options: PpoOptions

    def __init__(
        self,
        options: PpoOptions,
        start: Path,
        prompts: Prompts,
        judges: Judges,
        stop_ids: Sequence[int],
        parallel: Parallel,
        folder: Path,
    ) -> None:
        if parallel.device.type == "cpu" and options.compile is None:
            options = options.with_(compile=False)  # rows are as long as what is in them
        self.options, self.start, self.config = options, start, open_weights(start).config
        check_context("ppo", options.context, self.config)
        self.prompts, self.judges, self.parallel = prompts, judges, parallel
        self.tokenizer, self.fingerprint, self.seed = prompts.tokenizer, prompts.fingerprint(), prompts.seed
        self.reference = start
        self.packer = Packer(options, parallel)
        self.writer = GroupWriter(options, prompts, judges, stop_ids, parallel, folder)
        self._frozen: Learner | None = None
        self._now: Sequence[Episode] = ()
        self._seen: dict[str, float] = {}
        share, left = divmod(options.prompts_per_generation, parallel.data_ranks * options.minibatches)
        if left or not share:
            raise OptionError(
                f"ppo.prompts_per_generation: {options.prompts_per_generation} cannot be divided among "
                f"{parallel.data_ranks} ranks and {options.minibatches} minibatches"
            )

    @classmethod
    def prepare(cls, stage: RunStage, options: PpoOptions) -> None:
        """Write the prompts as ids, if they are not there."""
        start, most = beginning(stage, options.start), options.context - options.max_tokens
        prepare_records(stage, options.data, "prompts", most, start)

    @classmethod
    def open(cls, stage: RunStage, options: PpoOptions) -> Self:
        if not options.reward:
            raise OptionError(f"{stage.name}.reward: must be said: a stage, a reward model or code:NAME")
        start, seed = beginning(stage, options.start), stage.recipe.seed
        prompts = Prompts(stage.data, options.prompts_per_generation // options.minibatches, seed)
        judges = open_judges(stage, options.reward, options.safety_reward, options.safety_threshold)
        stops = read_chat_model(stage.data / TOKENIZER).chat_format.stop_ids(prompts.tokenizer)
        eos = prompts.tokenizer.eos_id
        ends = dict.fromkeys([*stops, *open_weights(start).stop_ids, *([] if eos is None else [eos])])
        options = options.resolved(prompts.n_steps * options.updates)
        objective = cls(options, start, prompts, judges, tuple(ends), stage.parallel, stage.folder)
        objective.reference = beginning(stage, options.reference or options.start)
        others = [beginning(stage, name) for name in judges.names if not name.startswith(CODE)]
        others += [] if options.safety_reward is None else [beginning(stage, options.safety_reward)]
        hashes = stage.parallel.from_first(lambda: [start_fingerprint(path) for path in (objective.reference, *others)])
        objective.fingerprint = hashlib.sha256(" ".join([prompts.fingerprint(), *hashes]).encode()).hexdigest()
        objective.inputs = (stage.data / MANIFEST, *files_of(start))
        return objective

    @classmethod
    def reading(cls, data: Path, options: PpoOptions, seed: int) -> WrittenSteps:
        prompts = Prompts(data, options.prompts_per_generation // options.minibatches, seed)
        return WrittenSteps(data.parent, options.span, options.minibatches, prompts.fingerprint())

    def model(self) -> LlamaTorch:
        """The policy, with a scalar head for values, which its model folder does not have."""
        import torch

        from camelid.model.llama_torch import LlamaTorch

        with torch.device("meta"):
            return LlamaTorch(self.config, self.options.context, score=True)

    def initialise(self, model: LlamaTorch) -> None:
        from camelid.train.init import initialise_score

        initialise_score(model, 0.0, self.seed)
        super().initialise(model)

    def whole(self, step: int) -> bool:
        return step % self.options.span == 0

    def batch(self, step: int, learner: Learner) -> Sequence[Episode]:
        number, within = divmod(step, self.options.span)
        if within == 0:
            self._now = self._generate(number, learner)
        assert self._now, "a run is saved where a generation ends"
        size = len(self._now) // self.options.minibatches
        start = within % self.options.minibatches * size
        return self._whitened(self._now[start : start + size])

    def size(self, share: Sequence[Episode]) -> Size:
        examples = [episode.example for episode in share]
        tokens = sum(len(example.ids) for example in examples)
        return Size(sum(len(episode.old) for episode in share), tokens, flops_of(self.config, examples))

    def micro_batches(self, share: Sequence[Episode]) -> Iterator[tuple[Any, ...]]:
        """Ids, positions and targets (R, T), and what is known of the targets, (4, R, T)."""
        for run, packed in self.packer.cut([[episode.example] for episode in share]):
            known = np.zeros((4, packed.ids.size), np.float32)
            for number, last in zip(run, packed.lasts.tolist(), strict=True):
                own = share[number].known
                known[:, last - len(own[0]) : last] = own
            yield packed.ids, packed.positions, packed.targets, known.reshape(4, *packed.ids.shape)

    def loss(self, learner: Learner, divisor: int, *piece: Tensor) -> Loss:
        from camelid.train.answers.frozen import values_of
        from camelid.train.losses.ppo import ppo_loss
        from camelid.train.losses.token_loss import token_logprobs

        ids, positions, targets, known = piece
        options, flat = self.options, targets.flatten()
        own = (flat != IGNORED).nonzero().flatten()
        hidden = learner.hidden(ids, positions)[own]
        logprobs, entropies = token_logprobs(hidden / options.temperature, learner.model.output, flat[own])
        old, old_values, advantages, returns = known.flatten(1)[:, own]
        clips = options.epsilon, options.value_epsilon, options.value_weight
        return ppo_loss(
            logprobs, values_of(learner, hidden), entropies, old, old_values, advantages, returns, divisor, *clips
        )

    def metrics(self, means: Sequence[float]) -> dict[str, float]:
        from camelid.train.losses.ppo import PARTS

        if not self._seen["kl"] <= self.options.kl_limit:
            raise NumericsError(
                f"ppo: the policy is {self._seen['kl']:.3g} nats a token from its reference, beyond kl_limit, "
                f"{self.options.kl_limit:g}; let a further stage begin from the last checkpoint, with a lower learning "
                "rate or a larger beta"
            )
        return {**dict(zip(PARTS, means, strict=True)), **self.writer.seen, **self._seen}

    def about(self) -> Mapping[str, Any]:
        return {"prompts": self.prompts.n_prompts, "rewards": list(self.judges.names)}

    def verifier(self, rank: int, n_ranks: int) -> Verifier:
        return Verifier(self.prompts.data / FOLDER, self.prompts.manifest.shards[rank::n_ranks])

    def _generate(self, number: int, learner: Learner) -> list[Episode]:
        """Answers by the weights of now to the prompts of a generation, judged, and what its steps need to know."""
        from camelid.train.answers.frozen import frozen_learner, measured

        groups = self.writer.groups(number, learner)
        examples = [group.examples()[0] for group in groups]
        own = measured(self, learner, examples, values=True)
        self._frozen = self._frozen or frozen_learner(self.reference, self.config, self.options, self.parallel)
        reference = [each[0] for each in measured(self, self._frozen, examples)]
        return self._episodes(groups, examples, own, reference)

    def _episodes(
        self,
        groups: Sequence[Group],
        examples: Sequence[Example],
        own: Sequence[NDArray[np.float32]],
        reference: Sequence[Floats],
    ) -> list[Episode]:
        import torch

        from camelid.train.losses.ppo import advantages_of, explained_variance, token_kl, token_rewards, whiten

        options, add = self.options, self._sum
        old, values = (torch.from_numpy(np.concatenate([each[part] for each in own])) for part in (0, 1))
        near = torch.from_numpy(np.concatenate(reference))
        lengths = torch.tensor([each.shape[1] for each in own])
        scores = torch.tensor([self._score(group) for group in groups], dtype=torch.float64)
        rewards = token_rewards(
            old, near, whiten(scores, add) if options.whiten_scores else scores, lengths, options.beta
        )
        advantages, returns = advantages_of(rewards, values, lengths, options.gamma, options.lam)
        kl, count = add(torch.stack([token_kl(old, near).double().sum(), lengths.sum().double()])).tolist()
        self._seen = {"kl": kl / count, "explained_variance": explained_variance(values, returns, add)}
        parts = [part.float().split(lengths.tolist()) for part in (old, values, advantages, returns)]
        return [
            Episode(example, *(known.numpy() for known in each))
            for example, *each in zip(examples, *parts, strict=True)
        ]

    def _score(self, group: Group) -> float:
        cut = not group.answers[0].finished
        if cut and self.options.unfinished_score is not None:
            return self.options.unfinished_score
        return float(group.rewards[0])

    def _whitened(self, share: Sequence[Episode]) -> list[Episode]:
        """The minibatch's advantages with mean 0 and deviation 1, over all ranks."""
        from dataclasses import replace

        import torch

        from camelid.train.losses.ppo import whiten

        every = whiten(torch.from_numpy(np.concatenate([episode.advantages for episode in share])), self._sum)
        parts = every.float().split([len(episode.advantages) for episode in share])
        return [replace(episode, advantages=part.numpy()) for episode, part in zip(share, parts, strict=True)]

    def _sum(self, values: Tensor) -> Tensor:
        return self.parallel.sum(values.to(self.parallel.device)).cpu()


STAGE = Ppo

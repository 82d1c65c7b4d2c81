"""Proximal policy optimisation, Llama 2's last stage: a model learns from its own answers, which reward models judge.

An iteration: answers with the weights of now → scores, whitened → minibatches, one step each. What the paper leaves
open (docs/decisions/ppo.md) is as in Huang et al. 2024, arXiv:2403.17031.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from camelid.data.batches import IGNORED
from camelid.data.chats.examples import Example
from camelid.train.answers.groups import Group
from camelid.train.answers.packed import flops_of
from camelid.train.answers.stage import OwnAnswers, OwnAnswersOptions
from camelid.train.objective import Size

if TYPE_CHECKING:
    from torch import Tensor

    from camelid.model.llama_torch import LlamaTorch
    from camelid.train.losses.token_loss import Loss
    from camelid.train.mixed_precision import Learner

Floats = NDArray[np.float32]


class PpoOptions(OwnAnswersOptions):
    """How a model learns from rewards."""

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

    answers: Literal[1] = Field(1, description="Answers to each prompt.")
    scale: Literal["none"] = Field("none", description="Advantages come from values, not from groups.")
    unfinished_score: float | None = Field(
        None, description="Score of answers that were cut at their length's limit, instead of the reward's."
    )
    whiten_scores: bool = Field(True, description="Scores of a generation get mean 0 and deviation 1.")
    value_epsilon: float = Field(0.2, gt=0, description="How far a value counts from what it was.")
    value_weight: float = Field(0.1, ge=0, le=1000, description="Of the values' loss beside the policy's.")
    gamma: float = Field(1.0, ge=0, le=1, description="What a reward of the next token is worth now.")
    lam: float = Field(0.95, ge=0, le=1, description="λ of the generalised advantages.")


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


class Ppo(OwnAnswers[Sequence[Episode]]):
    """Answers that are worth more than the value head foresaw become likelier; far from the reference they are worth
    less."""

    Options = PpoOptions
    unit = "answer_tokens"
    options: PpoOptions

    _now: Sequence[Episode] = ()
    _seen: Mapping[str, float] = MappingProxyType({})

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

        self.check_divergence(self._seen["kl"])
        return {**dict(zip(PARTS, means, strict=True)), **self.writer.seen, **self._seen}

    def _generate(self, number: int, learner: Learner) -> list[Episode]:
        """Answers by the weights of now to the prompts of a generation, judged, and what its steps need to know."""
        from camelid.train.answers.frozen import measured

        groups = self.writer.groups(number, learner)
        examples = [group.examples()[0] for group in groups]
        own = measured(self, learner, examples, values=True)
        reference = [each[0] for each in measured(self, self.frozen(), examples)]
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
        import torch

        from camelid.train.losses.ppo import whiten

        every = whiten(torch.from_numpy(np.concatenate([episode.advantages for episode in share])), self._sum)
        parts = every.float().split([len(episode.advantages) for episode in share])
        return [replace(episode, advantages=part.numpy()) for episode, part in zip(share, parts, strict=True)]

    def _sum(self, values: Tensor) -> Tensor:
        return self.parallel.sum(values.to(self.parallel.device)).cpu()


STAGE = Ppo

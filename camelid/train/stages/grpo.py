"""Group relative policy optimisation: a model learns from its own answers, each measured by others to its prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

    from camelid.train.losses.token_loss import Loss
    from camelid.train.mixed_precision import Learner
    from camelid.train.packing import Packed

Logprobs = Sequence[NDArray[np.float32]]
"""Of each answer's tokens, answer by answer."""


class GrpoOptions(OwnAnswersOptions):
    """How a model learns from groups of its own answers."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        # Shao et al. 2024, arXiv:2402.03300, section 4.2.
        "deepseekmath": {
            **{"lr": 1e-6, "beta": 0.04, "prompts_per_generation": 16, "answers": 64, "max_tokens": 1024},
            **{"schedule": "constant", "warmup_steps": 0, "weight_decay": 0.0},
        },
        # Yu et al. 2025, arXiv:2503.14476, section 4.1: 512 prompts, 16 answers, 16 steps of 512 answers.
        "dapo": {
            **{"lr": 1e-6, "loss": "dapo", "prompts_per_generation": 512, "answers": 16, "minibatches": 16},
            **{"epsilon_high": 0.28, "skip_flat": True, "max_tokens": 20480, "context": 24576},
            **{"schedule": "constant", "warmup_steps": 320, "weight_decay": 0.1},
        },
        # Liu et al. 2025, arXiv:2503.20783: neither lengths nor deviations divide, and no reference.
        "dr_grpo": {
            **{"lr": 1e-6, "loss": "dr_grpo", "scale": "none", "prompts_per_generation": 128, "answers": 8},
            **{"max_tokens": 3000, "schedule": "constant", "warmup_steps": 0, "weight_decay": 0.0},
        },
    }

    preset: str = Field("deepseekmath", description="Where values come from: deepseekmath, dapo or dr_grpo.")
    answers: int = Field(8, gt=1, le=1024, description="Answers to each prompt.")
    loss: Literal["grpo", "dr_grpo", "dapo"] = Field("grpo", description="What the losses of tokens are averaged over.")
    epsilon_high: float | None = Field(None, gt=0, le=100, description="How far the ratio counts above 1, if another.")
    skip_flat: bool = Field(True, description="Leave out prompts whose answers are all worth the same.")
    skip_unfinished: bool = Field(False, description="Leave out answers that were cut at their length's limit.")


@dataclass(frozen=True)
class Learned:
    """Answers that are learned from, and what is known of their tokens.

    Attributes:
        examples: prompt and answer.
        gains: (n,), the advantage of each.
        weights: (n,), of each of its tokens in the loss.
        old, reference: log-probabilities of its tokens by the weights that wrote it, and by the reference; None where
            they are those of now, and where there is no reference.
    """

    examples: Sequence[Example]
    gains: NDArray[np.float32]
    weights: NDArray[np.float32]
    old: Logprobs | None
    reference: Logprobs | None


@dataclass(frozen=True)
class Generation:
    """What one rank has written and shall learn from."""

    groups: Sequence[Group]
    old: Sequence[Logprobs] | None
    reference: Sequence[Logprobs] | None


class Grpo(OwnAnswers[Learned]):
    """What is better than the other answers to the same prompt becomes likelier, what is worse less likely."""

    Options = GrpoOptions
    unit = "answers"
    options: GrpoOptions

    _now: Generation | None = None

    def batch(self, step: int, learner: Learner) -> Learned:
        number, within = divmod(step, self.options.span)
        if within == 0:
            self._now = self._generate(number, learner)
        assert self._now is not None, "a run is saved where a generation ends"
        size = len(self._now.groups) // self.options.minibatches
        start = within % self.options.minibatches * size
        return self._learned(self._now, range(start, start + size))

    def size(self, share: Learned) -> Size:
        tokens = sum(len(example.ids) for example in share.examples)
        return Size(len(share.examples), tokens, flops_of(self.config, share.examples))

    def micro_batches(self, share: Learned) -> Iterator[tuple[Any, ...]]:
        for run, packed in self.packer.cut([[example] for example in share.examples]):
            some = slice(run.start, run.stop)
            each = [share.examples[number] for number in run]
            owners = packed.owners
            of_answers = (np.append(values[some], np.float32(0))[owners] for values in (share.gains, share.weights))
            old, reference = (
                np.full_like(owners, np.nan, np.float32) if values is None else _placed(packed, each, values[some])
                for values in (share.old, share.reference)
            )
            yield packed.ids, packed.positions, packed.targets, *of_answers, old, reference

    def loss(self, learner: Learner, divisor: int, *piece: Tensor) -> Loss:
        import torch

        from camelid.train.losses.grpo import token_losses
        from camelid.train.losses.token_loss import Loss, token_logprobs

        ids, positions, targets, gains, weights, old, reference = piece
        options, flat = self.options, targets.flatten()
        hidden = learner.hidden(ids, positions)
        own = (flat != IGNORED).nonzero().flatten()
        each, entropies = token_logprobs(hidden[own] / options.temperature, learner.model.output, flat[own])
        gains, weights, old, reference = (part.flatten()[own] for part in (gains, weights, old, reference))
        found = token_losses(
            each,
            each.detach() if options.span == 1 else old,
            gains,
            reference if options.beta else None,
            clip=(options.epsilon, options.epsilon_high or options.epsilon),
            beta=options.beta,
        )
        weighed = found.loss * weights
        with torch.no_grad():
            measured = (weighed, found.kl, entropies, found.clipped, torch.ones_like(each))
            parts = torch.stack([part.sum(dtype=torch.float64) for part in measured]) / divisor
        return Loss(weighed.sum() / divisor, parts)

    def metrics(self, means: Sequence[float]) -> dict[str, float]:
        loss, kl, entropy, clipped, tokens = means
        if self.options.beta:
            self.check_divergence(kl / tokens)
        return {
            **{"loss": loss, **self.writer.seen},
            **({"kl": kl / tokens} if self.options.beta else {}),
            **{"entropy": entropy / tokens, "clip_share": clipped / tokens},
        }

    def _generate(self, number: int, learner: Learner) -> Generation:
        """Answers by the weights of now to the prompts of a generation, judged, and what its steps need to know."""
        from camelid.train.answers.frozen import logprobs_of

        groups = self.writer.groups(number, learner)
        examples = [group.examples() for group in groups]
        old = logprobs_of(self, learner, examples) if self.options.span > 1 else None
        reference = logprobs_of(self, self.frozen(), examples) if self.options.beta else None
        return Generation(groups, old, reference)

    def _learned(self, now: Generation, run: range) -> Learned:
        """The answers of some groups that there is something to learn from; where that is none on any rank, all."""
        import torch

        from camelid.train.losses.grpo import NORMS, Totals

        options = self.options
        every = [(number, place) for number in run for place in range(options.answers)]
        kept = [
            (number, place)
            for number, place in every
            if not (options.skip_flat and now.groups[number].is_flat)
            and (now.groups[number].answers[place].finished or not options.skip_unfinished)
        ]
        counts = [[len(some), sum(len(now.groups[n].answers[at].ids) for n, at in some)] for some in (kept, every)]
        summed = (
            self.parallel.sum(torch.tensor(counts, dtype=torch.float64, device=self.parallel.device)).long().tolist()
        )
        chosen, (n_answers, n_tokens) = (kept, summed[0]) if summed[0][0] else (every, summed[1])
        totals, weigh = Totals(n_answers, n_tokens, options.max_tokens), NORMS[options.loss]
        examples = {number: now.groups[number].examples() for number in run}
        lengths = [len(now.groups[number].answers[place].ids) for number, place in chosen]
        return Learned(
            [examples[number][place] for number, place in chosen],
            np.array([now.groups[number].gains[place] for number, place in chosen], np.float32),
            np.array([weigh(length, totals) for length in lengths], np.float32),
            None if now.old is None else [now.old[number][place] for number, place in chosen],
            None if now.reference is None else [now.reference[number][place] for number, place in chosen],
        )


def _placed(packed: Packed, examples: Sequence[Example], values: Logprobs) -> NDArray[np.float32]:
    """(R, T), what is known of each learned token where it is the target; 0 elsewhere."""
    placed = np.zeros_like(packed.owners, np.float32)
    for example, last, own in zip(examples, packed.lasts, values, strict=True):
        assert len(own) == int(example.learned.sum()), "each token that was written is known"
        placed.reshape(-1)[last - len(own) : last] = own
    return placed


STAGE = Grpo

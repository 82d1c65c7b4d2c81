"""Group relative policy optimisation: a model learns from its own answers, each measured by others to its prompt."""

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

    from camelid.train.losses.token_loss import Loss
    from camelid.train.mixed_precision import Learner
    from camelid.train.packing import Packed
    from camelid.train.parallel import Parallel
    from camelid.train.run_stage import RunStage

Logprobs = Sequence[NDArray[np.float32]]
"""Of each answer's tokens, answer by answer."""


class GrpoOptions(EpochOptions, RunOptions):
    """How a model learns from its own answers.

    Raises:
        OptionError: no reward, or numbers that do not go together.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        # Shao et al. 2024, arXiv:2402.03300, section 4.2.
        "deepseekmath": {
            **{"lr": 1e-6, "beta": 0.04, "prompts_per_generation": 16, "answers": 64, "max_tokens": 1024},
            **{"schedule": "constant", "warmup_steps": 0, "weight_decay": 0.0},
        },
        # Yu et al. 2025, arXiv:2503.14476, section 4.1: 512 prompts, 16 answers, 16 steps of 512 answers.
        "dapo": {
            **{"lr": 1e-6, "loss": "dapo", "prompts_per_generation": 512, "answers": 16, "minibatches": 16},
            **{"clip_high": 0.28, "skip_flat": True, "max_tokens": 20480, "context": 24576},
            **{"schedule": "constant", "warmup_steps": 320, "weight_decay": 0.1},
        },
        # Liu et al. 2025, arXiv:2503.20783: neither lengths nor deviations divide, and no reference.
        "dr_grpo": {
            **{"lr": 1e-6, "loss": "dr_grpo", "scale": "none", "prompts_per_generation": 128, "answers": 8},
            **{"max_tokens": 3000, "schedule": "constant", "warmup_steps": 0, "weight_decay": 0.0},
        },
    }

    preset: str = Field("deepseekmath", description="Where values come from: deepseekmath, dapo or dr_grpo.")
    data: ChatDataOptions = Field(default_factory=ChatDataOptions, description="The prompts.")
    start: str | None = Field(None, description="A stage of the recipe, or a model; the stage before, if not given.")
    reference: str | None = Field(None, description="What it is kept near to, likewise; its start, if not given.")
    reward: Rewards | None = Field(
        None, description="code:NAME, a stage of the recipe or a reward model; or several, each with its weight."
    )
    prompts_per_generation: int = Field(16, gt=0, description="Prompts that are answered at once, on all devices.")
    answers: int = Field(8, gt=1, le=1024, description="Answers to each prompt.")
    max_tokens: int = Field(512, gt=0, description="Longest answer.")
    temperature: float = Field(1.0, gt=0, le=100, description="That answers are drawn at, and learned at.")
    top_p: float = Field(1.0, gt=0, le=1, description="Of the answers' sampling; below 1 what is learned is another.")
    max_running: int = Field(64, gt=0, description="Answers that are written at once.")
    minibatches: int = Field(1, gt=0, description="Steps in which all answers of a generation are learned once.")
    updates: int = Field(1, gt=0, description="How often they are learned from.")
    loss: Literal["grpo", "dr_grpo", "dapo"] = Field("grpo", description="What the losses of tokens are averaged over.")
    scale: Literal["group", "batch", "none"] = Field("group", description="Whose deviation divides an advantage.")
    clip: float = Field(0.2, gt=0, lt=1, description="How far the ratio of probabilities counts below 1, and above.")
    clip_high: float | None = Field(None, gt=0, le=100, description="Above 1, if it is another.")
    beta: float = Field(0.0, ge=0, le=1000, description="Weight of the divergence from the reference; 0: without one.")
    kl_limit: float = Field(10.0, gt=0, description="Mean divergence of a token, in nats, beyond which it ends.")
    skip_flat: bool = Field(True, description="Leave out prompts whose answers are all worth the same.")
    skip_unfinished: bool = Field(False, description="Leave out answers that were cut at their length's limit.")

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


class Grpo(Objective[Learned]):
    """What is better than the other answers to the same prompt becomes likelier, what is worse less likely."""

    Options = GrpoOptions
    unit = "answers"
    validated = ()
    reads_more = True
    options: GrpoOptions

    def __init__(
        self,
        options: GrpoOptions,
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
        check_context("grpo", options.context, self.config)
        self.prompts, self.judges, self.parallel, self.folder = prompts, judges, parallel, folder
        self.tokenizer, self.fingerprint, self.seed = prompts.tokenizer, prompts.fingerprint(), prompts.seed
        self.reference: Path | None = start if options.beta else None
        self.packer = Packer(options, parallel)
        self.writer = GroupWriter(options, prompts, judges, stop_ids, parallel, folder)
        self._frozen: Learner | None = None
        self._now: Generation | None = None
        share, left = divmod(options.prompts_per_generation, parallel.data_ranks * options.minibatches)
        if left or not share:
            raise OptionError(
                f"grpo.prompts_per_generation: {options.prompts_per_generation} cannot be divided among "
                f"{parallel.data_ranks} ranks and {options.minibatches} minibatches"
            )

    @classmethod
    def prepare(cls, stage: RunStage, options: GrpoOptions) -> None:
        """Write the prompts as ids, if they are not there."""
        start, most = beginning(stage, options.start), options.context - options.max_tokens
        prepare_records(stage, options.data, "prompts", most, start)

    @classmethod
    def open(cls, stage: RunStage, options: GrpoOptions) -> Self:
        if options.reward is None:
            raise OptionError(f"{stage.name}.reward: must be said: code:NAME, a stage or a reward model")
        start, seed = beginning(stage, options.start), stage.recipe.seed
        prompts = Prompts(stage.data, options.prompts_per_generation // options.minibatches, seed)
        judges = open_judges(stage, options.reward)
        chat_format = read_chat_model(stage.data / TOKENIZER).chat_format
        eos = prompts.tokenizer.eos_id
        stops = [
            *chat_format.stop_ids(prompts.tokenizer),
            *open_weights(start).stop_ids,
            *([] if eos is None else [eos]),
        ]
        options = options.resolved(prompts.n_steps * options.updates)
        objective = cls(options, start, prompts, judges, tuple(dict.fromkeys(stops)), stage.parallel, stage.folder)
        others = [beginning(stage, name) for name in judges.names if not name.startswith(CODE)]
        if options.beta:
            objective.reference = beginning(stage, options.reference or options.start)
            others.append(objective.reference)
        hashes = stage.parallel.from_first(lambda: [start_fingerprint(path) for path in others])
        objective.fingerprint = hashlib.sha256(" ".join([prompts.fingerprint(), *hashes]).encode()).hexdigest()
        objective.inputs = (stage.data / MANIFEST, *files_of(start))
        return objective

    @classmethod
    def reading(cls, data: Path, options: GrpoOptions, seed: int) -> WrittenSteps:
        prompts = Prompts(data, options.prompts_per_generation // options.minibatches, seed)
        return WrittenSteps(data.parent, options.span, options.minibatches, prompts.fingerprint())

    def whole(self, step: int) -> bool:
        return step % self.options.span == 0

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
            clip=(options.clip, options.clip_high or options.clip),
            beta=options.beta,
        )
        weighed = found.loss * weights
        with torch.no_grad():
            measured = (weighed, found.kl, entropies, found.clipped, torch.ones_like(each))
            parts = torch.stack([part.sum(dtype=torch.float64) for part in measured]) / divisor
        return Loss(weighed.sum() / divisor, parts)

    def metrics(self, means: Sequence[float]) -> dict[str, float]:
        loss, kl, entropy, clipped, tokens = means
        if self.options.beta and not kl / tokens <= self.options.kl_limit:
            raise NumericsError(
                f"grpo: the policy is {kl / tokens:.3g} nats a token from its reference, beyond kl_limit, "
                f"{self.options.kl_limit:g}; let a further stage begin from the last checkpoint, with a lower learning "
                "rate or a larger beta"
            )
        return {
            **{"loss": loss, **self.writer.seen},
            **({"kl": kl / tokens} if self.options.beta else {}),
            **{"entropy": entropy / tokens, "clip_share": clipped / tokens},
        }

    def about(self) -> Mapping[str, Any]:
        return {"prompts": self.prompts.n_prompts, "rewards": list(self.judges.names)}

    def verifier(self, rank: int, n_ranks: int) -> Verifier:
        return Verifier(self.prompts.data / FOLDER, self.prompts.manifest.shards[rank::n_ranks])

    def _generate(self, number: int, learner: Learner) -> Generation:
        """Answers by the weights of now to the prompts of a generation, judged, and what its steps need to know."""
        from camelid.train.answers.frozen import frozen_learner, logprobs_of

        groups = self.writer.groups(number, learner)
        examples = [group.examples() for group in groups]
        old = logprobs_of(self, learner, examples) if self.options.span > 1 else None
        reference = None
        if self.reference is not None:
            self._frozen = self._frozen or frozen_learner(self.reference, self.config, self.options, self.parallel)
            reference = logprobs_of(self, self._frozen, examples)
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

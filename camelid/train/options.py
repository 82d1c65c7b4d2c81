"""What a recipe says about training, whatever the stage: each stage's options are made of these, and its own."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from camelid.errors import OptionError, one_of
from camelid.model.config import ATTENTION, FEED_FORWARD
from camelid.options import Options

LOGIT_TOKENS = 2048  # scores over the vocabulary are computed for so many tokens at once
GPU_TOKENS, CPU_TOKENS = 16384, 8192  # of a micro-batch, where the recipe does not say

Beta = Annotated[float, Field(ge=0, le=0.999999)]  # 1 would divide by nothing, in float32 nearer numbers too


class LoraOptions(Options):
    """Low-rank adapters beside a frozen base: W x + s·B(A x), of which A and B alone learn (Hu et al. 2021,
    arXiv:2106.09685). Of the words of peft, with its defaults but for the targets.

    Raises:
        OptionError: a target that is no matrix of a layer.
    """

    rank: int = Field(16, gt=0, le=4096, description="Rows of A, columns of B.")
    alpha: float = Field(32.0, gt=0, le=1e6, description="s is alpha / rank.")
    rslora: bool = Field(False, description="s is alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732).")
    targets: tuple[str, ...] | Literal["all-linear"] = Field("all-linear", description="Matrices that get adapters.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of what A reads that is dropped while learning.")
    quantised: bool = Field(
        False,
        description="Keep the base in the blocks of its GGUF, and widen a matrix where it is multiplied "
        "(QLoRA, Dettmers et al. 2023, arXiv:2305.14314); else in the precision of the arithmetic.",
    )

    def __init__(self, **values: Any) -> None:
        if isinstance(values.get("targets"), str) and values["targets"] != "all-linear":
            values["targets"] = (values["targets"],)
        super().__init__(**values)
        unknown = [name for name in self.matrices if name not in (*ATTENTION, *FEED_FORWARD)]
        if unknown or not self.matrices or len(set(self.matrices)) < len(self.matrices):
            named = f"{unknown[0]!r} is none that can have one" if unknown else "none, or one of them twice"
            known = one_of(unknown[0] if unknown else "", (*ATTENTION, *FEED_FORWARD, "all-linear"))
            raise OptionError(f"targets: {named}; {known}", param="targets")

    @property
    def matrices(self) -> tuple[str, ...]:
        """Names of the matrices of a layer that get adapters."""
        return (*ATTENTION, *FEED_FORWARD) if isinstance(self.targets, str) else self.targets

    @property
    def scale(self) -> float:
        """What B(A x) is multiplied by."""
        return float(self.alpha / (self.rank**0.5 if self.rslora else self.rank))


class OptimOptions(Options):
    """What the optimiser does: how many steps of what size, at which rate. What is not given comes from the preset.

    The defaults are Llama 2's (Touvron et al. 2023, arXiv:2307.09288, section 2.2), with the 7B's learning rate.

    Raises:
        OptionError: an unknown preset, `batch_tokens` that are no whole number of rows, or a warm-up that does not
            end before the run does.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"llama2": {}}  # of a stage; the first is the one not asked for

    preset: str = Field("llama2", description="Where values that are not given come from: llama2 or modern.")
    steps: int = Field(500_000, gt=0, description="Changes of the weights.")
    batch_tokens: int = Field(4_194_304, gt=0, description="Tokens of a step, all devices and micro-batches together.")
    context: int = Field(4096, gt=1, description="Tokens of a row.")
    micro_rows: int | None = Field(None, gt=0, description="Rows a device works on at once; chosen if not given.")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Of the arithmetic; weights are kept in float32.")
    lora: LoraOptions | None = Field(None, description="Adapters learn instead of the model's own weights.")

    lr: float = Field(3e-4, gt=0, le=10, description="Highest learning rate.")
    schedule: Literal["cosine", "linear", "wsd", "constant"] = Field("cosine", description="How it moves.")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="Last learning rate, as a share of the highest.")
    warmup_steps: int = Field(2000, ge=0, description="Steps until the learning rate is highest.")
    decay_share: float = Field(0.2, gt=0, le=1, description="Share of the steps in which wsd goes down.")
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="Memory of AdamW's two averages.")
    eps: float = Field(1e-5, ge=1e-30, le=1, description="Added to AdamW's divisor.")
    weight_decay: float = Field(0.1, ge=0, le=1000, description="Of matrices; vectors (norms) do not decay.")
    clip: float = Field(1.0, ge=0, le=1e30, description="Longest gradient, as a global L2 norm; 0: no limit.")

    def __init__(self, **values: Any) -> None:
        preset = values.get("preset", next(iter(self.PRESETS)))
        if not isinstance(preset, str) or preset not in self.PRESETS:
            raise OptionError(f"preset: no {preset!r}; {one_of(str(preset), self.PRESETS)}")
        super().__init__(**{**self.PRESETS[preset], **values})
        if self.batch_tokens % self.context:
            raise OptionError(f"batch_tokens: {self.batch_tokens} is not a whole number of rows of {self.context}")
        if self.warmup_steps >= self.steps:
            raise OptionError(f"warmup_steps: {self.warmup_steps} is not below steps, {self.steps}; lower it")

    @property
    def rows(self) -> int:
        """Rows of a step, all ranks and micro-batches together."""
        return self.batch_tokens // self.context

    def rows_at_once(self, data_ranks: int, gpu: bool = True) -> int:
        """Rows of a micro-batch of one of `data_ranks` ranks that read different rows: as the recipe says, else so
        many that they have `CPU_TOKENS` or `GPU_TOKENS` tokens, and at least one. It depends on nothing that may
        change from start to start, so that a run can go on with the same bits."""
        share = max(1, self.rows // data_ranks)
        return min(share, self.micro_rows or max(1, (GPU_TOKENS if gpu else CPU_TOKENS) // self.context))


class EpochOptions(OptimOptions):
    """Of stages whose data is small and read a few times: steps and warm-up follow from how much there is.

    Steps that are given go before epochs, as in transformers, so that a recipe's epochs can be cut short.
    """

    epochs: float | None = Field(None, gt=0, le=1000, description="How often all data is read; steps go before it.")
    warmup_share: float = Field(0.0, ge=0, lt=1, description="Of the steps; warmup_steps are the fewest then.")

    def __init__(self, **values: Any) -> None:
        default = EpochOptions.model_fields["steps"].default
        super().__init__(**values if values.get("steps", default) == default else {**values, "epochs": None})

    def resolved(self, steps_per_epoch: int) -> Self:
        """The same with steps and warm-up as numbers, where everything is read once in so many steps.

        Raises:
            OptionError: the warm-up does not end before the run does.
        """
        steps = self.steps if self.epochs is None else max(1, math.ceil(self.epochs * steps_per_epoch))
        warmup = (
            max(self.warmup_steps, math.ceil(self.warmup_share * steps)) if self.warmup_share else self.warmup_steps
        )
        return self.with_(steps=steps, epochs=None, warmup_steps=warmup)


class TokenLossOptions(OptimOptions):
    """Of stages that learn the next token: pretraining, and fine-tuning on conversations."""

    z_loss: float = Field(0.0, ge=0, le=1, description="Weight of the square of log Z beside the loss.")


class SampleOptions(Options):
    """Answers to the same prompts every so many steps, so that one can read how the model changes."""

    prompts: tuple[str, ...] = Field((), max_length=64, description="What is asked; continued, without a chat format.")
    every: int = Field(0, ge=0, description="Steps between samples; 0: never.")
    max_tokens: int = Field(128, gt=0, description="Longest answer.")
    temperature: float = Field(0.0, ge=0, le=100, description="0 is greedy.")

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        if bool(self.every) != bool(self.prompts):
            raise OptionError("samples: want prompts and every, both or neither", param="samples")


class RunOptions(OptimOptions):
    """What every stage's options have: beside what the optimiser does, how that is carried out, saved and shown.

    The fields written here may change while a run pauses; all others must stay (`checkpoints/resume.py`).
    """

    compile: bool | None = Field(None, description="Let torch.compile fuse the arithmetic; if it pays, if not given.")
    recompute: bool = Field(False, description="Compute each layer again in the backward pass, to save memory.")
    validation_every: int = Field(0, ge=0, description="Steps between looks at the validation rows; 0: never.")
    validation_rows: int = Field(64, gt=0, description="Most rows that such a look reads.")

    tensor_parallel: int = Field(1, gt=0, description="Processes that share each layer's matrices.")
    save_every: int = Field(1000, ge=0, description="Steps between checkpoints; 0: only when a session ends.")
    keep_last: int = Field(2, gt=0, description="Newest checkpoints that are kept.")
    keep_every: int = Field(10_000, ge=0, description="Checkpoints of every such step are kept for ever; 0: none.")

    samples: SampleOptions = Field(SampleOptions(), description="Answers to the same prompts, over time.")
    log_to: tuple[Literal["tensorboard", "wandb"], ...] = Field((), description="Where else numbers go.")

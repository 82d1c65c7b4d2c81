"""What a training would take, before anything is started: parameters, arithmetic, memory, disk, days."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from camelid.errors import OptionError, ResourceError
from camelid.files import size_text
from camelid.model.config import ModelConfig, layer_shapes
from camelid.train.options import LOGIT_TOKENS, RunOptions
from camelid.train.planning.devices import DEVICES, Device, flops_per_token
from camelid.train.planning.models import beside, learned_parameters
from camelid.train.stages import FIRST

MFU = 0.45  # what good code reaches on large models; Llama 2 7B's published hours mean 0.44 on an A100
RUNTIME_BYTES = 2_000_000_000  # driver, communication, and what the allocator cannot use
_MOST_RANKS = 1 << 16
_SHARE = 0.95  # of a GPU's memory; the rest is never free


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank, at the worst moment of a step.

    Attributes:
        weights: float32, this rank's share.
        gradients: float32, its share.
        optimizer: AdamW's two averages, float32, its share.
        working: bf16 copies of the weights that compute just now, and their gradients before they are shared out.
        activations: what the backward pass needs of the forward pass, for one micro-batch.
        logits: scores of a piece of the micro-batch, and their gradient.
        runtime: driver, communication, fragments.
        reference, reward, safety_reward, rollouts: frozen models beside the one that learns, its share; 0: none.
    """

    weights: int
    gradients: int
    optimizer: int
    working: int
    activations: int
    logits: int
    runtime: int
    reference: int = 0
    reward: int = 0
    safety_reward: int = 0
    rollouts: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Plan:
    """A training on `ranks` GPUs of one kind.

    Attributes:
        parameters: of the model, a tied output counted once.
        tokens: that all steps read.
        flops_per_token: forward and backward, and forward of the models beside the one that learns.
        memory: of one rank.
        micro_rows: rows of a micro-batch.
        checkpoint_bytes: a model's or an adapter's folder with its training state; kept: how many are there at the end.
        mfu: share of the matrix units' peak that is assumed.
    """

    device: Device
    ranks: int
    parameters: int
    tokens: int
    flops_per_token: float
    memory: Memory
    micro_rows: int
    recompute: bool
    checkpoint_bytes: int
    kept: int
    mfu: float

    @property
    def flops(self) -> float:
        """Of the whole run."""
        return self.flops_per_token * self.tokens

    @property
    def gpu_hours(self) -> float:
        """Of all GPUs together."""
        return self.flops / (self.device.flops * self.mfu) / 3600

    @property
    def days(self) -> float:
        """From the first step to the last, without pauses."""
        return self.gpu_hours / self.ranks / 24

    @property
    def fits(self) -> bool:
        """Whether one rank's memory is enough."""
        return self.memory.total <= _SHARE * self.device.memory

    def as_json(self) -> dict[str, Any]:
        """Everything, with what follows from it."""
        own = {name: value for name, value in asdict(self).items() if name not in ("device", "memory")}
        memory = {**asdict(self.memory), "total": self.memory.total}
        more = {"gpu_hours": self.gpu_hours, "days": self.days, "flops": self.flops, "fits": self.fits}
        return {"gpu": self.device.title, **own, **more, "memory_bytes": memory}


def plan(
    config: ModelConfig,
    options: RunOptions,
    device: Device,
    ranks: int | None = None,
    mfu: float = MFU,
    stage: str = FIRST,
) -> Plan:
    """What a run would take on `ranks` GPUs; with None on the fewest that hold it, a power of two.

    `stage` is whose options these are.

    Raises:
        OptionError: the rows of a step cannot be shared evenly among the ranks.
        ResourceError: no number of such GPUs holds it.
    """
    if ranks is not None:
        return _plan(config, options, device, ranks, mfu, stage)
    first = _plan(config, options, device, options.tensor_parallel, mfu, stage)
    more = (_plan(config, options, device, ranks, mfu, stage) for ranks in _more_ranks(options, first.ranks))
    for estimate in (first, *more):
        if estimate.fits:
            return estimate
    raise ResourceError(_refusal(config, options, first, stage))


def check_fits(config: ModelConfig, options: RunOptions, estimate: Plan, stage: str = FIRST) -> None:
    """Refuse a plan that does not fit.

    Raises:
        ResourceError: says what is needed, what there is, and which settings would fit.
    """
    if not estimate.fits:
        raise ResourceError(_refusal(config, options, estimate, stage))


def memory_of(config: ModelConfig, options: RunOptions, ranks: int, stage: str = FIRST) -> Memory:
    """Bytes of one of `ranks` ranks that share weights, gradients and optimiser evenly (ZeRO-3, FSDP), in a stage of
    this name. Frozen models (`models.py`) are shared too, and lie in the precision that computes.

    Activations are counted for compiled code as Korthikanti et al. 2022 (arXiv:2205.05198) do, for a Llama: what a
    layer must keep for its backward pass. With `recompute` only each layer's input is kept, and one layer's whole.
    """
    learned = learned_parameters(config, options)
    share, learned_share = math.ceil(config.n_parameters / ranks), math.ceil(learned / ranks)
    bytes_each = 2 if options.precision == "bf16" else 4
    layer = sum(math.prod(shape) for shape in layer_shapes(config).values())
    ends = config.n_parameters - config.n_layers * layer
    in_precision = bytes_each if ranks == 1 else 4  # FSDP shards float32; a base that is kept in blocks is less
    frozen = 0 if options.lora is None else in_precision * share
    if ranks == 1:
        working = bytes_each * learned if bytes_each == 2 else 0
    elif options.lora is not None:
        working = 2 * bytes_each * layer // options.tensor_parallel + bytes_each * ends
    else:  # two layers, the next one being fetched, and the ends, which stay; gradients of a layer and the ends
        working = (2 * bytes_each + 4) * layer // options.tensor_parallel + (bytes_each + 4) * ends
    n_tokens = options.rows_at_once(ranks // options.tensor_parallel) * options.context
    kept = bytes_each * n_tokens * _kept_per_token(config, options.tensor_parallel)
    if options.recompute:
        activations = kept + bytes_each * n_tokens * config.dim * config.n_layers
    else:
        activations = kept * config.n_layers
    return Memory(
        weights=4 * learned_share + frozen,
        gradients=4 * learned_share,
        optimizer=8 * learned_share,
        working=working,
        activations=activations + 3 * bytes_each * n_tokens * config.dim,
        logits=(4 + 4 + bytes_each) * min(n_tokens, LOGIT_TOKENS) * config.vocab_size,
        runtime=RUNTIME_BYTES,
        **{model.name: bytes_each * share for model in beside(stage, options) if model.held},
    )


def checkpoint_bytes(config: ModelConfig, options: RunOptions) -> int:
    """A model folder in bf16, or an adapter's in float32, and the state: float32 weights and two averages."""
    return (12 + (2 if options.lora is None else 4)) * learned_parameters(config, options)


def kept_checkpoints(options: RunOptions) -> int:
    """How many checkpoints there are at the end: the newest ones, and those of milestones."""
    each = options.save_every or options.steps
    saved = (options.steps - 1) // each + 1  # after every `each` steps, and after the last
    older = max(0, saved - options.keep_last)  # the first ones, after steps each, 2 · each … older · each
    if not options.keep_every:
        return saved - older
    return saved - older + older * each // math.lcm(each, options.keep_every)


def _kept_per_token(config: ModelConfig, tensor_parallel: int) -> int:
    """Numbers that one layer keeps for each token.

    Inputs of both norms and what they give (4 D), q, k, v and the mixed values (2 Q + 2 K), gate, up and their product
    (3 F).
    """
    heads = 2 * config.q_dim + 2 * config.kv_dim
    return 4 * config.dim + (heads + 3 * config.ffn_dim) // tensor_parallel


def _plan(config: ModelConfig, options: RunOptions, device: Device, ranks: int, mfu: float, stage: str) -> Plan:
    groups = ranks // options.tensor_parallel
    if ranks < 1 or ranks % options.tensor_parallel or options.rows % groups:
        raise OptionError(
            f"{ranks} GPUs: cannot share the {options.rows} rows of a step evenly"
            + (f" in groups of tensor_parallel = {options.tensor_parallel}" if options.tensor_parallel > 1 else "")
            + "; take a power of two, or another batch_tokens"
        )
    return Plan(
        device=device,
        ranks=ranks,
        parameters=config.n_parameters,
        tokens=options.steps * options.batch_tokens,
        flops_per_token=flops_per_token(config, options.context) * _work(stage, options),
        memory=memory_of(config, options, ranks, stage),
        micro_rows=options.rows_at_once(groups),
        recompute=options.recompute,
        checkpoint_bytes=checkpoint_bytes(config, options),
        kept=kept_checkpoints(options),
        mfu=mfu,
    )


def _work(stage: str, options: RunOptions) -> float:
    """All arithmetic of a token as a multiple of training on it, which is three passes: forward, to the inputs and to
    the weights; the last is left out where they are frozen."""
    own = 3 if options.lora is None else 2
    return (own + sum(model.passes for model in beside(stage, options))) / 3


def _refusal(config: ModelConfig, options: RunOptions, estimate: Plan, stage: str) -> str:
    need, have = estimate.memory.total, int(_SHARE * estimate.device.memory)
    gpus = f"{estimate.ranks} {estimate.device.title}" if estimate.ranks > 1 else f"one {estimate.device.title}"
    return (
        f"needs {size_text(need)} on each of {gpus}, which can give {size_text(have)}; "
        f"{_advice(config, options, estimate, stage)}"
    )


def _advice(config: ModelConfig, options: RunOptions, estimate: Plan, stage: str) -> str:
    """Settings that would fit, the ones that cost least first."""
    changes: list[dict[str, Any]] = [{"micro_rows": 1}, {"recompute": True}, {"micro_rows": 1, "recompute": True}]
    for change in changes:
        if _plan(config, options.with_(**change), estimate.device, estimate.ranks, estimate.mfu, stage).fits:
            words = " ".join(f"--set {stage}.{name}={str(value).lower()}" for name, value in change.items())
            return f"{words} would fit"
    most = options.with_(**changes[-1])
    would_fit = "{} would fit" if options.recompute else f"--set {stage}.recompute=true and {{}} would fit"
    for ranks in _more_ranks(options, estimate.ranks):
        if _plan(config, most, estimate.device, ranks, estimate.mfu, stage).fits:
            return would_fit.format(f"{ranks} of them")
    for row in sorted(DEVICES.values(), key=lambda row: row.memory):
        if row.memory > estimate.device.memory and _plan(config, most, row, estimate.ranks, estimate.mfu, stage).fits:
            return would_fit.format(f"{estimate.ranks} {row.title}")
    return "take a smaller model, a shorter context, or more of tensor_parallel"


def _more_ranks(options: RunOptions, ranks: int) -> Iterator[int]:
    """Twice as many, and again, while each has a row."""
    while options.rows % (2 * ranks // options.tensor_parallel) == 0 and 2 * ranks <= _MOST_RANKS:
        ranks *= 2
        yield ranks

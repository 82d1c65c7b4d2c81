"""A model whose adapters alone learn: made, given its first numbers, and written in PEFT's form."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from camelid.errors import OptionError, UnsupportedError
from camelid.model.config import tensor_shapes
from camelid.train.adapters.linear import Drops, LoraLinear
from camelid.train.parallel import held
from camelid.weights.adapted import check_base, describe_base
from camelid.weights.lora import HEAD, Adapter, BaseModel, base_path, is_adapter, open_adapter, write_adapter
from camelid.weights.open import open_weights
from camelid.weights.quants import UNQUANTISED
from camelid.weights.weights import Weights

if TYPE_CHECKING:
    from camelid.model.llama_torch import LlamaTorch
    from camelid.train.options import LoraOptions, RunOptions
    from camelid.train.parallel import Parallel


@dataclass
class Adapters:
    """How a model is adapted; `LlamaTorch.adapters`.

    Attributes:
        options: rank, targets and the rest.
        drops: what all of them drop.
        base: what is known of the base, once it is there.
    """

    options: LoraOptions
    drops: Drops
    base: BaseModel | None = None

    def put_into(self, model: LlamaTorch) -> None:
        """Freeze a model that was made on the meta device, and give its matrices adapters."""
        known = {*tensor_shapes(model.config)} - {HEAD}
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name.removesuffix(".weight") not in known  # a head that is not the base's learns
        for number, layer in enumerate(model.layers):
            for place, (name, frozen) in enumerate(list(layer.named_children())):
                if isinstance(frozen, nn.Linear) and (name in self.options.matrices or self.options.quantised):
                    rank = self.options.rank if name in self.options.matrices else 0
                    place += number * len(list(layer.named_children()))
                    setattr(layer, name, LoraLinear(frozen, rank, self.options.scale, self.drops, place))
        model.adapters, model.again = self, self.drops.again


def adapt(model: LlamaTorch, options: RunOptions, parallel: Parallel) -> None:
    """Let a model, made on the meta device and not spread yet, learn by adapters, where its options say so.

    On one rank the frozen base is held in the precision of the arithmetic, once.

    Raises:
        UnsupportedError: adapters cannot be spread so.
    """
    lora = options.lora
    if lora is None:
        return
    if parallel.tensor_ranks > 1:
        raise UnsupportedError("lora: adapters are not split over tensor_parallel processes; set it to 1")
    if lora.quantised and (parallel.n_ranks > 1 or parallel.device.type != "cpu"):
        raise UnsupportedError("lora.quantised: blocks are widened by one process on a CPU; leave it out here")
    if lora.dropout and parallel.n_ranks > 1 and parallel.device.type != "cpu":
        raise UnsupportedError("lora.dropout: is for one process, or for CPUs; leave it out here")
    Adapters(lora, Drops(lora.dropout)).put_into(model)
    dtype = torch.bfloat16 if options.precision == "bf16" and parallel.n_ranks == 1 else torch.float32
    for name, parameter in list(model.named_parameters()):
        if not parameter.requires_grad:
            own = nn.Parameter(parameter.to(dtype), requires_grad=False)
            owner, _, last = name.rpartition(".")
            module = model.get_submodule(owner)
            in_blocks = lora.quantised and isinstance(module, LoraLinear) and last == "weight"
            module.register_parameter(last, None if in_blocks else own)


def base_of(start: Path | None, what: str = "lora") -> Path:
    """The model whose weights stay as they are: what a stage begins from, or of an adapter its base.

    Raises:
        OptionError: the stage begins from nothing. MissingError: the base is gone.
    """
    if start is None:
        raise OptionError(f"{what}: an adapter needs a model to begin from; give the recipe a base, or a stage before")
    return base_path(open_adapter(start)) if is_adapter(start) else start


@torch.no_grad()
def begin_adapters(model: LlamaTorch, start: Path, seed: int, name: str | None = None) -> None:
    """The base's blocks, where it keeps them, and the adapters' first numbers: those of the adapter that the stage
    begins from; else A as PEFT draws it (uniform within 1 / sqrt(in): Kaiming's with a = sqrt(5)) and B = 0.

    Args:
        model: spread, its frozen numbers there.
        start: the model or the adapter that the stage begins from.
        seed: of the run.
        name: what the recipe calls the base.

    Raises:
        OptionError: the adapter has another rank or other targets, or the base no blocks.
    """
    adapters = model.adapters
    assert adapters is not None
    base = open_weights(base_of(start))
    before = open_adapter(start) if is_adapter(start) else None
    adapters.base = describe_base(base, name if before is None else None, adapters.options.quantised)
    if adapters.options.quantised:
        _take_blocks(model, base)
    if before is not None:
        check_base(before, base)
        _check_alike(before, model)
    for own, module in adapted_matrices(model).items():
        for part, parameter in (("down", module.lora_A), ("up", module.lora_B)):
            local, places = held(parameter)
            if not local.numel():
                continue
            if before is not None:
                local.copy_(torch.from_numpy(getattr(before.pairs[own], part)[places]))
            elif part == "up":
                local.zero_()
            else:
                draw = np.random.default_rng([seed, zlib.crc32(own.encode())])
                first = draw.uniform(-1, 1, tuple(parameter.shape)).astype(np.float32) / math.sqrt(parameter.shape[1])
                local.copy_(torch.from_numpy(first[places]))


def adapted_matrices(model: LlamaTorch) -> dict[str, LoraLinear]:
    """Our name, as `layers.3.q_proj` → the module, of all that have an adapter."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    return {name: module for name, module in found.items() if module.rank}


def write_adapters(folder: Path, model: LlamaTorch, whole: dict[str, Tensor]) -> None:
    """The adapter's files in PEFT's form.

    Args:
        folder: must be there.
        model: whose adapters they are.
        whole: every parameter that learns, whole, by its name.
    """
    adapters = model.adapters
    assert adapters is not None
    assert adapters.base is not None, "an adapter is written after it was begun"
    arrays = {name: value.detach().float().cpu().numpy() for name, value in whole.items()}
    parts = {name: (arrays.pop(f"{name}.lora_A"), arrays.pop(f"{name}.lora_B")) for name in adapted_matrices(model)}
    heads = {HEAD: arrays[f"{HEAD}.weight"]} if model.config.scalar_head else {}  # a value head is not the model's
    write_adapter(folder, adapters.options, parts, adapters.base, heads, "SEQ_CLS" if heads else "CAUSAL_LM")


def _take_blocks(model: LlamaTorch, base: Weights) -> None:
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            tensor = base.tensors[name]
            if tensor.quant in UNQUANTISED:
                raise OptionError(
                    f"lora.quantised: {base.path} stores {name} as {tensor.quant}; convert it first: camelid convert "
                    "… --to gguf --quant Q4_K, or leave it out"
                )
            module.blocks, module.quant = torch.from_numpy(np.ascontiguousarray(tensor.blocks())), tensor.quant


def _check_alike(before: Adapter, model: LlamaTorch) -> None:
    """Refuse to go on with an adapter of another make."""
    assert model.adapters is not None
    modules, options = adapted_matrices(model), model.adapters.options
    ranks = {len(pair.down) for pair in before.pairs.values()}
    scales = [pair.scale for pair in before.pairs.values()]
    alike = all(math.isclose(scale, options.scale, rel_tol=1e-6) for scale in scales)
    if set(before.pairs) != set(modules) or ranks != {options.rank} or not alike:
        raise OptionError(
            f"lora: this stage begins from {before.path}, an adapter of other targets, rank or alpha; give it the same "
            "lora table, or begin from the two merged: camelid merge",
            param="lora",
        )

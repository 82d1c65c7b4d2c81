"""A frozen matrix with an adapter: y = W x + s·B(A d(x)), where A and B alone learn and d drops (Hu et al. 2021,
arXiv:2106.09685).

W stays in the numbers it is given, or in the blocks of its file (QLoRA, Dettmers et al. 2023, arXiv:2305.14314): then
it is widened where it is multiplied, forward and backward, and is never kept wide.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from camelid.weights.quants import QUANTS, dequantise_rows

_NOTHING = -1  # the seed of a forward pass that drops nothing


class Drops:
    """What is dropped in a forward pass: a function of its seed alone, so that it can be dropped again.

    Args:
        share: of the numbers; the others become larger by as much.

    Attributes:
        seed: of the pass that is under way, (), int64.
    """

    def __init__(self, share: float) -> None:
        self.share, self.seed = share, torch.tensor(_NOTHING)

    def begin(self, learns: bool) -> None:
        """A new pass. Its seed is drawn from torch's own generator, whose state every checkpoint holds."""
        if self.share:
            self.seed = torch.randint(2**62, ()) if learns else torch.tensor(_NOTHING)

    def again(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """Contexts of a layer's pass, and of the same pass computed again, however many others came between."""
        return nullcontext(), self._at(self.seed)

    @contextmanager
    def _at(self, seed: Tensor) -> Iterator[None]:
        now, self.seed = self.seed, seed
        try:
            yield
        finally:
            self.seed = now


class LoraLinear(nn.Linear):
    """A matrix of a layer, as `nn.Linear`, and beside it A (rank, in) and B (out, rank).

    Args:
        frozen: the matrix as it was made, on the meta device; its parameters become this one's.
        rank: of the adapter; 0: the matrix is frozen, and has none.
        scale: s.
        drops: what d drops.
        place: the matrix's number in the model.

    Attributes:
        blocks: the rows of W as its file has them, uint8 (out, bytes); None: `weight` holds them.
        quant: their kind.
    """

    lora_A: nn.Parameter  # noqa: N815 - PEFT's names
    lora_B: nn.Parameter  # noqa: N815

    def __init__(self, frozen: nn.Linear, rank: int, scale: float, drops: Drops, place: int) -> None:
        with torch.device("meta"):
            super().__init__(frozen.in_features, frozen.out_features, bias=frozen.bias is not None)
        self.weight, self.bias = frozen.weight, frozen.bias
        self.rank, self.scale, self.drops, self.place = rank, scale, drops, torch.tensor(place)
        self.blocks: Tensor | None = None
        self.quant = ""
        self._of_blocks, self._drop = _of_blocks(), _drop()
        if rank:
            self.lora_A = nn.Parameter(torch.empty(rank, frozen.in_features, device="meta"))
            self.lora_B = nn.Parameter(torch.empty(frozen.out_features, rank, device="meta"))

    def forward(self, x: Tensor) -> Tensor:
        if self.blocks is None:
            y = F.linear(x, self.weight, self.bias)
        else:
            y = self._of_blocks(x, self.blocks, self.quant)
            y = y if self.bias is None else y + self.bias
        if not self.rank:
            return y
        read = self._drop(x, self.drops.seed, self.place, self.drops.share) if self.drops.share else x
        return y + F.linear(F.linear(read, self.lora_A), self.lora_B) * self.scale

    @torch.no_grad()
    def whole(self) -> Tensor:
        """W + s·B A, float32 (out, in); where ranks share them every rank must ask, and each gets all of it."""
        wide = _gathered(self.weight) if self.blocks is None else widened(self.blocks, self.quant)
        return wide + (_gathered(self.lora_B) @ _gathered(self.lora_A)) * self.scale if self.rank else wide


def _gathered(parameter: Tensor) -> Tensor:
    own = parameter.detach()
    return (own.full_tensor() if isinstance(own, DTensor) else own).float()


def share_blocks(model: nn.Module, copy: nn.Module) -> None:
    """Let a copy's matrices be in the same blocks as a model's, where that has them so."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear) and module.blocks is not None:
            twin = copy.get_submodule(name)
            assert isinstance(twin, LoraLinear)
            twin.blocks, twin.quant = module.blocks, module.quant
            twin.register_parameter("weight", None)


def widened(blocks: Tensor, quant: str) -> Tensor:
    """Rows of a file's blocks as float32, (out, in)."""
    return torch.from_numpy(dequantise_rows(QUANTS[quant], blocks.cpu().numpy())).to(blocks.device)


@functools.cache
def _of_blocks() -> Any:
    """x (…, in) times a matrix in blocks as one operator, which keeps neither it nor x: (…, out)."""
    from torch import library

    @library.custom_op("camelid::linear_of_blocks", mutates_args=())
    def forward(x: Tensor, blocks: Tensor, quant: str) -> Tensor:
        return F.linear(x, widened(blocks, quant).to(x.dtype))

    @library.custom_op("camelid::linear_of_blocks_gradient", mutates_args=())
    def backward(grad: Tensor, blocks: Tensor, quant: str) -> Tensor:
        return grad @ widened(blocks, quant).to(grad.dtype)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.quant = inputs[2]

    def differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return backward(grad, ctx.saved_tensors[0], ctx.quant), None, None

    def columns(blocks: Tensor, quant: str) -> int:
        row = QUANTS[quant]
        return blocks.shape[1] // row.bytes_per_block * row.block

    forward.register_fake(lambda x, blocks, quant: x.new_empty(*x.shape[:-1], blocks.shape[0]))
    backward.register_fake(lambda grad, blocks, quant: grad.new_empty(*grad.shape[:-1], columns(blocks, quant)))
    forward.register_autograd(differentiate, setup_context=keep)
    return forward


@functools.cache
def _drop() -> Any:
    """x with a share of its numbers 0 and the others as much larger, as one operator; what is dropped is not kept but
    drawn again."""
    from torch import library

    def kept(like: Tensor, seed: Tensor, place: Tensor, share: float) -> Tensor:
        generator = torch.Generator(like.device)
        generator.manual_seed((int(seed) + 0x9E3779B97F4A7C15 * (int(place) + 1)) % 2**63)
        drawn = torch.rand(like.shape, generator=generator, device=like.device)
        return (drawn >= share).to(like.dtype).mul_(1 / (1 - share))

    @library.custom_op("camelid::drop", mutates_args=())
    def forward(x: Tensor, seed: Tensor, place: Tensor, share: float) -> Tensor:
        return x.clone() if int(seed) == _NOTHING else x * kept(x, seed, place, share)

    @library.custom_op("camelid::drop_gradient", mutates_args=())
    def backward(grad: Tensor, seed: Tensor, place: Tensor, share: float) -> Tensor:
        return grad.clone() if int(seed) == _NOTHING else grad * kept(grad, seed, place, share)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], inputs[2])
        ctx.share = inputs[3]

    def differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return backward(grad, *ctx.saved_tensors, ctx.share), None, None, None

    forward.register_fake(lambda x, seed, place, share: torch.empty_like(x))
    backward.register_fake(lambda grad, seed, place, share: torch.empty_like(grad))
    forward.register_autograd(differentiate, setup_context=keep)
    return forward

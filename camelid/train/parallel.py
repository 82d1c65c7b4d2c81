"""Many processes as one: what each holds of the model, and what they tell each other.

Nothing else in camelid knows how many there are. With `tensor` processes for each copy of the layers:

    mesh                 tensor 0   tensor 1      data: read other rows, hold other shards of each layer (FSDP2)
    data 0               rank 0     rank 1        tensor: read the same rows, hold other heads and other columns of
    data 1               rank 2     rank 3                the feed-forward block (DTensor)

Embedding, last norm and output matrix are sharded over all ranks: a token's scores are then computed whole on each, so
that a loss needs to know nothing. Parameters are float32, the gradients that arrive at them are sums over all rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from camelid.errors import CamelidError, OptionError, UnsupportedError
from camelid.model.config import ModelConfig
from camelid.model.llama_torch import LlamaTorch
from camelid.train.cluster.launch_env import read_launch

T = TypeVar("T")

_BY_ROWS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
_BY_COLUMNS = ("o_proj", "down_proj")


class Parallel:
    """The processes of a run, from torchrun's or srun's environment; one process without them. A context.

    Args:
        tensor_parallel: ranks that share each layer.

    Attributes:
        rank, n_ranks: this process and how many there are.
        data_rank, data_ranks: which share of a step's rows this process reads.
        device: where it computes: its own GPU, or the CPU where there is none.

    Raises:
        OptionError: the number of ranks cannot be divided so, or there are more ranks than GPUs on a machine.
    """

    def __init__(self, tensor_parallel: int = 1) -> None:
        self._launch = read_launch(os.environ)
        self.rank, self.n_ranks = self._launch.rank, self._launch.n_ranks
        if self.n_ranks % tensor_parallel:
            ranks = "is 1 process" if self.n_ranks == 1 else f"are {self.n_ranks} processes"
            raise OptionError(
                f"tensor_parallel: there {ranks}, which {tensor_parallel} does not divide; "
                f"start it with: torchrun --nproc-per-node {tensor_parallel} -m camelid train …"
            )
        self.tensor_ranks, self.data_ranks = tensor_parallel, self.n_ranks // tensor_parallel
        self.data_rank = self.rank // tensor_parallel
        self.device = _device(self._launch.local_rank, self.n_ranks)
        self._mesh: DeviceMesh | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def __enter__(self) -> Self:
        if self.n_ranks == 1:
            return self
        launch = self._launch
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        dist.init_process_group(
            "cuda:nccl,cpu:gloo" if self.device.type == "cuda" else "gloo",
            init_method=f"tcp://{launch.address}:{launch.port}"
            if "TORCHELASTIC_RUN_ID" not in os.environ
            else "env://",
            rank=self.rank,
            world_size=self.n_ranks,
            device_id=self.device if self.device.type == "cuda" else None,
        )
        sizes = (self.data_ranks, self.tensor_ranks)
        self._mesh = init_device_mesh(self.device.type, sizes, mesh_dim_names=("data", "tensor"))
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._mesh is not None:
            if kind is None:
                dist.barrier()  # gloo aborts a process whose neighbours are gone before it is
            self._mesh = None
            dist.destroy_process_group()

    def shard(self, model: LlamaTorch, precision: str = "fp32") -> LlamaTorch:
        """Spread a model that was made on the meta device, and give it memory (uninitialised) on this device.

        Several ranks: layers compute in `precision` ("bf16" or "fp32") from float32 parameters. One process: the
        parameters are float32 and the casting is the caller's.

        Raises:
            UnsupportedError: this architecture's layers cannot be shared. OptionError: its sizes cannot.
        """
        if self._mesh is not None:
            self._spread(model, self._mesh, torch.bfloat16 if precision == "bf16" else torch.float32)
        tables = {name: value.to(self.device) for name, value in model.named_buffers()}
        model.to_empty(device=self.device)
        for name, value in tables.items():
            owner, _, own = name.rpartition(".")
            setattr(model.get_submodule(owner), own, value)
        return model

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all that read different rows, in place; every rank gets it."""
        if self._mesh is not None:
            dist.all_reduce(value, group=self._mesh.get_group("data"))
        return value

    def any(self, flag: bool) -> bool:
        """Whether any rank says so."""
        if self._mesh is None:
            return flag
        said = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(said, op=dist.ReduceOp.MAX)
        return bool(said.item())

    def barrier(self) -> None:
        """Wait for every rank."""
        if self._mesh is not None:
            dist.barrier()

    def everyone(self, value: T) -> list[T]:
        """What each rank has, by rank; small things that can be pickled."""
        if self._mesh is None:
            return [value]
        values: list[Any] = [None] * self.n_ranks
        dist.all_gather_object(values, value)
        return values

    def each(self, work: Callable[[], T]) -> list[T]:
        """What each rank's `work` returns, by rank.

        Raises:
            CamelidError, OSError: a rank's work raised it; every rank does then, and none waits for another.
        """
        result: T | None = None
        failure: Exception | None = None
        try:
            result = work()
        except (CamelidError, OSError) as error:
            failure = error
        results = self.everyone((result, failure))
        for _, failure in results:
            if failure is not None:
                raise failure
        return [result for result, _ in results]  # type: ignore[misc]  # all have one

    def from_first(self, work: Callable[[], T]) -> T:
        """What rank 0's `work` returns, on every rank; raises as `each`."""
        return self.each(lambda: work() if self.is_main else None)[0]  # type: ignore[return-value]

    @torch.no_grad()
    def clip(self, parameters: Iterable[nn.Parameter], longest: float) -> Tensor:
        """Shorten the gradient to `longest` if it is longer (0: never); returns its L2 norm before, float32 ()."""
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = self.norm(grads)
        if 0 < longest < total + 1e-6:
            torch._foreach_mul_([_local(grad) for grad in grads], longest / (total + 1e-6))
        return total

    @torch.no_grad()
    def norm(self, tensors: list[Tensor]) -> Tensor:
        """L2 norm of all of them together, float32 (), whoever holds which part."""
        norms = torch._foreach_norm([_local(tensor) for tensor in tensors], 2, torch.float32)
        copies = torch.tensor([self._copies(tensor) for tensor in tensors], dtype=torch.float64, device=self.device)
        squares = (torch.stack(norms).double().square() / copies).sum()
        if self._mesh is not None:
            dist.all_reduce(squares)
        return squares.sqrt().float()

    @torch.no_grad()
    def whole(self, tensor: Tensor) -> Tensor:
        """All of a parameter, on the device, right on rank 0 only; every rank must ask, in the same order."""
        if not isinstance(tensor, DTensor):
            return tensor.detach()
        local, places = held(tensor)
        whole = torch.zeros(tensor.shape, dtype=local.dtype, device=local.device)
        if self._copies(tensor) == 1 or self.rank % self.tensor_ranks == 0:  # of equals, one speaks
            whole[places] = local
        dist.reduce(whole, 0)
        return whole

    def rest(self, model: LlamaTorch) -> None:
        """Parameters are the shards again, wherever a forward pass without a backward pass has left them whole."""
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _copies(self, tensor: Tensor) -> int:
        """How many ranks hold the same numbers."""
        if not isinstance(tensor, DTensor):
            return self.n_ranks
        parts = 1
        for size, placement in zip(tensor.device_mesh.shape, tensor.placements, strict=True):
            parts *= 1 if placement.is_replicate() else size
        return self.n_ranks // parts

    def _spread(self, model: LlamaTorch, mesh: DeviceMesh, dtype: torch.dtype) -> None:
        if self.tensor_ranks > 1:
            check_sizes(model.config, self.tensor_ranks)
            plan: dict[str, Any] = dict.fromkeys(_BY_ROWS, ColwiseParallel())
            plan |= dict.fromkeys(_BY_COLUMNS, RowwiseParallel())
            for layer in model.layers:
                parallelize_module(layer, mesh["tensor"], plan)
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for layer in model.layers:
            _sum_gradients(fully_shard(layer, mesh=mesh["data"], mp_policy=policy), 1)
        everyone = init_device_mesh(self.device.type, (self.n_ranks,), mesh_dim_names=("all",))
        # Ranks that read the same rows say the same of these parameters, and each of them is counted.
        _sum_gradients(fully_shard(model, mesh=everyone, mp_policy=policy), self.tensor_ranks)


def held(parameter: Tensor) -> tuple[Tensor, tuple[slice, ...]]:
    """What this rank holds of a parameter, and where in the whole that lies."""
    if not isinstance(parameter, DTensor):
        return parameter.detach(), tuple(slice(0, size) for size in parameter.shape)
    shape, first = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    places = tuple(slice(start, start + size) for start, size in zip(first, shape, strict=True))
    return parameter.detach().to_local(), places


def _sum_gradients(module: FSDPModule, divide_by: int) -> None:
    """Add gradients up instead of averaging them: a loss is divided by all ranks' tokens already."""
    module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    module.set_gradient_divide_factor(float(divide_by))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _device(local_rank: int, n_ranks: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise OptionError(
            f"rank {local_rank} of this machine finds {torch.cuda.device_count()} GPUs; start one process for each GPU"
        )
    return torch.device("cuda", local_rank)


def check_sizes(config: ModelConfig, ranks: int) -> None:
    """Refuse layers that so many ranks cannot share.

    Raises:
        UnsupportedError: the architecture does not allow it. OptionError: a size is no multiple of `ranks`.
    """
    if config.qk_norm:
        raise UnsupportedError("tensor_parallel: this architecture normalises all heads together; set it to 1")
    for name in ("n_heads", "n_kv_heads", "ffn_dim"):
        if getattr(config, name) % ranks:
            raise OptionError(f"tensor_parallel: {ranks} does not divide the model's {name}, {getattr(config, name)}")

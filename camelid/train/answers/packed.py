"""Groups of whole answers (a pair, one alone) as micro-batches: none is cut, and on a CPU next to nothing fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from camelid.data.chats.examples import Example
from camelid.model.config import ModelConfig
from camelid.train.options import RunOptions
from camelid.train.packing import Packed, pack, pieces
from camelid.train.planning.devices import matrix_parameters

if TYPE_CHECKING:
    from camelid.train.parallel import Parallel

_Run = TypeVar("_Run", bound=RunOptions)

_STEP = 64  # tokens by which a row is made longer until all fits


class Packer:
    """Cuts what a rank reads in a step into micro-batches; every rank has equally many.

    Args:
        options: of the stage; `micro_rows`, if given, is the most rows at once.
        parallel: the ranks.
        together: examples of a group, for which there is room at least.

    Attributes:
        rows: of a micro-batch, at most.
    """

    def __init__(self, options: RunOptions, parallel: Parallel, together: int = 1) -> None:
        gpu = parallel.device.type == "cuda"
        self._context, self._parallel = options.context, parallel
        self._fixed = gpu or bool(options.compile)  # compiled code is made for one shape
        usual = options.rows_at_once(parallel.data_ranks, gpu) // (1 if self._fixed else 2)  # fused keeps less
        self.rows = options.micro_rows or max(together, usual)

    def cut(self, groups: Sequence[Sequence[Example]]) -> Iterator[tuple[range, Packed]]:
        """Numbers of groups, and their examples in rows; every rank must ask. Where a rank has fewer than another, its
        last ones are empty.

        Raises:
            OptionError: a group does not fit.
        """
        runs = list(pieces(groups, self._context, self.rows))
        runs += [range(0)] * (max(self._parallel.everyone(len(runs))) - len(runs))
        for run in runs:
            yield run, self._packed([example for number in run for example in groups[number]])

    def _packed(self, examples: Sequence[Example]) -> Packed:
        if self._fixed:
            return pack(examples, self._context, rows=self.rows)
        lengths = [len(example.ids) for example in examples] or [1]
        width = min(self._context, max(*lengths, sum(lengths)))
        n_rows = len(pack(examples, self._context).ids)
        if n_rows > 1:
            width = max(max(lengths), -(-sum(lengths) // n_rows))
            while width < self._context and len(pack(examples, width).ids) > n_rows:
                width = min(self._context, width + _STEP)
        return pack(examples, width)


def of_any_shape(options: _Run, parallel: Parallel) -> _Run:
    """What a stage runs with whose rows are as long as what is in them: on a CPU nothing is compiled, where the recipe
    does not ask for it, since code is compiled for one shape."""
    if parallel.device.type == "cpu" and options.compile is None:
        return options.with_(compile=False)
    return options


def with_room(
    kind: type[RunOptions], values: Mapping[str, Any], names: Sequence[str], rows: Callable[..., int]
) -> dict[str, Any]:
    """A table with `batch_tokens` as what a step may read at most, where it does not say it.

    Args:
        kind: of the options.
        values: of the table.
        names: of options that decide how many rows that is.
        rows: called with their values.
    """
    preset = kind.PRESETS.get(str(values.get("preset", next(iter(kind.PRESETS)))), {})
    said = [{**preset, **values}.get(name, kind.model_fields[name].default) for name in (*names, "context")]
    if "batch_tokens" in values or not all(isinstance(value, int) and value > 0 for value in said):
        return dict(values)
    *own, context = said
    return {**values, "batch_tokens": max(1, rows(*own)) * context}


def flops_of(config: ModelConfig, examples: Sequence[Example]) -> float:
    """Arithmetic of learning from examples, forward and backward, each on its own: see `batch_flops`."""
    lengths = [len(example.ids) for example in examples]
    squares = float(sum(length * length for length in lengths))
    return 6.0 * matrix_parameters(config) * sum(lengths) + 12.0 * config.n_layers * config.q_dim * squares

"""Weights: an opened model, whichever format its files have; and the check that its tensors fit its config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from camelid.errors import FormatError, MissingError, first_few
from camelid.model.config import ModelConfig, tensor_shapes
from camelid.weights.tensor import Tensor

if TYPE_CHECKING:
    from camelid.tokens.tokenizer import Tokenizer

T = TypeVar("T")
Format = Literal["gguf", "hf", "meta"]


@dataclass
class Weights:
    """A model that has been opened: its shape is read, its numbers are not.

    Attributes:
        path: what was opened.
        format: of the files.
        config: the shape.
        tensors: exactly the names of `tensor_shapes(config)`, rows in camelid's order.
        chat_template: the model's own Jinja template, if its files hold one.
        named_templates: other templates of its own, such as `tool_use`.
        stop_ids: every id that the files say ends a text or a turn.
        sampling: what the files recommend, in the words of `SamplingParams`, as it stands there.
        metadata: everything else the files say of themselves, less the vocabulary.
        files: all files that hold the model.
        load_tokenizer: what opens the tokenizer; None if the files hold none.
        gguf_fields: all fields of a GGUF, vocabulary included, so that another GGUF can say the same.
    """

    path: Path
    format: Format
    config: ModelConfig
    tensors: Mapping[str, Tensor]
    chat_template: str | None = None
    named_templates: Mapping[str, str] = field(default_factory=dict)
    stop_ids: tuple[int, ...] = ()
    sampling: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    load_tokenizer: Callable[[], Tokenizer] | None = None
    gguf_fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the files hold a vocabulary."""
        return self.load_tokenizer is not None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, read on first use.

        Raises:
            MissingError: the files hold none.
        """
        if self.load_tokenizer is None:
            raise MissingError(
                f"{self.path}: no tokenizer beside the weights; put the model's tokenizer.json or tokenizer.model there"
            )
        return self.load_tokenizer()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as stored."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def check_tensors(where: Path, config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the tensors of a file (our name → shape) with what a model of this shape has.

    Raises:
        FormatError: tensors are missing, too many or of another shape; the first few are named.
    """
    wanted = tensor_shapes(config)
    problems = {
        "lacks": [name for name in wanted if name not in shapes],
        "has tensors that its config does not know:": [name for name in shapes if name not in wanted],
        "has tensors of other shapes than its config says:": [
            f"{name} {shapes[name]}, not {shape}" for name, shape in wanted.items() if shapes.get(name, shape) != shape
        ],
    }
    for problem, names in problems.items():
        if names:
            raise FormatError(f"{where}: {problem} {first_few(names)}; fetch or convert the model again")


def by_our_names(
    where: Path, config: ModelConfig, tensors: Mapping[str, T], rename: Callable[[str], str]
) -> dict[str, T]:
    """A format's tensors by our names; what has no name of ours keeps its own, for `check_tensors` to tell.

    Raises:
        FormatError: the config claims more layers than there are tensors, which only a damaged one does.
    """
    if config.n_layers > len(tensors):
        raise FormatError(f"{where}: {config.n_layers} layers, but {len(tensors)} tensors; fetch or convert it again")
    ours = {rename(name): name for name in tensor_shapes(config)}
    return {ours.get(name, name): value for name, value in tensors.items()}

"""An adapter merged into its base: written a matrix at a time, and compared with the two before it is done."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camelid.chat.adapters.base import open_with_base
from camelid.errors import NumericsError, OptionError
from camelid.model import reference
from camelid.model.config import ModelConfig
from camelid.model.rope import rope_table
from camelid.pedigree import write_pedigree
from camelid.weights.adapted import adapted, is_trained_on
from camelid.weights.convert import save_weights
from camelid.weights.lora import HEAD, Adapter
from camelid.weights.open import open_weights
from camelid.weights.weights import Weights
from camelid.weights.writing import Progress

log = logging.getLogger(__name__)

Array = NDArray[np.float32]
PROMPTS = (
    "The capital of France is Paris, and the capital of Italy is",
    "def add(first, second):\n    return",
    "Question: How many legs have three spiders?\nAnswer:",
)
_MOST_IDS = 128  # of a prompt that are compared


@dataclass(frozen=True)
class Merged:
    """What became of a merge.

    Attributes:
        path: the new model.
        largest_difference: between logits of base and adapter, in float32, and of the merged model as it was written.
        largest_logit: of them all, to compare it with.
        same_next: places at which both find the same token likeliest, of `places`.
        rates: it is a reward model, and its rewards are compared instead of logits.
        unties: the output matrix was the embedding, and is a matrix of its own now.
    """

    path: Path
    largest_difference: float
    largest_logit: float
    same_next: int
    places: int
    unties: bool
    rates: bool


def merge(
    adapter: str | Path,
    target: Path,
    *,
    base: str | Path | None = None,
    format: str = "hf",
    quant: str | None = None,
    prompts: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Merged:
    """Write W + s·B·A, computed in float32, of every adapted matrix, and the base's other tensors.

    Args:
        adapter: its folder.
        target: the new folder or .gguf file.
        base: path or name; else what the adapter's files name.
        format, quant, overwrite, progress: as `save_weights`; without a quant nothing is rounded: merged matrices are
            F32, and all are in formats of plain numbers.
        prompts: texts whose logits are compared; else a few of its own.

    Raises:
        OptionError: the base is not the one, or not in the blocks that the adapter was trained on.
        NumericsError: logits are no numbers.
        MissingError, FormatError, ResourceError: as opening and writing say.
    """
    opened, weights = open_with_base(adapter, base)
    _check_trained_on(opened, weights)
    whole = adapted(weights, opened)
    unties = weights.config.ties_embeddings and not (whole.config.ties_embeddings or whole.config.scalar_head)
    if unties:
        log.warning(
            "%s: the embedding was trained apart from the output matrix; they are two matrices now", opened.path
        )
    texts = _texts(weights, tuple(prompts) or PROMPTS)
    expected = [_logits(_with_whole(weights, opened), ids, opened) for ids in texts]
    plain = "F32" if quant is None and format != "gguf" else quant
    made = save_weights(whole, target, format=format, quant=plain, overwrite=overwrite, progress=progress)
    written = open_weights(made)
    found = [_logits(written, ids) for ids in texts]
    one, other = np.concatenate(expected), np.concatenate(found)
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise NumericsError(f"{made}: logits are not finite; the adapter or its base is ruined")
    same = int((one.argmax(1) == other.argmax(1)).sum())
    result = Merged(
        made, float(abs(one - other).max()), float(abs(one).max()), same, len(one), unties, whole.config.scalar_head
    )
    options = {"to": format, "quant": quant, "base": opened.base_name, "adapter": str(opened.path)}
    counts = {name: value for name, value in asdict(result).items() if name != "path"}
    write_pedigree(made, "merge", [*weights.files, *opened.files], options, counts)
    return result


def _with_whole(weights: Weights, adapter: Adapter) -> Weights:
    """A base with what was trained whole, and without what is of low rank."""
    return adapted(weights, replace(adapter, pairs={}))


def _check_trained_on(adapter: Adapter, weights: Weights) -> None:
    if is_trained_on(adapter, weights):
        return
    assert adapter.base is not None
    if adapter.base.quantised:
        raise OptionError(
            f"{adapter.path}: was trained on the blocks of {adapter.base.path}, and {weights.path} has other numbers; "
            "merge it into that file: leave --base out",
            param="base",
        )
    log.warning(
        "%s: was trained on %s; %s is the same model stored otherwise, so what was learned meets other roundings",
        adapter.path, adapter.base.path, weights.path,
    )  # fmt: skip


def _texts(weights: Weights, prompts: Sequence[str]) -> list[list[int]]:
    if not weights.has_tokenizer:
        return [list(range(1, min(17, weights.config.vocab_size)))]
    tokenizer = weights.tokenizer
    ids = [tokenizer.encode(prompt, bos=tokenizer.adds_bos)[:_MOST_IDS] for prompt in prompts]
    if not all(ids):
        raise OptionError("prompt: is empty; give at least one character", param="prompt")
    return ids


def _logits(weights: Weights, ids: Sequence[int], adapter: Adapter | None = None) -> Array:
    """Logits after each id in float32, (T, V), of a model whose tensors are read when they are multiplied."""
    config: ModelConfig = weights.config
    tensors = _OneByOne(weights, np.asarray(ids), adapter)
    cos, sin = rope_table(config, np.arange(len(ids)), len(ids))
    hidden = reference.forward(config, tensors, np.arange(len(ids)), cos, sin)
    if config.scalar_head:
        rewards: Array = hidden @ tensors[HEAD].T
        return rewards
    return reference.logits(config, tensors.with_whole_embedding(), hidden)


class _OneByOne(Mapping[str, Array]):
    """A model's tensors as float32, none kept; of the embedding the rows of a text alone, where it is looked up."""

    def __init__(self, weights: Weights, ids: NDArray[np.int64], adapter: Adapter | None) -> None:
        self._weights, self._ids, self._adapter, self._whole = weights, ids, adapter, False

    def with_whole_embedding(self) -> _OneByOne:
        """The same, for the output matrix."""
        self._whole = True
        return self

    def __getitem__(self, name: str) -> Array:
        module, _, part = name.rpartition(".")
        if part in ("lora_A", "lora_B"):
            if self._adapter is None or module not in self._adapter.pairs:
                raise KeyError(name)
            pair = self._adapter.pairs[module]
            return pair.down if part == "lora_A" else pair.up * np.float32(pair.scale)
        tensor = self._weights.tensors[name]
        return tensor.rows(self._ids) if name == "embed_tokens" and not self._whole else tensor.array()

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights.tensors)

    def __len__(self) -> int:
        return len(self._weights.tensors)

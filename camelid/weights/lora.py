"""Low-rank adapters in PEFT's form, read and written. What they are to a base, `adapted.py` says.

    adapter_config.json          rank, alpha, targets, and the base's name or path
    adapter_model.safetensors    A (rank, in) and B (out, rank) of each adapted matrix, in PEFT's names
    base.json                    what camelid knows of the base besides (`BaseModel`); PEFT does without

An adapted matrix is W + s·B·A, s = alpha / rank or alpha / sqrt(rank) (Hu et al. 2021, arXiv:2106.09685).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from camelid.errors import FormatError, MissingError, NumericsError, UnsupportedError
from camelid.model.config import ATTENTION, FEED_FORWARD
from camelid.weights.formats.hf import read_json
from camelid.weights.formats.safetensors_file import Stored, read_safetensors, write_header
from camelid.weights.formats.tensor_names import hf_name
from camelid.weights.tensor import Tensor

Array = NDArray[np.float32]

CONFIG, TENSORS, PICKLE, BASE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "base.json"
FILES = (CONFIG, TENSORS, PICKLE)
PREFIX = "base_model.model."
HEAD = "score"  # of reward models: the one module that no model of the family has by itself
_PAIR = re.compile(r"(?P<module>.+)\.lora_(?P<part>[AB])\.weight")
# What changes the arithmetic or the base, and is not W + s·B·A. Each may be there where it says no.
_REFUSED = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "lora_bias": "a bias of its own",
    "fan_in_fan_out": "transposed matrices",
    "layer_replication": "repeated layers",
    "trainable_token_indices": "single trained tokens",
    "target_parameters": "adapted parameters that are no matrices of a layer",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow's routing",
    "use_bdlora": "block-diagonal LoRA",
    "kasa_config": "KaSA",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
}
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal")  # others change the base when training begins


@dataclass(frozen=True)
class Pair:
    """What is added to a matrix (out, in): scale · up · down.

    Attributes:
        down: A, float32 (rank, in).
        up: B, float32 (out, rank).
    """

    down: Array
    up: Array
    scale: float

    def delta(self) -> Array:
        """The whole, float32 (out, in)."""
        product: Array = (self.up @ self.down) * np.float32(self.scale)
        return product


@dataclass(frozen=True)
class BaseModel:
    """What tells one base from another, however it is stored.

    Attributes:
        path: where it lay.
        name: what the recipe called it; else the path.
        stored: SHA-256 of each tensor's kind and first row: of these very files.
        norms: mean and deviation of each norm, which are the same in every format and quant.
        quantised: the adapter was trained on the numbers of just these blocks, not on rounded ones.
    """

    path: str
    name: str
    stored: str
    norms: dict[str, tuple[float, float]] = field(default_factory=dict)
    quantised: bool = False


class AdapterOptions(Protocol):
    """What adapter_config.json says of how an adapter was made."""

    @property
    def rank(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def rslora(self) -> bool: ...
    @property
    def dropout(self) -> float: ...


@dataclass(frozen=True)
class Adapter:
    """An opened adapter.

    Attributes:
        path: its folder.
        base_name: the base's name or path, as adapter_config.json has it.
        pairs: matrix, as `layers.3.q_proj` → what is added to it.
        whole: embedding, output matrix or score head that were trained whole.
        ties: whether a trained embedding is the output matrix too.
        base: what base.json says; None: it comes from elsewhere.
        files: that hold it.
    """

    path: Path
    base_name: str
    pairs: Mapping[str, Pair]
    whole: Mapping[str, Tensor]
    ties: bool
    base: BaseModel | None
    files: tuple[Path, ...]

    @property
    def n_parameters(self) -> int:
        """Numbers of all A and B."""
        return sum(pair.down.size + pair.up.size for pair in self.pairs.values())


def is_adapter(path: Path) -> bool:
    """Whether a path is the folder of an adapter, or one of its files."""
    folder = path.parent if path.name in FILES else path
    return any((folder / name).is_file() for name in FILES)


def open_adapter(path: Path | str) -> Adapter:
    """Open a folder that PEFT, TRL or camelid wrote.

    Raises:
        MissingError: no adapter is there. FormatError: it is damaged, or its parts do not fit together.
        UnsupportedError: its arithmetic is another than W + s·B·A. NumericsError: it holds what is no number.
    """
    path = Path(path)
    folder = path.parent if path.name in FILES else path
    if not (folder / CONFIG).is_file():
        raise MissingError(f"{folder}: no {CONFIG} is there; name the folder of a LoRA adapter")
    config = read_json(folder / CONFIG)
    _check_config(folder / CONFIG, config)
    file = next((folder / name for name in (TENSORS, PICKLE) if (folder / name).is_file()), None)
    if file is None:
        raise MissingError(f"{folder}: {CONFIG} but no {TENSORS}; fetch it into the folder")
    parts, whole = _sorted_out(file, _read(file))
    pairs = {name: _pair(file, name, own, config) for name, own in sorted(parts.items())}
    if not pairs and not whole:
        raise FormatError(f"{file}: no adapted matrix is in it; fetch it again")
    base = _read_base(folder / BASE)
    name = config.get("base_model_name_or_path")
    files = (folder / CONFIG, file, *([folder / BASE] if base is not None else []))
    named, ties = name if isinstance(name, str) else "", bool(config.get("ensure_weight_tying"))
    return Adapter(folder, named, pairs, whole, ties, base, files)


def base_path(adapter: Adapter) -> Path:
    """Where the base of an adapter lies: as its files say, absolute or relative to its folder.

    Raises:
        MissingError: it is not there any more.
    """
    named = [adapter.base.path] if adapter.base is not None else []
    for name in [*named, adapter.base_name]:
        for path in (Path(name), adapter.path / name):
            if name and path.exists():
                return path
    said = f"its base, {adapter.base_name}, is not there" if adapter.base_name else "it does not name its base"
    raise MissingError(f"{adapter.path}: a LoRA adapter, and {said}; give the base too: --adapter {adapter.path}")


def write_adapter(
    folder: Path,
    options: AdapterOptions,
    parts: Mapping[str, tuple[Array, Array]],
    base: BaseModel,
    whole: Mapping[str, Array] | None = None,
    task: str = "CAUSAL_LM",
) -> None:
    """Write an adapter's files into a folder, so that PEFT opens it beside its base; float32.

    Args:
        folder: must be there.
        options: rank, alpha and the rest, as adapter_config.json says them.
        parts: matrix, as `layers.3.q_proj` → A (rank, in) and B (out, rank).
        base: what it was trained on.
        whole: modules beside the base's own that were trained, as a score head.
        task: PEFT's word for what the model is.
    """
    arrays: dict[str, Array] = {}
    for name, (down, up) in parts.items():
        module = PREFIX + hf_name(name).removesuffix(".weight")
        arrays |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    arrays |= {f"{PREFIX}{name}.weight": array for name, array in (whole or {}).items()}
    config = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base.path,
        "r": options.rank,
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
        "use_rslora": options.rslora,
        "target_modules": sorted({name.rpartition(".")[2] for name in parts}),
        "modules_to_save": sorted(whole or ()) or None,
        "bias": "none",
        "inference_mode": True,
    }
    _write_json(folder / CONFIG, config)
    _write_json(folder / BASE, asdict(base))
    with (folder / TENSORS).open("wb") as file:
        write_header(file, {name: ("F32", array.shape) for name, array in sorted(arrays.items())})
        for _, array in sorted(arrays.items()):
            file.write(np.ascontiguousarray(array, np.float32).data)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise UnsupportedError(f"{path}: an adapter of kind {str(kind)[:40]}; camelid reads LORA")
    if config.get("bias", "none") != "none":
        raise UnsupportedError(f"{path}: trains biases ({str(config['bias'])[:40]}), which are none of the base's")
    for key, what in _REFUSED.items():
        if config.get(key):
            raise UnsupportedError(f"{path}: {key}: {what} is not supported; merge it with PEFT first")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start not in _PLAIN_STARTS:
        raise UnsupportedError(
            f"{path}: began with {start[:40]!r}, which changes the base; save it by PEFT as plain LoRA first"
        )
    for key, low in (("r", 1), ("lora_alpha", 0)):
        value = config.get(key, 8)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < math.inf:
            raise FormatError(f"{path}: {key} must be a number from {low}, is {str(value)[:40]}; correct the file")


def _read(file: Path) -> dict[str, Stored]:
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    from camelid.weights.formats.torch_pickle import read_torch

    return read_torch(file)


def _sorted_out(file: Path, stored: Mapping[str, Stored]) -> tuple[dict[str, dict[str, Stored]], dict[str, Tensor]]:
    """A and B of each adapted matrix by our name, and the modules that were trained whole."""
    ours = {f"model.layers.{{}}.{block}.{name}": name for block, name in _blocks()}
    parts: dict[str, dict[str, Stored]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        plain = name.removeprefix(PREFIX)
        if match := _PAIR.fullmatch(plain):
            parts.setdefault(_our_name(file, match["module"], ours), {})[match["part"]] = tensor
        elif plain.removesuffix(".weight") in ("lm_head", "model.embed_tokens", HEAD):
            own = plain.removesuffix(".weight").removeprefix("model.")
            whole[own] = Tensor(own, tensor.shape, tensor.quant(), tensor.rows, tensor.some_rows)
        else:
            raise UnsupportedError(f"{file}: {name}: neither a LoRA matrix nor an embedding or output; merge it first")
    return parts, whole


def _blocks() -> list[tuple[str, str]]:
    return [("self_attn", name) for name in ATTENTION] + [("mlp", name) for name in FEED_FORWARD]


def _our_name(file: Path, module: str, ours: Mapping[str, str]) -> str:
    """`model.layers.3.self_attn.q_proj` → `layers.3.q_proj`."""
    match = re.fullmatch(r"model\.layers\.(\d{1,6})\.(self_attn|mlp)\.(\w+)", module)
    if match is None or f"model.layers.{{}}.{match[2]}.{match[3]}" not in ours:
        raise UnsupportedError(
            f"{file}: adapts {module[:80]}; only the matrices of a Llama's layers can be: merge it with PEFT first"
        )
    return f"layers.{int(match[1])}.{match[3]}"


def _pair(file: Path, name: str, parts: Mapping[str, Stored], config: Mapping[str, Any]) -> Pair:
    """A matrix's A and B, seen to fit together and to have the rank that the configuration says."""
    if set(parts) != {"A", "B"}:
        raise FormatError(f"{file}: {name} has lora_{'A' if 'A' in parts else 'B'} alone; fetch it again")
    down, up = (_array(file, parts[part]) for part in "AB")
    module = hf_name(name).removesuffix(".weight")
    rank = _by_pattern(config, "rank_pattern", module, config.get("r", 8))
    alpha = _by_pattern(config, "alpha_pattern", module, config.get("lora_alpha", 8))
    if down.ndim != 2 or up.ndim != 2 or len(down) != rank or up.shape[1] != rank:
        raise FormatError(
            f"{file}: {name} has A {down.shape} and B {up.shape}, but {CONFIG} says rank {rank}; "
            "the two files are not of one adapter: fetch both again"
        )
    return Pair(down, up, float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank))


def _by_pattern(config: Mapping[str, Any], key: str, module: str, default: Any) -> Any:
    """The value of the first pattern that a module's name ends with, as PEFT matches them."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise FormatError(f"{CONFIG}: {key} must be an object; correct the file")
    for pattern, value in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error:
            raise FormatError(f"{CONFIG}: {key}: {pattern[:40]!r} is no pattern; correct the file") from None
    return default


def _array(file: Path, stored: Stored) -> Array:
    values = Tensor(stored.name, stored.shape, stored.quant(), stored.rows).array()
    if not np.isfinite(values).all():
        raise NumericsError(f"{file}: {stored.name} holds what is no finite number; take an earlier checkpoint")
    return values


def _read_base(path: Path) -> BaseModel | None:
    if not path.is_file():
        return None
    values = read_json(path)
    try:
        norms = {str(name): (float(mean), float(deviation)) for name, (mean, deviation) in values["norms"].items()}
        named = (str(values["path"]), str(values["name"]), str(values["stored"]))
        return BaseModel(*named, norms, bool(values["quantised"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise FormatError(f"{path}: not camelid's record of a base; restore it, or remove it") from None

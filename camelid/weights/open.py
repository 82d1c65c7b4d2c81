"""open_weights: find out by content what a path holds, and open it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from camelid.errors import CamelidError, FormatError, MissingError, UnsupportedError
from camelid.model.config import shape_in
from camelid.model.rope import inverse_frequencies
from camelid.open_file import OpenFile, cannot_read
from camelid.weights.adapted import adapted
from camelid.weights.lora import FILES, base_path, is_adapter, open_adapter
from camelid.weights.weights import Weights

if TYPE_CHECKING:
    from camelid.tokens.tokenizer import Tokenizer

__all__ = ["Weights", "open_tokenizer", "open_weights"]

_HF_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_CONFIGS = ("config.json", "params.json")
_FIRST_BYTES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"lmgg": "a ggml file from before GGUF; convert the original model again",
    b"fmgg": "a ggmf file from before GGUF; convert the original model again",
    b"tjgg": "a ggjt file from before GGUF; convert the original model again",
    b"algg": "a ggla adapter from before GGUF",
    b"\x89HDF": "an HDF5 file (Keras?)",
    b"\x08\x03\x12": "an ONNX model",
    b"\x93NUMPY": "a NumPy array",
    b"SQLite format": "an SQLite database",
    b"\x7fELF": "a program",
    b"#!": "a script",
    b"<": "a web page or XML: the download failed?",
    b"\x80\x02": "a Python pickle, or a torch file from before torch 1.6",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
}
_LONGEST_MESSAGE = 600
_READS = "camelid opens a GGUF file, a Hugging Face folder (config.json) or a Meta folder (params.json)"


def open_weights(path: Path | str) -> Weights:
    """Open a model; what it is follows from its content, not from its name.

    Args:
        path: a GGUF file (any part of a split one), a folder with one, a Hugging Face folder, a Meta folder, a
            file of weights or config.json in such a folder, or a LoRA adapter's folder: its base with it added.

    Raises:
        MissingError: nothing is there, or a part of it is not.
        FormatError: it is something else, or damaged.
        UnsupportedError: a model with arithmetic or storage that is not supported.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise MissingError(f"{path}: no such file or folder; check the path, or fetch the model: camelid pull NAME")
        weights = _open_folder(path) if path.is_dir() else _open_file(path)
        _check_rope(weights)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise MissingError(_one_line(str(cannot_read(path, error)))) from None
    except CamelidError as error:
        raise type(error)(_one_line(str(error))) from None
    return weights


def _check_rope(weights: Weights) -> None:
    """Refuse constants that turn positions into no numbers."""
    with shape_in(weights.path), np.errstate(all="ignore"):
        for length in (0, weights.config.context, 2 * weights.config.context):
            if not np.isfinite(inverse_frequencies(weights.config, length)).all():
                raise FormatError("model config: its rotary constants give frequencies that are not numbers")


def open_tokenizer(path: Path | str) -> Tokenizer:
    """The tokenizer of a model, or of what holds a tokenizer only: a folder without weights, tokenizer.json,
    tokenizer.model, or a GGUF with a vocabulary alone.

    Raises:
        MissingError, FormatError, UnsupportedError: as `open_weights` and `Tokenizer.open`.
    """
    from camelid.tokens.files.tokenizer_files import TOKENIZER_FILES
    from camelid.tokens.tokenizer import Tokenizer
    from camelid.weights.formats.gguf_file import open_parts

    path = Path(path)
    if path.is_dir():
        held = any((path / name).exists() for name in (*_HF_FILES, "params.json"))
        alone = not held and (
            len(list(path.glob("*.gguf"))) == 1 or any((path / name).is_file() for name in TOKENIZER_FILES)
        )
    else:
        alone = path.name in TOKENIZER_FILES
    is_gguf = path.is_file() and _starts_gguf(path)
    if not alone and not is_gguf:
        return open_weights(path).tokenizer
    try:
        return Tokenizer.from_gguf(open_parts(path)[0].fields) if is_gguf else Tokenizer.open(path)
    except CamelidError as error:
        raise type(error)(_one_line(str(error))) from None


def _starts_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def _one_line(message: str) -> str:
    """A message may quote a damaged file: what cannot be printed is escaped, and what is endless is cut."""
    if not message.isprintable():
        message = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in message)
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[: _LONGEST_MESSAGE - 120]} … {message[-100:]}"


def _open_folder(folder: Path) -> Weights:
    _refuse_adapter_beside_model(folder)
    if is_adapter(folder):
        adapter = open_adapter(folder)
        return adapted(open_weights(base_path(adapter)), adapter)
    if (folder / "config.json").exists() and any((folder / name).exists() for name in _HF_FILES):
        return _open_hf(folder)
    if (folder / "params.json").exists():
        from camelid.weights.formats.meta import open_meta

        return open_meta(folder)
    ggufs = sorted(folder.glob("*.gguf"))
    models = [file for file in ggufs if "-of-" not in file.name or "-00001-of-" in file.name]
    if len(models) == 1:
        return _open_gguf(models[0])
    if models:
        names = ", ".join(file.name for file in models[:5])
        raise FormatError(f"{folder}: holds {len(models)} models; name one of {names}")
    if (folder / "config.json").exists():
        return _open_hf(folder)
    raise FormatError(f"{folder}: no model in this folder; {_READS}")


def _refuse_adapter_beside_model(folder: Path) -> None:
    """Such an adapter changes the model that it lies beside, or it was merged and left there: only its owner knows."""
    beside = [name for name in FILES if (folder / name).exists()]
    if beside and any((folder / name).exists() for name in (*_HF_FILES, "params.json")):
        raise UnsupportedError(
            f"{folder}: holds a whole model and an adapter ({beside[0]}), which is not applied; "
            f"if it is merged into the model, move {' and '.join(beside)} elsewhere, else merge it: camelid merge"
        )


def _open_file(path: Path) -> Weights:
    if not path.is_file():
        raise FormatError(f"{path}: neither a file nor a folder; {_READS}")
    if not path.stat().st_size:
        raise FormatError(f"{path}: an empty file; {_READS}")
    start = OpenFile(path).up_to(0, 64).tobytes()
    if start.startswith(b"GGUF"):
        return _open_gguf(path)
    if path.name in FILES:
        return _open_folder(path.parent)
    is_weights = start.startswith(b"PK\x03\x04") or start[8:9] == b"{"  # torch.save's zip, or safetensors
    if is_weights or path.name in _HF_FILES or path.name in _CONFIGS:
        if any((path.parent / name).exists() for name in _CONFIGS):
            return _open_folder(path.parent)
        raise FormatError(f"{path}: weights alone; the model's config.json or params.json must lie beside them")
    raise FormatError(f"{path}: {_looks_like(start)}; {_READS}")


def _looks_like(start: bytes) -> str:
    for first, what in _FIRST_BYTES.items():
        if start.startswith(first):
            return f"not a model but {what}"
    return f"not a model: it begins with {start[:8]!r}"


def _open_gguf(path: Path) -> Weights:
    from camelid.weights.formats.gguf import open_gguf

    return open_gguf(path)


def _open_hf(folder: Path) -> Weights:
    from camelid.weights.formats.hf import open_hf

    return open_hf(folder)

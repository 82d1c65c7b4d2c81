"""Which model a stage began from, told by the content of its files. No torch here."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from camelid.files import sha256
from camelid.pedigree import NAME as PEDIGREE
from camelid.run_layout import CHECKPOINT
from camelid.train.checkpoints.store import STATE, read_record
from camelid.weights.open import open_weights

_HASHERS = 4  # threads; one SHA-256 is slower than a disk
_BESIDE = ("*.json", "*.jinja", "additional_chat_templates/*.jinja", "tokenizer.model")


def start_fingerprint(start: Path) -> str:
    """SHA-256, in hex, of the names and contents of a model's files: of weights, shape, tokenizer and templates.

    Of a checkpoint it is taken from what its record says of these files; those of any other model are read whole.

    Raises:
        MissingError, FormatError: there is no such model, or a checkpoint's record is damaged.
    """
    if (start / CHECKPOINT).is_file():
        files = {name: row["sha256"] for name, row in read_record(start)["files"].items()}
    else:
        files = _hashed(start)
    about = "\n".join(f"{files[name]} {name}" for name in sorted(files) if _counts(name))
    return hashlib.sha256(about.encode()).hexdigest()


def _counts(name: str) -> bool:
    """Whether a file is the model's, not a note of how it came to be."""
    return name != PEDIGREE and not name.startswith(f"{STATE}/")


def _hashed(start: Path) -> dict[str, str]:
    """File → SHA-256. A file's own name alone counts, so that a moved model is the same."""
    paths = set(open_weights(start).files)
    if start.is_dir():
        paths |= {path for pattern in _BESIDE for path in start.glob(pattern)}
    ordered = sorted(paths)
    with ThreadPoolExecutor(_HASHERS) as pool:
        return {path.name: digest for path, digest in zip(ordered, pool.map(sha256, ordered), strict=True)}

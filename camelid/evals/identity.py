"""What a model and this code are, so that a result can be repeated: hashes, backend, version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camelid import __version__
from camelid.chat.llama import Llama
from camelid.errors import FormatError
from camelid.files import sha256
from camelid.hub.store import MANIFEST, read_manifest
from camelid.pedigree import code_commit


def describe_model(llama: Llama) -> Mapping[str, Any]:
    """Files with their hashes, and what else changes numbers: backend, its type, context."""
    weights, engine = llama.weights, llama.engine
    files = weights.files or (weights.path,)
    options = engine.options.model_dump(mode="json", exclude_defaults=True)
    return {
        "files": [{"name": path.name, "bytes": path.stat().st_size, "sha256": file_hash(path)} for path in files],
        "backend": engine.backend.name,
        "context": llama.context,
        "options": {name: value for name, value in options.items() if name in _CHANGE_NUMBERS},
    }


_CHANGE_NUMBERS = ("dtype", "activation_bits")


def describe_code() -> Mapping[str, Any]:
    """camelid's version, and the commit where it runs from a checkout."""
    return {"camelid": __version__, "commit": code_commit()}


def file_hash(path: Path) -> str:
    """SHA-256 of a file; of one that was pulled, as its manifest has it, if its length is that of the manifest."""
    if (path.parent / MANIFEST).is_file():
        try:
            known = {file["name"]: file for file in read_manifest(path.parent)["files"]}
        except FormatError:
            known = {}
        file = known.get(path.name)
        if file is not None and int(file["bytes"]) == path.stat().st_size:
            return str(file["sha256"])
    return sha256(path)

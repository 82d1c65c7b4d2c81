"""Which files of a repository are the model: no weights twice, and everything that a run without network needs."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from camelid.errors import FormatError, OptionError
from camelid.hub.staging import OWN_NAMES, OWN_SUFFIXES
from camelid.tokens.templates.chat_templates import FOLDER as TEMPLATES

# Beside the weights: shape, tokenizer, template, terms.
_BESIDE_HF = ("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt", "LICENSE*", "NOTICE*", "USE_POLICY*")
_BESIDE_META = ("params.json", "tokenizer.model", "tokenizer.json", "checklist.chk", "LICENSE*", "USE_POLICY*")
_SAFE_INDEX = "model.safetensors.index.json"
_TERMS = ("LICENSE*", "NOTICE*", "USE_POLICY*")
_PART = re.compile(r"(.*)-\d{5}-of-(\d{5})\.gguf", re.IGNORECASE)
_NO_MODEL = ("*mmproj*", "*imatrix*")  # .gguf files that lie beside models


@dataclass(frozen=True)
class Listed:
    """One file of a repository as the hub lists it: SHA-256 for large files, git's hash for the others."""

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def target(self) -> str:
        """Where it goes in the model's folder."""
        is_template = PurePosixPath(self.path).parent.name == TEMPLATES
        return f"{TEMPLATES}/{self.name}" if is_template else self.name


def choose_files(
    repo: str, listed: list[Listed], kind: str | None, folder: str = "", pattern: str | None = None
) -> list[Listed]:
    """The files to pull, with different targets.

    Args:
        repo: for messages.
        listed: all files of the repository.
        kind: "hf" or "meta"; None finds out.
        folder: the folder of the repository that the model is in.
        pattern: one .gguf file: its name, a part of the name, or a pattern with *.

    Raises:
        OptionError: the pattern fits no model or several, or there are several and no pattern.
        FormatError: no model there.
    """
    listed = [file for file in listed if _safe(file)]
    if pattern is not None:
        return _gguf(repo, listed, pattern) + _fit(_in(listed, ""), _TERMS)
    here = _in(listed, folder)
    names = {file.name for file in here}
    if kind == "hf" or (kind is None and "config.json" in names and _hf_weights(here)):
        weights = _need(repo, _hf_weights(here), "safetensors")
        other = "pytorch_model.bin.index.json" if weights[0].name.endswith(".safetensors") else _SAFE_INDEX
        templates = _fit(_in(listed, f"{folder}/{TEMPLATES}" if folder else TEMPLATES), ("*.jinja",))
        return weights + [file for file in _fit(here, _BESIDE_HF) if file.name != other] + templates
    if kind == "meta" or (kind is None and "params.json" in names):
        weights = _fit(here, ("consolidated.*.pth", "consolidated.pth"))
        terms = [file for file in _fit(_in(listed, ""), _TERMS) if file.name not in names]
        return _need(repo, weights, "consolidated.*.pth") + _fit(here, _BESIDE_META) + terms
    return _gguf(repo, listed, None) + _fit(_in(listed, ""), _TERMS)


def _hf_weights(files: list[Listed]) -> list[Listed]:
    """Safetensors if there are any, else torch files; of each the sharded or the single ones, not both."""
    for patterns in (
        ("model-*-of-*.safetensors",),
        ("model.safetensors",),
        ("pytorch_model-*-of-*.bin",),
        ("pytorch_model.bin",),
    ):
        if found := _fit(files, patterns):
            return found
    return []


def _gguf(repo: str, listed: list[Listed], pattern: str | None) -> list[Listed]:
    """All parts of the one GGUF model that `pattern` means: its name, else a whole word of it, else a part of it."""
    every = [file for file in listed if file.name.lower().endswith(".gguf")]
    if not every:
        raise FormatError(f"{repo}: holds no model that camelid reads (safetensors, Meta's .pth or .gguf)")
    files = [file for file in every if not _fit([file], _NO_MODEL)]
    if pattern is None:
        groups = _models(files)
    else:
        low = pattern.lower()
        word = re.compile(rf"(?<![a-z0-9_]){re.escape(low)}(?![a-z0-9_])")
        groups = (
            _models(file for file in every if low in (file.path.lower(), file.name.lower(), file.name.lower()[:-5]))
            or _models(file for file in files if "*" in low and fnmatch.fnmatchcase(file.name.lower(), low))
            or _models(file for file in files if word.search(file.path.lower()))
            or _models(file for file in files if low in file.path.lower())
        )
    if len(groups) == 1:
        return _all_parts(repo, next(iter(groups.values())), every)
    names = ", ".join(sorted(_short(file) for file in files)[:12])
    if not groups:
        raise OptionError(f"{repo}: no .gguf file fits {pattern!r}; it has {names}")
    asked = f"{pattern!r} fits {len(groups)} models" if pattern else f"holds {len(groups)} models"
    some = ", ".join(sorted(_short(group[0]) for group in groups.values())[:12])
    raise OptionError(f"{repo}: {asked}; name one with --file or hf:{repo}:FILE, of {some}")


def _models(files: Iterable[Listed]) -> dict[str, list[Listed]]:
    """Files grouped into models: the parts of a split one belong together."""
    groups: dict[str, list[Listed]] = {}
    for file in files:
        match = _PART.fullmatch(file.path)
        groups.setdefault(match[1] if match else file.path, []).append(file)
    return groups


def _all_parts(repo: str, group: list[Listed], every: list[Listed]) -> list[Listed]:
    match = _PART.fullmatch(group[0].path)
    if match is None:
        return group
    parts = _models(every)[match[1]]
    if len(parts) != int(match[2]):
        raise FormatError(f"{repo}: has {len(parts)} of the {int(match[2])} parts of {match[1]}; look for another copy")
    return sorted(parts, key=lambda file: file.path)


def _in(listed: list[Listed], folder: str) -> list[Listed]:
    parent = PurePosixPath(folder) if folder else PurePosixPath(".")
    return [file for file in listed if PurePosixPath(file.path).parent == parent]


def _fit(files: list[Listed], patterns: tuple[str, ...]) -> list[Listed]:
    return [file for file in files if any(fnmatch.fnmatchcase(file.name, pattern) for pattern in patterns)]


def _need(repo: str, found: list[Listed], what: str) -> list[Listed]:
    if not found:
        raise FormatError(f"{repo}: holds no {what} files; give another revision, or another repository")
    return found


def _short(file: Listed) -> str:
    match = _PART.fullmatch(file.name)
    return match[1] if match else file.name


def _safe(file: Listed) -> bool:
    """No path that would leave the folder, no name that hides or would be taken for pull's own."""
    name = file.name
    own = name in ("manifest.json", *OWN_NAMES) or name.endswith(OWN_SUFFIXES)
    return not own and name != "" and not name.startswith(".") and "\\" not in name and ".." not in file.path.split("/")

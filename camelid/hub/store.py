"""Where pulled models lie, and what a name means on this machine. Nothing here asks the network.

$CAMELID_HOME  (else $XDG_DATA_HOME/camelid, else ~/.local/share/camelid)
└── models/
    ├── smollm2-135m-instruct/       a readable name a model; its files, and manifest.json, which is written last
    └── .incoming/                   what is not complete yet; `camelid pull` goes on from it
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from camelid.errors import FormatError, MissingError, OptionError
from camelid.hub.catalog import CATALOG, Entry, find, near
from camelid.run_layout import named_checkpoint, newest_checkpoint

MANIFEST = "manifest.json"
_NAME = re.compile(r"(?P<base>[^@]+?)(@(?P<revision>[^@:]+))?(:(?P<file>[^@:]+))?")


@dataclass(frozen=True)
class Name:
    """A model as a person names it: a row of the catalog, hf:owner/repo[@revision][:file], a URL, or a local path."""

    base: str
    entry: Entry | None = None
    revision: str | None = None
    file: str | None = None

    @property
    def is_url(self) -> bool:
        return self.base.lower().startswith(("https://", "http://"))

    @property
    def is_hub(self) -> bool:
        return self.base.startswith("hf:")

    @property
    def folder(self) -> str:
        """Readable name of the folder under models/; two names that mean different files get different folders."""
        if self.is_url:
            return _plain(urllib.parse.unquote(Path(urllib.parse.urlsplit(self.base).path).name)).removesuffix(".gguf")
        if self.is_hub:
            base = self.base.removeprefix("hf:").replace("/", "--")
        elif self.entry is not None:
            base = self.entry.name.replace(":", "-")
        else:
            base = local_path(self.base).resolve().name.removesuffix(".gguf")
        base += f"@{self.revision}" if self.revision else ""
        base += f"--{self.file.removesuffix('.gguf')}" if self.file else ""
        return _plain(base)

    @property
    def on_record(self) -> str:
        """The name as a manifest keeps it: without secrets, and absolute if it is a path."""
        if self.is_url:
            return public(self.base)
        if self.entry is None and not self.is_hub:
            return str(local_path(self.base).resolve())
        return str(self)

    def __str__(self) -> str:
        return self.base + (f"@{self.revision}" if self.revision else "") + (f":{self.file}" if self.file else "")


def home() -> Path:
    """The folder of everything camelid keeps for this user; read from the environment at each call, not made."""
    if folder := os.environ.get("CAMELID_HOME"):
        return Path(folder).expanduser()
    if folder := os.environ.get("XDG_DATA_HOME"):
        return Path(folder).expanduser() / "camelid"
    return Path.home() / ".local" / "share" / "camelid"


def models() -> Path:
    """The folder of pulled models; a folder a model."""
    return home() / "models"


def resolve(name_or_path: str | Path) -> Path:
    """The file or folder that a name or path means: a single .gguf file, or a model's folder.

    A path that exists is itself; a folder of checkpoints is its `latest`, and the beginning of a checkpoint's name, as
    runs/tiny/pretrain/step1000, is that checkpoint. Otherwise it is a name of the catalog, hf:owner/repo, the URL a
    model came from, or the name of a folder under `models()`.

    Raises:
        MissingError: it is a model's name, and the model has not been pulled, or not wholly.
        OptionError: neither a path that exists nor a name, or the beginning of several checkpoints' names.
        FormatError: the model's manifest is damaged.
    """
    path = local_path(name_or_path)
    if _exists(path):
        return newest_checkpoint(path) or path
    if (checkpoint := named_checkpoint(path)) is not None:
        return checkpoint
    text = str(name_or_path)
    name = parse_name(text)
    if name.entry is None and not name.is_hub and not name.is_url:
        if is_complete(models() / text):
            return model_path(models() / text)
        raise OptionError(f"{text}: no such file or folder, and no such model in the catalog; {near(text)}")
    folder = _folder_here(name)
    if not is_complete(folder):
        raise MissingError(f"{text}: not on this machine{_begun(folder)}; fetch it once: camelid pull {text}")
    if folder.name == name.folder:
        check_name(folder, name)
    return model_path(folder)


def is_local(entry: Entry) -> bool:
    """Whether a row of the catalog has been pulled wholly; a model with a damaged manifest has not."""
    try:
        return is_complete(models() / Name(entry.name, entry).folder)
    except FormatError:
        return False


def check_name(folder: Path, name: Name) -> None:
    """Refuse a model that came under another name, such as a file of the same name from another host.

    Raises:
        OptionError: the manifest has another name.
    """
    came = read_manifest(folder).get("name")
    if came != name.on_record:
        raise OptionError(f"{folder}: holds a model pulled as {came}; move that folder away first")


def parse_name(text: str, revision: str | None = None, file: str | None = None) -> Name:
    """Read a model's name; `revision` and `file` given apart win over those in the text.

    Raises:
        OptionError: hf: with something else than owner/repo behind it, or no URL after all.
    """
    name = _parse(text.strip())
    return replace(name, revision=revision or name.revision, file=file or name.file)


def is_complete(folder: Path) -> bool:
    """Whether a model's folder holds its manifest and every file in it at its size; contents are not read.

    Raises:
        FormatError: the manifest is damaged.
    """
    if not (folder / MANIFEST).is_file():
        return False
    return all(_has(folder / str(file["name"]), int(file["bytes"])) for file in read_manifest(folder)["files"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """What manifest.json of a pulled model says: source, revision, files with bytes and SHA-256, licence, date.

    Raises:
        FormatError: it cannot be read, or is not JSON of that shape.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if all({"name", "bytes", "sha256"} <= set(file) for file in manifest["files"]) and manifest["files"]:
            return dict(manifest)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise FormatError(f"{folder / MANIFEST}: damaged or not readable; delete it and pull the model again")


def model_path(folder: Path) -> Path:
    """The file if the model is one .gguf file, else the folder."""
    weights = [str(file["name"]) for file in read_manifest(folder)["files"] if str(file["name"]).endswith(".gguf")]
    return folder / weights[0] if len(weights) == 1 else folder


def _parse(text: str) -> Name:
    if text.lower().startswith(("https://", "http://")):
        try:
            return _from_url(text)
        except ValueError as error:
            raise OptionError(f"{text}: not a usable URL ({error})") from None
    if text.lower() in CATALOG:
        return Name(text.lower(), CATALOG[text.lower()])
    if text.startswith("hf:"):
        match = _NAME.fullmatch(text.removeprefix("hf:"))
        if match is None or not re.fullmatch(r"[\w.-]+/[\w.-]+", match["base"]):
            raise OptionError(f"{text}: wants hf:owner/repo, hf:owner/repo@revision or hf:owner/repo:file")
        return Name(f"hf:{match['base']}", None, match["revision"], match["file"])
    base, _, revision = text.partition("@")
    try:
        entry = find(base)
    except OptionError:
        return Name(text)
    return Name(entry.name, entry, revision or None)


def _from_url(url: str) -> Name:
    """A page or file of the hub becomes hf:owner/repo, which has hashes; any other URL stays what it is."""
    parts = urllib.parse.urlsplit(url)
    if f"{parts.scheme}://{parts.netloc}" not in ("https://huggingface.co", hub_endpoint()):
        return Name(url)
    steps = [urllib.parse.unquote(step) for step in parts.path.split("/") if step]
    if len(steps) == 2:
        return Name(f"hf:{steps[0]}/{steps[1]}")
    if len(steps) >= 5 and steps[2] in ("resolve", "blob"):
        revision = None if steps[3] == "main" else steps[3]
        return Name(f"hf:{steps[0]}/{steps[1]}", None, revision, "/".join(steps[4:]))
    return Name(url)


def hub_endpoint() -> str:
    """The Hugging Face hub, or the mirror that $HF_ENDPOINT names."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def public(url: str) -> str:
    """A URL without login, query and fragment, which may hold secrets."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def local_path(text: str | Path) -> Path:
    """A path, its ~ replaced; a ~ of nobody stays."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _folder_here(name: Name) -> Path:
    """The folder for a name; hf:owner/repo alone also means the one file of it that was pulled."""
    folder = models() / name.folder
    if name.is_hub and name.file is None and not folder.exists():
        pulled = [path for path in sorted(models().glob(f"{name.folder}--*")) if is_complete(path)]
        if len(pulled) == 1:
            return pulled[0]
        if pulled:
            raise OptionError(f"{name}: several files of it are here; name one of {', '.join(p.name for p in pulled)}")
    return folder


def _begun(folder: Path) -> str:
    incoming = folder.parent / ".incoming" / folder.name
    return " (a pull of it was begun)" if incoming.exists() or folder.exists() else ""


def _plain(name: str) -> str:
    """A name that any file system takes, and that is no hidden file."""
    return re.sub(r"[^\w.@+-]+", "-", name).lstrip(".") or "model"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for a path is no path
        return False


def _has(path: Path, n_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == n_bytes

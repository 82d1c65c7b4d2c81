"""A model that is on this machine already, copied in: from a stick, a shared disk, another person's folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from camelid.errors import FormatError, ResourceError
from camelid.files import check_space
from camelid.hub.staging import ELSEWHERE, Arrival, Proof, Report, copy_stream, disk_errors, finish
from camelid.hub.store import MANIFEST, read_manifest
from camelid.tokens.templates.chat_templates import FOLDER as TEMPLATES

_PART = re.compile(r"(.*-)\d{5}(-of-\d{5}\.gguf)")


def fetch_local(path: Path, staging: Path, report: Report) -> Arrival:
    """Copy a file, or the files of a folder (of its subfolders only the chat templates), into `staging`.

    A folder that was pulled elsewhere brings its manifest: files are checked against it, and it says whence they came.

    Raises:
        FormatError: a folder without files, or with a damaged manifest.
        ResourceError: no room on the disk, or a file cannot be read.
        VerifyError: a file differs from the folder's manifest.
    """
    files = _files(path)
    manifest: dict[str, Any] = read_manifest(path) if (path / MANIFEST).is_file() else {"files": []}
    known = {file["name"]: Proof(file["bytes"], file["sha256"]) for file in manifest["files"]}
    names = [file.relative_to(path).as_posix() if path.is_dir() else file.name for file in files]
    if missing := sorted(known.keys() - set(names)):
        raise FormatError(f"{path}: {missing[0]} of its manifest is missing; copy the folder again")
    sizes = [file.stat().st_size for file in files]
    check_space(staging, sum(sizes), ELSEWHERE)
    records = []
    for file, name, size in zip(files, names, sizes, strict=True):
        try:
            stream = file.open("rb")
        except OSError as error:
            raise ResourceError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None
        with stream, disk_errors(staging):
            (staging / name).parent.mkdir(exist_ok=True)
            copy_stream(stream, staging / name, size, report)
        records.append(finish(staging / name, known.get(name, Proof(size)), report, name))
    return Arrival(records, manifest.get("source") or str(path), manifest.get("revision"), manifest.get("licence"))


def _files(path: Path) -> list[Path]:
    """The files to copy: of a split GGUF file all its parts, of a folder all that is not hidden."""
    if path.is_file():
        part = _PART.fullmatch(path.name)
        if part is None:
            return [path]
        others = ((other, _PART.fullmatch(other.name)) for other in sorted(path.parent.iterdir()))
        return [other for other, match in others if match and match.groups() == part.groups()]
    files = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    if not any(file.name != MANIFEST for file in files):
        raise FormatError(f"{path}: no files in this folder; name the folder that holds the model")
    return [file for file in files if file.name != MANIFEST] + sorted((path / TEMPLATES).glob("*.jinja"))

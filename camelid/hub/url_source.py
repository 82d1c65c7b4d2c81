"""A .gguf file from any web server; `#sha256=…` at the end of the URL says what it must be."""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from pathlib import Path

from camelid.errors import OptionError, ResourceError, VerifyError
from camelid.files import check_space
from camelid.hub.download import Place, ask, download, open_url, version_of
from camelid.hub.staging import ELSEWHERE, Proof, Record, Report, disk_errors, finish, part_of
from camelid.hub.store import public


def fetch_url(url: str, staging: Path, report: Report) -> list[Record]:
    """Put the file of `url` into `staging`.

    Raises:
        OptionError: not the URL of a .gguf file, or nothing is there.
        MissingError: the server wants a login.
        ResourceError: no room, or the network fails.
        VerifyError: the hash differs, or what came is no GGUF file.
    """
    parts = urllib.parse.urlsplit(url)
    name = Path(urllib.parse.unquote(parts.path)).name
    if not name.endswith(".gguf"):
        raise OptionError(f"{public(url)}: not a .gguf file; for a repository of the hub say hf:owner/repo")
    if re.search(r"-\d{5}-of-\d{5}\.gguf$", name):
        raise OptionError(
            f"{public(url)}: one part of a split model; put all its parts in a folder and pull the folder"
        )
    target = staging / name
    version = _look(url)
    size = version[0]
    _drop_if_changed(target, f"{version}")
    if target.exists():
        target.replace(part_of(target))
    with disk_errors(staging):
        have = part_of(target).stat().st_size if part_of(target).exists() else 0
        check_space(staging, max(0, (size or 0) - have), ELSEWHERE)
        download(Place(url, size=size, version=version), target, report)
    _check_magic(target, url)
    return [finish(target, Proof(size, _sha256(parts.fragment, url)), report)]


def _look(url: str) -> tuple[int | None, str | None]:
    """Size and version of the file, by asking for its first byte."""

    def attempt() -> tuple[int | None, str | None]:
        with open_url(Place(url), "0-0") as answer:
            return version_of(answer)

    give_up = f"{public(url)}: %s; check the network and the URL, and pull again"
    return ask(attempt, lambda reason: ResourceError(give_up % reason))


def _drop_if_changed(target: Path, version: str) -> None:
    """Go on only from a part of the same version; without hashes that is all there is to tell by."""
    note = target.with_name(f"{target.name}.version")
    if note.exists() and note.read_text(encoding="utf-8") != version:
        part_of(target).unlink(missing_ok=True)
        target.unlink(missing_ok=True)
    note.write_text(version, encoding="utf-8")


def _check_magic(target: Path, url: str) -> None:
    part = part_of(target)
    with part.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        bad = target.with_name(f"{target.name}.bad")
        part.replace(bad)
        raise VerifyError(f"{public(url)}: gave something that is no GGUF file (a web page?); set aside as {bad}")


def _sha256(fragment: str, url: str) -> str | None:
    if not fragment:
        return None
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if match is None:
        digits = hashlib.sha256().digest_size * 2
        raise OptionError(f"{public(url)}: after # wants sha256= and {digits} hexadecimal digits, got {fragment!r}")
    return match[1]

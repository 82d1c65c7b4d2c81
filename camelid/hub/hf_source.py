"""A model from the Hugging Face hub or a mirror of it ($HF_ENDPOINT): list, choose, download, check.

Two addresses are used, both documented by the hub: `/api/models/REPO/revision/REV?blobs=true`, which lists files with
sizes and hashes, and `/REPO/resolve/COMMIT/FILE`. Every file has a hash: SHA-256 for large ones, git's for small ones.
"""

from __future__ import annotations

import json
import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camelid.errors import CamelidError, FormatError, MissingError, OptionError, ResourceError
from camelid.files import check_space
from camelid.hub.catalog import Hub
from camelid.hub.download import Again, Place, ask, download, open_url
from camelid.hub.file_choice import Listed, choose_files
from camelid.hub.staging import ELSEWHERE, OWN_NAMES, Arrival, Proof, Record, Report, disk_errors, finish, part_of
from camelid.hub.store import Name, hub_endpoint, public

_COMMIT = OWN_NAMES[0]  # file in the staging folder: the commit that was begun with


@dataclass(frozen=True)
class _Repo:
    """What is asked of one repository, and how."""

    repo: str
    revision: str | None
    token: str | None
    licence: str | None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def explain(self, status: int) -> CamelidError:
        """The error for a final refusal."""
        page = f"{_hub()}/{self.repo}"
        at = f" at revision {self.revision}" if self.revision else ""
        if status == 401 and not self.token:
            return MissingError(
                f"{self.repo}: gated, private, or not there; if it is, accept the licence at {page}, then set HF_TOKEN "
                f"or run: hf auth login"
            )
        if status in (401, 403):
            return MissingError(
                f"{self.repo}: the hub refuses this token ({status}); accept the licence at {page} with the account of "
                f"the token, or set another HF_TOKEN or run: hf auth login"
            )
        if status in (404, 410):
            return OptionError(f"{self.repo}: the hub has no such repository or file{at}; look at {page}")
        return ResourceError(f"{self.repo}: the hub refuses ({status}); try later, or set HF_ENDPOINT to a mirror")


def fetch_hub(name: Name, staging: Path, token: str | None, report: Report) -> Arrival:
    """Put the files of a repository into `staging`.

    Raises:
        MissingError: the licence has not been accepted, or the token is missing.
        OptionError: no such repository or revision, or `file` does not say which.
        ResourceError: no room, or the network fails.
        VerifyError: a file is not the one that the hub lists.
        FormatError: the repository holds no model, or the endpoint is no hub.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise ResourceError(f"{name}: HF_HUB_OFFLINE is set, so the hub is not asked; unset it to pull")
    source = name.entry.source if name.entry is not None else Hub(name.base.removeprefix("hf:"))
    assert isinstance(source, Hub)
    repo = _Repo(source.repo, name.revision, _token(token), name.entry.licence if name.entry else None)
    commit, licence, listed = _list_again(repo, staging)
    with disk_errors(staging):
        (staging / _COMMIT).write_text(commit, encoding="utf-8")
    kind = source.format if name.entry is not None else None
    chosen = choose_files(source.repo, listed, kind, source.folder, name.file)
    missing = sum(max(0, file.size - _arrived(staging / file.target)) for file in chosen)
    check_space(staging, missing, ELSEWHERE)
    records = []
    with disk_errors(staging):
        for file in chosen:
            records.append(_bring(repo, commit, file, staging, report))
    at = "" if hub_endpoint() == "https://huggingface.co" else f" at {_hub()}"
    return Arrival(records, f"{source}{at}", commit, repo.licence or licence)


def _list_again(repo: _Repo, staging: Path) -> tuple[str, str | None, list[Listed]]:
    """The list at the commit that a killed pull began with, so that its files are not mixed with a later one's."""
    path = staging / _COMMIT
    if path.exists() and (begun := path.read_text(encoding="utf-8").strip()):
        try:
            return _list(repo, begun)
        except OptionError:  # its history was rewritten; hashes will find the parts that no longer fit
            pass
    return _list(repo, repo.revision or "main")


def _list(repo: _Repo, revision: str) -> tuple[str, str | None, list[Listed]]:
    """Commit, licence and files of a repository at a revision."""
    url = f"{hub_endpoint()}/api/models/{repo.repo}/revision/{urllib.parse.quote(revision, safe='')}?blobs=true"

    def attempt() -> Any:
        with open_url(Place(url, repo.headers, explain=repo.explain)) as answer:
            try:
                return json.load(answer)
            except ValueError:
                raise FormatError(f"{_hub()}: not a Hugging Face endpoint; check HF_ENDPOINT") from None
            except OSError as error:
                raise Again(str(error)) from None

    answer = ask(
        attempt,
        lambda reason: ResourceError(f"{_hub()}: {reason}; check the network, or set HF_ENDPOINT to a mirror"),
    )
    try:
        listed = [_listed(row) for row in answer["siblings"]]
        licence = (answer.get("cardData") or {}).get("license")
        return str(answer["sha"]), str(licence) if licence else None, listed
    except (KeyError, TypeError, AttributeError, ValueError):
        raise FormatError(f"{_hub()}: lists {repo.repo} in an unknown form; check HF_ENDPOINT") from None


def _listed(row: dict[str, Any]) -> Listed:
    large = row.get("lfs") or {}
    size = int(large.get("size") or row["size"])
    return Listed(str(row["rfilename"]), size, large.get("sha256"), None if large else row.get("blobId"))


def _bring(repo: _Repo, commit: str, file: Listed, staging: Path, report: Report) -> Record:
    target = staging / file.target
    target.parent.mkdir(exist_ok=True)
    if target.exists():  # whole when a pull was killed; checked again, since it is cheap beside a download
        target.replace(part_of(target))
    url = f"{hub_endpoint()}/{repo.repo}/resolve/{commit}/{urllib.parse.quote(file.path)}"
    place = Place(url, repo.headers, file.size, explain=repo.explain)
    download(place, target, report)
    return finish(target, Proof(file.size, file.sha256, file.git_sha1), report, file.target)


def _arrived(target: Path) -> int:
    return sum(path.stat().st_size for path in (target, part_of(target)) if path.exists())


def _hub() -> str:
    """The endpoint as it may be shown."""
    return public(hub_endpoint())


def _token(given: str | None) -> str | None:
    if given:
        return given
    from huggingface_hub import get_token  # knows $HF_TOKEN, and where `hf auth login` keeps it

    return get_token()

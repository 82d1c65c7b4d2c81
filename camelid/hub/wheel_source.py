"""A model out of a wheel: from the installed package if it is here, else fetched by pip with the user's own settings.

pip, not an own client, because only pip knows this person's index, proxy, certificates and credentials.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from camelid.errors import FormatError, MissingError, ResourceError
from camelid.files import check_space, sha256
from camelid.hub.catalog import Entry, Wheel
from camelid.hub.staging import ELSEWHERE, Proof, PulledFile, Report, copy_stream, disk_errors, finish, part_of

_UNPACKED = "wheel"  # folder in the staging folder
_POLL = 0.1  # seconds between two looks at pip


def fetch_wheel(entry: Entry, source: Wheel, staging: Path, report: Report) -> list[PulledFile]:
    """Put the one file of a wheel into `staging`.

    Raises:
        MissingError: this Python has no pip, and there is none beside it.
        ResourceError: pip could not get the wheel, or it does not fit the disk.
        VerifyError: the file is not the one on record.
        FormatError: the wheel does not hold the file.
    """
    target = staging / Path(source.member).name
    shutil.rmtree(staging / _UNPACKED, ignore_errors=True)  # what a killed pull left
    proof = Proof(entry.size, entry.sha256)
    if not target.exists():
        installed = _installed(source, proof)
        check_space(staging, entry.size * (1 if installed else 2), ELSEWHERE)  # the wheel, and the file out of it
        with disk_errors(staging):
            if installed is not None:
                with installed.open("rb") as stream:
                    copy_stream(stream, target, entry.size, report)
                return [finish(target, proof, report)]
            _fetch(source, target, entry.size, report)
        return [finish(target, proof, report)]
    target.replace(part_of(target))
    return [finish(target, proof, report)]


def fetch_whole(source: Wheel, proof: Proof, staging: Path, report: Report) -> PulledFile:
    """Put a whole wheel into `staging`; its file's name is `source.member`.

    Raises:
        MissingError, ResourceError, VerifyError: as `fetch_wheel`.
        FormatError: pip brought no wheel.
    """
    folder, target = staging / _UNPACKED, staging / source.member
    shutil.rmtree(folder, ignore_errors=True)  # what a killed pull left
    folder.mkdir(parents=True)
    try:
        check_space(staging, 2 * (proof.size or 0), ELSEWHERE)
        _run(_command(source, folder), source, folder, report, "the wheel")
        if not (folder / source.member).exists():
            raise FormatError(f"{source.requirement}: pip brought no {source.member}; check pip's index settings")
        (folder / source.member).replace(part_of(target))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return finish(target, proof, report)


def _installed(source: Wheel, proof: Proof) -> Path | None:
    """The file in the installed package, if it is here and it is the one on record; the package is not imported."""
    package, _, member = source.member.partition("/")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / member
        if path.is_file() and path.stat().st_size == proof.size and sha256(path) == proof.sha256:
            return path
    return None


def _fetch(source: Wheel, target: Path, size: int, report: Report) -> None:
    folder = target.parent / _UNPACKED
    folder.mkdir()
    try:
        _run(_command(source, folder), source, folder, report, "the wheel's .gguf")
        unpacked = folder / source.member
        if unpacked.exists():  # an installer that has no download, only install
            unpacked.replace(part_of(target))
            return
        _unpack(folder, source, target, size, report)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _command(source: Wheel, folder: Path) -> list[str]:
    """The command line that gets the wheel (pip) or its content (uv) into `folder`."""
    download = ["-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    download += ["--dest", str(folder), source.requirement]
    if any(importlib.metadata.distributions(name="pip")):  # find_spec("pip") switches setuptools off for good
        return [sys.executable, *download]
    if (uv := shutil.which("uv")) is not None:
        uv_install = [uv, "pip", "install", "--no-deps", "--python", sys.executable]
        return [*uv_install, "--target", str(folder), source.requirement]
    for name in ("python3", "python"):
        other = shutil.which(name)
        if other is not None and _has_pip(other):
            return [other, *download]
    raise MissingError(
        f"{source.requirement}: this Python has no pip to fetch it with; run: {sys.executable} -m ensurepip"
    )


def _has_pip(python: str) -> bool:
    return subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def _run(command: list[str], source: Wheel, folder: Path, report: Report, wanted: str) -> None:
    """Run pip for what is `wanted`; tells how much has come, and lets no pip outlive an interrupt."""
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                report(f"{source.requirement} (pip)", _arrived(folder), None)
                time.sleep(_POLL)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        raise ResourceError(
            f"{source.requirement}: {_last_words(log)}; check the network or pip's index settings, "
            f"or copy {wanted} here and name its path"
        )


def _arrived(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.whl"))


def _last_words(log: Path) -> str:
    """pip's last complaint, without its colours and its "ERROR:"."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    return errors[-1].removeprefix("ERROR:").strip() if errors else "pip failed without a word"


def _unpack(folder: Path, source: Wheel, target: Path, size: int, report: Report) -> None:
    """Stream the member out of the wheel into the target's part."""
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        raise FormatError(f"{source.requirement}: the index has no wheel of it; check pip's index settings")
    try:
        with zipfile.ZipFile(wheels[0]) as archive, archive.open(source.member) as stream:
            copy_stream(stream, target, size, report)  # type: ignore[arg-type]
    except KeyError:
        raise FormatError(f"{wheels[0].name}: holds no {source.member}; another wheel of the same name?") from None
    except zipfile.BadZipFile as error:
        raise FormatError(f"{wheels[0].name}: not a sound wheel ({error}); pull again") from None

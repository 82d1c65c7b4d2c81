"""What installing camelid costs and brings: no torch, no compiler, a small download, and every module."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

HAS_PIP = any(importlib.metadata.distributions(name="pip"))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HAS_PIP, reason="needs pip")]

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOWNLOAD_MB, DISK_MB, PACKAGES, OWN_MB = 60, 240, 48, 5
HEAVY = {"torch", "transformers", "triton", "scipy", "pandas", "tensorflow", "jax", "pyarrow"}
# What pip says when it is the network that fails, and not the requirements.
_UNREACHABLE = (
    "NewConnectionError",
    "ConnectTimeout",
    "Max retries exceeded",
    "Read timed out",
    "ProxyError",
    "getaddrinfo",
)


def pip(*arguments: str, cwd: Path = ROOT) -> str:
    """Standard output of pip; a test is skipped only if the package index cannot be reached."""
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check", "--retries", "1"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode and any(word in done.stderr for word in _UNREACHABLE):
        pytest.skip("the package index is not reachable")
    assert done.returncode == 0, done.stderr
    return done.stdout


def plain(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the core needs, on a machine that has none of it."""
    folder = tmp_path_factory.mktemp("core")
    pip("download", "--quiet", "--only-binary", ":all:", "--dest", str(folder), *PROJECT["dependencies"])
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def core(wheels: list[Path]) -> dict[str, int]:
    """Bytes to download for each package."""
    return {plain(path.name.split("-")[0]): path.stat().st_size for path in wheels}


def on_disk(wheel: Path) -> int:
    """Bytes of a wheel that is installed: its files, and the modules that pip compiles, which are about as large."""
    files = [(file.filename, file.file_size) for file in zipfile.ZipFile(wheel).infolist()]
    return sum(size * (2 if name.endswith(".py") else 1) for name, size in files)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """camelid's own wheel, built as pip builds it, with a compiler that would fail."""
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CC", "CXX"):
            patch.setenv(name, "/no/compiler")
        pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    return next(folder.glob("camelid-*.whl"))


def test_the_core_is_small(core: dict[str, int]) -> None:
    largest = sorted(core.items(), key=lambda row: -row[1])[:8]
    assert sum(core.values()) < DOWNLOAD_MB * 1e6, largest
    assert len(core) < PACKAGES, sorted(core)


def test_the_sizes_that_are_told_are_those_measured(core: dict[str, int], wheels: list[Path]) -> None:
    disk = sum(map(on_disk, wheels))
    assert disk < DISK_MB * 1e6, sorted((on_disk(path), path.name) for path in wheels)[-8:]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [told] = re.findall(r"about (\d+) MB to download, (\d+) MB on disk", readme)
    for mb, measured in zip(told, (sum(core.values()), disk), strict=True):
        assert 0.8 < measured / (int(mb) * 1e6) < 1.2, (told, measured)


def test_the_core_brings_nothing_heavy(core: dict[str, int]) -> None:
    assert {plain(re.split(r"[<>=!~;\[ ]", line)[0]) for line in PROJECT["dependencies"]} <= set(core)
    assert not HEAVY & set(core)
    assert not [name for name in core if name.startswith(("nvidia", "cuda"))]


def test_the_wheel_is_small_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size < OWN_MB * 1e6
    files = zipfile.ZipFile(wheel).namelist()
    held = {name for name in files if name.endswith(".py")}
    assert held == {path.relative_to(ROOT).as_posix() for path in ROOT.glob("camelid/**/*.py")}
    recipes = {name for name in files if name.startswith("camelid/recipes/")}
    assert recipes == {f"camelid/recipes/{path.name}" for path in ROOT.glob("recipes/*.toml")} != set()
    data = [path for suffix in ("json", "toml") for path in ROOT.glob(f"camelid/evals/**/*.{suffix}")]
    assert {path.relative_to(ROOT).as_posix() for path in data} <= set(files)


def test_the_wheel_runs_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    pip("install", "--quiet", "--no-deps", "--no-index", "--target", str(tmp_path / "site"), str(wheel))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "camelid", "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"camelid {PROJECT['version']}"


def test_no_oracle_is_missing() -> None:
    """What tests import if it is there, `make test` must have brought; a test that is always skipped proves nothing."""
    asked = set()
    for path in (ROOT / "tests").rglob("*.py"):
        asked |= set(re.findall(r"importorskip\(\s*\"([\w.]+)\"", path.read_text(encoding="utf-8")))
    assert {"torch", "gguf"} <= asked
    code = "".join(f"import {name}\n" for name in sorted(asked))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="is about a torch that is here already")
def test_the_train_extra_leaves_an_installed_torch_alone(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    pip("install", "--quiet", "--dry-run", "--report", str(report), *PROJECT["optional-dependencies"]["train"])
    wanted = {plain(row["metadata"]["name"]) for row in json.loads(report.read_text())["install"]}
    assert not wanted & {"torch", "numpy", "triton"}
    assert not [name for name in wanted if name.startswith(("nvidia", "cuda"))]

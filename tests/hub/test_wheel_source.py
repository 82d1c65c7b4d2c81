"""A model out of a wheel, by pip from a folder that stands for the index."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from camelid.errors import CamelidError, FormatError, MissingError, OptionError, ResourceError, VerifyError
from camelid.hub import catalog, wheel_source
from camelid.hub.catalog import CATALOG, DEFAULT_MODEL, Entry, Wheel
from camelid.hub.pull import pull
from camelid.hub.store import models, read_manifest, resolve
from tests.hub.hub_server import incoming, names

pytestmark = pytest.mark.usefixtures("own_home")


TINY = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """A row of the catalog whose wheel lies in a folder that pip takes for its index."""
    source = Wheel("camelid-tiny-model", "0.0.1", "camelid_tiny_model/tiny.gguf")
    entry = replace(
        CATALOG[DEFAULT_MODEL], name="tiny:1", source=source, size=len(TINY), sha256=hashlib.sha256(TINY).hexdigest()
    )
    monkeypatch.setitem(catalog.CATALOG, "tiny:1", entry)
    build_wheel(tmp_path / "index", TINY)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return entry


def build_wheel(index: Path, content: bytes | None) -> None:
    index.mkdir(exist_ok=True)
    info = "camelid_tiny_model-0.0.1.dist-info"
    members = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: camelid-tiny-model\nVersion: 0.0.1\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    if content is not None:
        members["camelid_tiny_model/tiny.gguf"] = content
    with zipfile.ZipFile(index / "camelid_tiny_model-0.0.1-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in members.items():
            wheel.writestr(name, data)


def test_a_model_out_of_a_wheel(tiny: Entry) -> None:
    path = pull("tiny:1")
    assert path == models() / "tiny-1" / "tiny.gguf" == resolve("tiny:1")
    assert path.read_bytes() == TINY
    assert names(path.parent) == {"tiny.gguf", "manifest.json"}
    assert read_manifest(path.parent)["source"] == "wheel:camelid-tiny-model==0.0.1"
    assert read_manifest(path.parent)["licence"] == "Apache-2.0"


def test_an_installed_package_is_used(tiny: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "camelid_tiny_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "tiny.gguf").write_bytes(TINY)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(wheel_source, "_command", lambda *_: pytest.fail("pip was asked"))
    assert pull("tiny:1").read_bytes() == TINY


def test_another_installed_version_is_not_used(tiny: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "camelid_tiny_model"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "tiny.gguf").write_bytes(TINY[::-1])
    monkeypatch.syspath_prepend(package.parent)
    assert pull("tiny:1").read_bytes() == TINY


def test_what_a_killed_pull_left_is_cleared(tiny: Entry) -> None:
    left = incoming("tiny-1") / "wheel"
    left.mkdir(parents=True)
    (left / "half.whl").touch()
    (incoming("tiny-1") / "tiny.gguf.part").write_bytes(b"GG")
    assert names(pull("tiny:1").parent) == {"tiny.gguf", "manifest.json"}


def test_no_index_is_one_line(tiny: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(ResourceError, match=r"No matching distribution found.*check the network") as caught:
        pull("tiny:1")
    assert "\n" not in str(caught.value)
    assert names(incoming("tiny-1")) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (TINY[::-1], VerifyError, "SHA-256 differs"),
        (TINY + b"x", VerifyError, "10245 bytes"),
        (None, FormatError, "holds no"),
    ],
)
def test_another_wheel(
    tiny: Entry, tmp_path: Path, content: bytes | None, error: type[CamelidError], said: str
) -> None:
    build_wheel(tmp_path / "index", content)
    with pytest.raises(error, match=said):
        pull("tiny:1")
    assert not (models() / "tiny-1").exists()
    build_wheel(tmp_path / "index", TINY)
    assert pull("tiny:1").read_bytes() == TINY


def test_a_python_without_pip(tiny: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.distributions", lambda **kind: ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=r"no pip.*-m ensurepip"):
        pull("tiny:1")
    uv = tmp_path / "uv"
    uv.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--target') + 1]) / 'camelid_tiny_model'\n"
        f"folder.mkdir()\n(folder / 'tiny.gguf').write_bytes({TINY!r})\n"
    )
    uv.chmod(0o755)
    assert pull("tiny:1").read_bytes() == TINY


def test_a_wheel_has_neither_revisions_nor_files() -> None:
    with pytest.raises(OptionError, match="leave out the revision"):
        pull(DEFAULT_MODEL, revision="v1")
    with pytest.raises(OptionError, match="choosing a file is for hf:"):
        pull("llama2:7b", file="Q4_K_M")

"""Copying in what is on this machine already."""

from __future__ import annotations

from pathlib import Path

import pytest

from camelid.errors import FormatError, VerifyError
from camelid.hub.pull import pull
from camelid.hub.store import models, read_manifest, resolve
from tests.hub.hub_server import WEIGHTS, HubServer, names

pytestmark = pytest.mark.usefixtures("own_home")


def test_local_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(WEIGHTS)
    assert pull(str(tmp_path / "m.gguf")) == models() / "m" / "m.gguf" == resolve("m")
    folder = tmp_path / "stick" / "mine"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", ".hidden"):
        (folder / name).write_bytes(b"x" * 10)
    assert names(pull(str(folder))) == {"config.json", "model.safetensors", "manifest.json"}
    with pytest.raises(FormatError, match="no files"):
        pull(str(tmp_path / "stick"))


def test_a_pulled_folder_is_carried_with_its_hashes(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pull("hf:a/b")
    monkeypatch.setenv("CAMELID_HOME", str(tmp_path / "other"))
    copied = pull(str(folder))
    assert read_manifest(copied)["source"] == read_manifest(folder)["source"]
    files = [sorted(read_manifest(path)["files"], key=str) for path in (copied, folder)]
    assert files[0] == files[1]
    monkeypatch.setenv("CAMELID_HOME", str(tmp_path / "third"))
    (folder / "model.safetensors").write_bytes(bytes(len(WEIGHTS)))
    with pytest.raises(VerifyError, match=r"model\.safetensors: SHA-256 differs"):
        pull(str(folder))


def test_all_parts_of_a_split_file_come(tmp_path: Path) -> None:
    parts = [f"m[1]-0000{i}-of-00002.gguf" for i in (1, 2)]
    for name in (*parts, "m-00001-of-00002.gguf", "other.gguf"):
        (tmp_path / name).write_bytes(WEIGHTS)
    path = pull(str(tmp_path / parts[1]))
    assert names(path) == {*parts, "manifest.json"}


def test_a_folder_that_lost_a_file_on_the_way(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pull("hf:a/b")
    monkeypatch.setenv("CAMELID_HOME", str(tmp_path / "other"))
    (folder / "config.json").unlink()
    with pytest.raises(FormatError, match=r"config\.json of its manifest is missing"):
        pull(str(folder))

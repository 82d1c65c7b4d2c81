"""Which files of a repository are pulled."""

from __future__ import annotations

from pathlib import Path

import pytest

from camelid.errors import FormatError, OptionError, VerifyError
from camelid.hub.pull import pull
from camelid.hub.store import is_complete, read_manifest, resolve
from camelid.tokens.templates.chat_templates import folder_templates
from tests.hub.hub_server import COMMIT, HubServer, names

pytestmark = pytest.mark.usefixtures("own_home")


def test_shards_are_preferred_to_a_second_copy(hub: HubServer) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": b"s" * (2000 + i) for i in (1, 2)}
    both = {"consolidated.safetensors": b"c" * 4000, "pytorch_model.bin.index.json": b"{}"}
    hub.repos["a/s"] = {"config.json": b"{}", "model.safetensors.index.json": b"{}", **shards, **both}
    assert names(pull("hf:a/s")) == {"config.json", "model.safetensors.index.json", *shards, "manifest.json"}


GGUFS = {
    "m.Q4_K_M.gguf": b"GGUF1",
    "m.Q4_K_S.gguf": b"GGUF2",
    "m.F16.gguf": b"GGUF3",
    "m.BF16.gguf": b"GGUF4",
    "mmproj-F16.gguf": b"GGUF5",
    "big/m.Q8_0-00001-of-00002.gguf": b"GGUF6",
    "big/m.Q8_0-00002-of-00002.gguf": b"GGUF7",
}


@pytest.mark.parametrize(
    ("pattern", "content"),
    [
        ("m.Q4_K_M.gguf", b"GGUF1"),
        ("q4_k_s", b"GGUF2"),
        ("F16", b"GGUF3"),
        ("*.BF16.gguf", b"GGUF4"),
        ("mmproj-F16", b"GGUF5"),
    ],
)
def test_one_gguf_file_of_many(hub: HubServer, pattern: str, content: bytes) -> None:
    hub.repos["a/g"] = GGUFS
    path = pull("hf:a/g", file=pattern)
    assert path.read_bytes() == content
    assert resolve("hf:a/g") == resolve(f"hf:a/g:{pattern}") == path
    assert pull(f"hf:a/g:{pattern}") == path


def test_a_split_gguf_comes_whole(hub: HubServer) -> None:
    hub.repos["a/g"] = GGUFS
    path = pull("hf:a/g:Q8_0")
    assert names(path) == {"m.Q8_0-00001-of-00002.gguf", "m.Q8_0-00002-of-00002.gguf", "manifest.json"}
    del (damaged := dict(GGUFS))["big/m.Q8_0-00002-of-00002.gguf"]
    hub.repos["a/h"] = damaged
    with pytest.raises(FormatError, match="has 1 of the 2 parts"):
        pull("hf:a/h:Q8_0")


def test_an_unclear_choice_lists_the_files(hub: HubServer) -> None:
    hub.repos["a/g"] = GGUFS
    for file in (None, "Q4_K", "m.*.gguf"):
        with pytest.raises(OptionError, match=r"name one.*m\.Q4_K_M\.gguf, m\.Q4_K_S\.gguf"):
            pull("hf:a/g", file=file)
    with pytest.raises(OptionError, match=r"no \.gguf file fits 'Q2_K'; it has m\.BF16\.gguf"):
        pull("hf:a/g:Q2_K")


def test_a_repository_without_a_model(hub: HubServer) -> None:
    hub.repos["a/n"] = {"README.md": b"", "config.json": b"{}", "../../evil.gguf": b"GGUF"}
    with pytest.raises(FormatError, match="holds no model"):
        pull("hf:a/n")
    hub.repos["allenai/OLMo-1B-hf"] = {"config.json": b"{}"}
    with pytest.raises(FormatError, match="holds no safetensors"):
        pull("olmo:1b")


def test_a_listed_name_cannot_leave_the_folder(hub: HubServer, tmp_path: Path) -> None:
    bad = ["../../../evil.gguf", "a/../x.gguf", "..\\x.gguf", ".x.gguf", "x.gguf.part", "manifest.json"]
    hub.repos["a/e"] = {**dict.fromkeys(bad, b"GGUF"), "good.gguf": b"GGUF"}
    assert names(pull("hf:a/e").parent) == {"good.gguf", "manifest.json"}
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


TEMPLATES = {
    "additional_chat_templates/tool_use.jinja": b"{{ messages }}",
    "additional_chat_templates/rag.jinja": b"rag",
    "additional_chat_templates/notes.txt": b"no template",
    "additional_chat_templates/more/deep.jinja": b"too deep",
    "original/additional_chat_templates/old.jinja": b"another folder's",
}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_named_chat_templates_come_with_their_folder(hub: HubServer) -> None:
    hub.repos["a/t"] = {"config.json": b"{}", "model.safetensors": b"s" * 2000, **TEMPLATES}
    expected = {"config.json", "model.safetensors", *list(TEMPLATES)[:2], "manifest.json"}
    hub.faults = ["", "", "flip"]
    with pytest.raises(VerifyError, match=r"tool_use\.jinja: git's hash differs.*set aside"):
        pull("hf:a/t")
    folder = pull("hf:a/t")
    assert files(folder) == expected
    assert folder_templates(folder) == {"tool_use": "{{ messages }}", "rag": "rag"}
    manifest = read_manifest(folder)
    assert {file["name"] for file in manifest["files"]} == expected - {"manifest.json"}
    (folder / "additional_chat_templates/rag.jinja").unlink()
    assert not is_complete(folder)
    asked = len(hub.contents_asked())
    assert files(pull("hf:a/t")) == expected
    assert [path for path, _ in hub.contents_asked()[asked:]] == [
        f"/a/t/resolve/{COMMIT}/additional_chat_templates/rag.jinja"
    ]


def test_a_copied_folder_brings_its_templates(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["a/t"] = {"config.json": b"{}", "model.safetensors": b"s" * 2000, **TEMPLATES}
    folder = pull("hf:a/t")
    monkeypatch.setenv("CAMELID_HOME", str(tmp_path / "other"))
    copied = pull(str(folder))
    assert copied != folder
    assert files(copied) == files(folder)
    (folder / "additional_chat_templates/rag.jinja").write_bytes(b"RAG")
    monkeypatch.setenv("CAMELID_HOME", str(tmp_path / "third"))
    with pytest.raises(VerifyError, match=r"rag\.jinja: SHA-256 differs"):
        pull(str(folder))

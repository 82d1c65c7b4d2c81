"""The hub: lists, commits, licences, tokens."""

from __future__ import annotations

import hashlib

import pytest

from camelid import __version__
from camelid.errors import FormatError, MissingError, OptionError, ResourceError
from camelid.hub.pull import pull
from camelid.hub.store import is_complete, models, read_manifest, resolve
from tests.hub.hub_server import COMMIT, REPO, WEIGHTS, HubServer, incoming, names

pytestmark = pytest.mark.usefixtures("own_home")


def test_a_hugging_face_repository(hub: HubServer) -> None:
    told: list[tuple[str, int, int | None]] = []
    path = pull("hf:a/b", progress=lambda *what: told.append(what))
    assert path == models() / "a--b" == resolve("hf:a/b")
    assert names(path) == {"config.json", "tokenizer.json", "model.safetensors", "LICENSE.txt", "manifest.json"}
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    assert ("model.safetensors", len(WEIGHTS), len(WEIGHTS)) in told
    assert not incoming().exists()
    manifest = read_manifest(path)
    assert manifest["revision"] == COMMIT
    assert manifest["licence"] == "apache-2.0"
    assert manifest["camelid"] == __version__
    assert manifest["source"] == f"hf:a/b at {hub.url}"
    rows = {row["name"]: row for row in manifest["files"]}
    for name in names(path) - {"manifest.json"}:
        content = (path / name).read_bytes()
        assert rows[name] == {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_a_row_of_the_catalog_in_both_formats(hub: HubServer) -> None:
    hub.repos["meta-llama/Llama-2-7b-hf"] = dict(REPO)
    hub.repos["meta-llama/Llama-2-7b"] = {
        "consolidated.00.pth": b"w" * 4000, "params.json": b"{}", "tokenizer.model": b"t" * 2000, "other.bin": b"x"
    }  # fmt: skip
    hub.repos["meta-llama/Llama-3.2-1B"] = dict(REPO)
    assert "model.safetensors" in names(pull("llama2:7b"))
    assert names(pull("llama2:7b-meta")) == {"consolidated.00.pth", "params.json", "tokenizer.model", "manifest.json"}
    meta = pull("llama3.2:1b-meta")
    assert names(meta) == {"consolidated.00.pth", "params.json", "tokenizer.model", "LICENSE.txt", "manifest.json"}
    assert (meta / "params.json").read_bytes() == REPO["original/params.json"]
    assert read_manifest(meta)["licence"] == "Llama 3.2 Community License"


def test_a_revision_has_its_own_folder(hub: HubServer) -> None:
    hub.repos["allenai/OLMo-1B-hf"] = dict(REPO)
    path = pull("olmo:1b", revision="step1000")
    assert path == models() / "olmo-1b@step1000" == resolve("olmo:1b@step1000")
    assert any("/revision/step1000" in asked for asked, _ in hub.asked)
    with pytest.raises(OptionError, match="at revision nowhere"):
        pull("olmo:1b@nowhere")


def test_a_file_page_of_the_hub_is_a_file_of_its_repository(hub: HubServer) -> None:
    hub.repos["a/g"] = {"m.F16.gguf": b"GGUF", "m.F32.gguf": b"GGUF2"}
    path = pull(f"{hub.url}/a/g/resolve/main/m.F16.gguf?download=true")
    assert path == models() / "a--g--m.F16" / "m.F16.gguf"
    assert read_manifest(path.parent)["revision"] == COMMIT


def test_a_pull_goes_on_with_the_commit_it_began_with(hub: HubServer) -> None:
    hub.faults = ["", "cut:9"]
    hub.always = "status:503"
    with pytest.raises(ResourceError):
        pull("hf:a/b")
    hub.always = None
    hub.asked.clear()
    pull("hf:a/b")
    assert hub.asked[0][0] == f"/api/models/a/b/revision/{COMMIT}"
    assert sum("model.safetensors" in path for path, _ in hub.contents_asked()) == 0


def test_a_vanished_commit_is_begun_anew(hub: HubServer) -> None:
    incoming().mkdir(parents=True)
    (incoming() / "commit").write_text("f" * 40)
    assert is_complete(pull("hf:a/b"))


def test_the_list_is_asked_for_again(hub: HubServer) -> None:
    hub.list_faults = ["503", "429"]
    assert is_complete(pull("hf:a/b"))
    hub.repos["a/c"] = dict(REPO)
    hub.list_faults = ["503"] * 4
    with pytest.raises(ResourceError, match=r"answers 503.*HF_ENDPOINT"):
        pull("hf:a/c")


def test_an_endpoint_that_is_no_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HubServer, "listing", lambda *_: b"<html>")
    with pytest.raises(FormatError, match="not a Hugging Face endpoint"):
        pull("hf:a/b")
    monkeypatch.setattr(HubServer, "listing", lambda *_: b'{"siblings": [{"rfilename": "x"}]}')
    with pytest.raises(FormatError, match="unknown form"):
        pull("hf:a/b")


def test_no_server_at_all(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ResourceError, match="connection was refused; check the network"):
        pull("hf:a/b")


def test_offline_asks_nothing(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ResourceError, match="HF_HUB_OFFLINE is set"):
        pull("hf:a/b")
    assert not hub.asked


def test_a_gated_model_says_what_to_do(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = "meta-llama/Llama-2-7b-chat-hf"
    hub.repos[repo] = dict(REPO)
    hub.gated = {repo}
    with pytest.raises(MissingError, match=rf"accept the licence at {hub.url}/{repo}.*HF_TOKEN.*hf auth login"):
        pull("llama2:7b-chat")
    with pytest.raises(MissingError, match=r"refuses this token \(403\).*accept the licence at"):
        pull("llama2:7b-chat", token="hf_other")
    monkeypatch.setenv("HF_TOKEN", hub.good_token)
    assert is_complete(pull("llama2:7b-chat"))


def test_an_argument_beats_the_environment(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated = {"a/b"}
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert is_complete(pull("hf:a/b", token=hub.good_token))


def test_a_repository_that_is_not_there(hub: HubServer) -> None:
    with pytest.raises(OptionError, match=rf"x/y: the hub has no such repository.*{hub.url}/x/y"):
        pull("hf:x/y")

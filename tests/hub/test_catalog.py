"""Names: what is in the catalog, what a name or path means here, and what is said of a wrong one."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.errors import FormatError, MissingError, OptionError
from camelid.hub import catalog
from camelid.hub.catalog import CATALOG, DEFAULT_MODEL, Entry, Hub, Wheel, find
from camelid.hub.store import Name, home, is_local, models, parse_name, read_manifest, resolve
from camelid.model.family import FAMILY


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMELID_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


def put(name: str, **files: bytes) -> Path:
    """A model folder with a manifest, as a pull leaves it."""
    path = models() / parse_name(name).folder
    path.mkdir(parents=True)
    rows = []
    for file, content in files.items():
        (path / file.replace("_", ".")).write_bytes(content)
        rows.append({"name": file.replace("_", "."), "bytes": len(content), "sha256": "0" * 64})
    (path / "manifest.json").write_text(json.dumps({"name": name, "files": rows}))
    return path


@pytest.mark.parametrize("entry", CATALOG.values(), ids=CATALOG)
def test_every_row_is_sound(entry: Entry) -> None:
    assert re.fullmatch(r"[a-z0-9.]+:[a-z0-9.-]+", entry.name)
    assert entry.kind in ("base", "chat", "instruct", "python", "guard")
    if entry.sha256 is None:
        assert entry.size == 2 * FAMILY[entry.title].config.n_parameters
    if isinstance(entry.source, Hub):
        assert re.fullmatch(r"[\w-]+/[\w.-]+", entry.source.repo)
        assert entry.gated == entry.source.repo.startswith("meta-llama/")
    assert find(entry.name.upper()) == entry


def test_names_folders_and_sources_differ() -> None:
    assert len({Name(entry.name, entry).folder for entry in CATALOG.values()}) == len(CATALOG)
    assert len({str(entry.source) + entry.source.__class__.__name__ for entry in CATALOG.values()}) == len(CATALOG)


@pytest.mark.parametrize("size", ["7b", "13b", "70b"])
@pytest.mark.parametrize("kind", ["", "-chat"])
def test_the_llama_2_index_is_whole(size: str, kind: str) -> None:
    hf, meta = CATALOG[f"llama2:{size}{kind}"].source, CATALOG[f"llama2:{size}{kind}-meta"].source
    assert hf == Hub(f"meta-llama/Llama-2-{size}{kind}-hf")
    assert meta == Hub(f"meta-llama/Llama-2-{size}{kind}", "meta")


def test_every_member_of_the_family_has_a_row() -> None:
    assert {entry.title for entry in CATALOG.values()} == set(FAMILY)


def test_the_default_is_the_file_in_the_wheel(smollm2_path: Path) -> None:
    entry = CATALOG[DEFAULT_MODEL]
    assert isinstance(entry.source, Wheel)
    assert smollm2_path.name == Path(entry.source.member).name
    assert smollm2_path.stat().st_size == entry.size
    spec = importlib.util.find_spec(entry.source.member.partition("/")[0])
    assert spec is not None


def test_find_knows_repositories() -> None:
    assert find("meta-llama/llama-2-7b-chat-HF").name == "llama2:7b-chat"
    assert find("meta-llama/Llama-2-7b").name == "llama2:7b-meta"
    assert find("meta-llama/Meta-Llama-3-8B").name == "llama3:8b"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("llama2:7b-caht", "llama2:7b-chat"),
        ("smollm:135m-instruct", "smollm2:135m-instruct"),
        ("codelama", "codellama has codellama:7b, codellama:7b-python"),
        ("somebody/model", "hf:somebody/model"),
        ("qwxyz", "families: codellama"),
    ],
)
def test_a_wrong_name_gets_the_near_ones(wrong: str, said: str) -> None:
    with pytest.raises(OptionError, match=re.escape(said)):
        find(wrong)
    with pytest.raises(OptionError, match="no such file or folder.*" + re.escape(said)):
        resolve(wrong)


def test_home_is_read_when_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home() == tmp_path / "home"
    monkeypatch.delenv("CAMELID_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert home() == tmp_path / "data" / "camelid"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".local" / "share" / "camelid"
    assert not home().exists()


def test_a_path_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").touch()
    assert resolve(tmp_path / "m.gguf") == tmp_path / "m.gguf"
    assert resolve(str(tmp_path)) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/m.gguf") == tmp_path / "m.gguf"


def test_not_pulled_gives_the_line_to_type() -> None:
    with pytest.raises(MissingError, match=r"camelid pull llama2:7b-chat$"):
        resolve("llama2:7b-chat")
    with pytest.raises(MissingError, match=r"camelid pull hf:a/b$"):
        resolve("hf:a/b")
    assert not is_local(CATALOG["llama2:7b-chat"])


def test_pulled_is_a_file_or_a_folder() -> None:
    one = put(DEFAULT_MODEL, m_gguf=b"GGUF")
    assert resolve(DEFAULT_MODEL) == one / "m.gguf"
    assert is_local(CATALOG[DEFAULT_MODEL])
    many = put("llama2:7b", config_json=b"{}", model_safetensors=b"12345678")
    assert resolve("llama2:7b") == many
    assert resolve("meta-llama/Llama-2-7b-hf") == many
    assert resolve("llama2-7b") == many


def test_a_file_of_the_same_name_from_elsewhere_is_another_model() -> None:
    one = put("https://example.org/m.gguf", m_gguf=b"GGUF")
    (one / "manifest.json").write_text(
        (one / "manifest.json").read_text().replace("example.org", "example.com")  # as if from there
    )
    assert resolve("https://example.com/m.gguf?key=1") == one / "m.gguf"
    with pytest.raises(OptionError, match=r"pulled as https://example\.com/m\.gguf"):
        resolve("https://example.org/m.gguf")


def test_a_tilde_of_nobody_is_no_path() -> None:
    with pytest.raises(OptionError, match="no such file"):
        resolve("~nobody-of-this-name/m.gguf")


def test_half_a_model_is_not_there() -> None:
    folder = put("llama2:7b", config_json=b"{}", model_safetensors=b"12345678")
    (folder / "model.safetensors").write_bytes(b"1234")
    assert not is_local(CATALOG["llama2:7b"])
    with pytest.raises(MissingError, match=r"was begun.*camelid pull llama2:7b$"):
        resolve("llama2:7b")


def test_one_pulled_file_answers_for_its_repository() -> None:
    one = put("hf:a/b:Q4_K_M", x_gguf=b"GGUF")
    assert resolve("hf:a/b") == one / "x.gguf"
    assert resolve("hf:a/b:Q4_K_M") == one / "x.gguf"
    put("hf:a/b:Q8_0", x_gguf=b"GGUF")
    with pytest.raises(OptionError, match=r"a--b--Q4_K_M, a--b--Q8_0"):
        resolve("hf:a/b")


@pytest.mark.parametrize("text", ["{", "[]", '{"files": []}', '{"files": [{"name": "x"}]}'])
def test_a_damaged_manifest_is_named(text: str) -> None:
    folder = put("llama2:7b", config_json=b"{}")
    (folder / "manifest.json").write_text(text)
    with pytest.raises(FormatError, match=r"manifest\.json: damaged"):
        resolve("llama2:7b")
    with pytest.raises(FormatError):
        read_manifest(folder)
    assert not is_local(CATALOG["llama2:7b"])


@pytest.mark.parametrize(
    ("text", "shown", "folder"),
    [
        ("hf:a/b@v1:Q4_K_M", "hf:a/b@v1:Q4_K_M", "a--b@v1--Q4_K_M"),
        ("olmo:1b@step1000-tokens4B", "olmo:1b@step1000-tokens4B", "olmo-1b@step1000-tokens4B"),
        ("https://huggingface.co/a/b", "hf:a/b", "a--b"),
        ("https://huggingface.co/a/b/resolve/main/x.Q4_0.gguf?download=true", "hf:a/b:x.Q4_0.gguf", "a--b--x.Q4_0"),
        ("https://huggingface.co/a/b/blob/v2/sub/x.gguf", "hf:a/b@v2:sub/x.gguf", "a--b@v2--sub-x"),
        ("https://example.org/m%20x.gguf", "https://example.org/m%20x.gguf", "m-x"),
    ],
)
def test_names_are_read(text: str, shown: str, folder: str) -> None:
    assert (str(parse_name(text)), parse_name(text).folder) == (shown, folder)


@pytest.mark.parametrize("text", ["hf:", "hf:a", "hf:a/b/c", "hf:../b@x:y:z", "hf:a/b:"])
def test_a_malformed_repository_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="must be hf:owner/repo"):
        resolve(text)


@given(st.text(max_size=60))
def test_no_text_leaves_the_models_folder_or_raises_anything_else(text: str) -> None:
    folder = parse_name(f"https://example.org/{text}").folder
    assert folder not in ("", ".", "..")
    assert "/" not in folder
    assert not folder.startswith(".")


def test_near_never_lists_all() -> None:
    assert max(len(catalog.near(word)) for word in ("codellama", "x", "a/b", "llama3:9b", "")) < 400

"""Vocabularies without a model: folders and GGUFs that hold a tokenizer only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from camelid.cli.verbs import tokens as verb
from camelid.errors import MissingError
from camelid.tokens.tokenizer import Tokenizer
from camelid.weights.open import open_tokenizer
from tests.tokens.vocabularies import small_bytes

gguf = pytest.importorskip("gguf")


def _json(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(small_bytes("<end>").to_json(), encoding="utf-8")
    return path


def _gguf(folder: Path) -> Path:
    path = folder / "vocabulary.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    fields = small_bytes("<end>").to_gguf()
    writer.add_token_list([*fields["tokenizer.ggml.tokens"], "ab"])
    writer.add_token_types([*fields["tokenizer.ggml.token_type"], 1])
    writer.add_token_merges(["a b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("make", [_json, _gguf])
def test_a_tokenizer_alone_opens(
    tmp_path: Path, make: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path)
    wanted = list(range(10))
    text = small_bytes().decode(wanted)
    for place in (path, tmp_path):
        assert Tokenizer.open(place).encode(text) == open_tokenizer(place).encode(text) == wanted
        verb.run([str(place), text], special=False, bos=False, json=True)
        assert json.loads(capsys.readouterr().out)["ids"] == wanted


def test_two_ggufs_are_not_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _gguf(tmp_path).rename(tmp_path / f"{name}.gguf")
    with pytest.raises(MissingError, match="no tokenizer"):
        Tokenizer.open(tmp_path)


def test_the_vocabulary_of_a_split_gguf_is_in_its_first_part(tmp_path: Path) -> None:
    path = _gguf(tmp_path).rename(tmp_path / "m-00001-of-00002.gguf")
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"GGUF")
    text = small_bytes().decode(list(range(10)))
    for part in (path, tmp_path / "m-00002-of-00002.gguf"):
        assert Tokenizer.open(part).encode(text) == list(range(10))

"""What a path holds follows from its content; what it is not, is said."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from camelid.errors import FormatError, MissingError, UnsupportedError
from camelid.weights import open_weights
from tests.weights.models import assert_same, saved


@pytest.mark.parametrize("format", ["gguf", "hf", "meta"])
def test_each_format_and_its_files(tmp_path: Path, format: str) -> None:
    path = saved(tmp_path, format)
    weights = open_weights(str(path))
    assert weights.format == format
    assert all(file.is_file() for file in weights.files)
    for file in weights.files:
        assert_same(open_weights(file), weights)


def test_names_do_not_matter_for_a_gguf(tmp_path: Path) -> None:
    path = saved(tmp_path, "gguf").rename(tmp_path / "picture.png")
    assert open_weights(path).format == "gguf"


def test_folder_with_a_gguf(tmp_path: Path) -> None:
    path = saved(tmp_path, "gguf").rename(tmp_path / "a.gguf")
    assert open_weights(tmp_path).path == path
    (tmp_path / "b.gguf").write_bytes(path.read_bytes())
    with pytest.raises(FormatError, match=r"holds 2 models; name one of a\.gguf, b\.gguf"):
        open_weights(tmp_path)


def test_folder_with_both_keeps_to_hugging_face(tmp_path: Path) -> None:
    folder = saved(tmp_path, "hf")
    (folder / "params.json").write_text("{}")
    assert open_weights(folder).format == "hf"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "a PNG picture"),
        (b"\x08\x03\x12\x07pytorch", "an ONNX model"),
        (b"tjgg\x03\x00\x00\x00", "ggjt file from before GGUF"),
        (pickle.dumps({"a": 1}, 4), "a Python pickle"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"\x1f\x8b\x08\x00", "gzip archive; unpack it"),
        (b"hello world", "begins with b'hello wo'"),
    ],
)
def test_foreign_files(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=says) as caught:
        open_weights(path)
    assert "GGUF file, a Hugging Face folder" in str(caught.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file or folder"):
        open_weights(tmp_path / "nothing")
    with pytest.raises(FormatError, match="no model in this folder"):
        open_weights(tmp_path)
    (tmp_path / "lfs").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(MissingError, match="git lfs pull"):
        open_weights(tmp_path / "lfs")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(MissingError, match=r"adapter_config.json but no adapter_model.safetensors"):
        open_weights(tmp_path)


def test_weights_alone(tmp_path: Path) -> None:
    folder = saved(tmp_path, "hf")
    (folder / "config.json").unlink()
    with pytest.raises(FormatError, match=r"config\.json or params\.json must lie beside"):
        open_weights(folder / "model.safetensors")


def test_tokenizer_that_is_missing(tmp_path: Path) -> None:
    weights = open_weights(saved(tmp_path, "hf"))
    assert not weights.has_tokenizer
    with pytest.raises(MissingError, match="no tokenizer beside the weights"):
        _ = weights.tokenizer


def test_a_damaged_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    path = saved(tmp_path, "gguf")
    # The length before the name keeps `attn_output.weight` out of it.
    length = b"\x0d" + bytes(7)
    path.write_bytes(path.read_bytes().replace(length + b"output.weight", length + b"\x1b[31m\n\xffkkkkkk"))
    with pytest.raises(FormatError, match=r"\\x1b\[31m\\n\\udcffkkk") as caught:
        open_weights(path)
    assert str(caught.value).isprintable()


def test_messages_end(tmp_path: Path) -> None:
    folder = saved(tmp_path, "hf")
    (folder / "config.json").write_text(json.dumps({"model_type": "x" * 100_000}))
    with pytest.raises(UnsupportedError) as caught:
        open_weights(folder)
    assert len(str(caught.value)) <= 600

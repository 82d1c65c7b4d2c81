"""A model's file that is cut short or written over while it is used: an error or the old numbers, never SIGBUS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from camelid.engine.engine import Engine, EngineOptions
from camelid.errors import FormatError, MissingError, ResourceError
from camelid.open_file import OpenFile, Region
from camelid.weights import open_weights
from tests.engine.backends import logits
from tests.weights.models import saved

FILES = {"gguf": "", "hf": "model.safetensors", "meta": "consolidated.00.pth"}


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def write_over(path: Path) -> None:
    size, now = path.stat().st_size, path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.write(os.urandom(size))
    os.utime(path, ns=(now, now + 1_000_000))


def put_another_in_place(path: Path) -> None:
    beside = path.with_name("other")
    beside.write_bytes(os.urandom(path.stat().st_size))
    beside.replace(path)


@pytest.mark.parametrize("change", [cut_short, write_over])
@pytest.mark.parametrize("format", FILES)
def test_a_changed_file_is_an_error(tmp_path: Path, format: str, change: object) -> None:
    path = saved(tmp_path, format)
    weights = open_weights(path)
    assert callable(change)
    change(path / FILES[format] if FILES[format] else path)
    for name in ("embed_tokens", "layers.1.q_proj"):
        with pytest.raises(ResourceError, match="was changed after it was opened"):
            weights.tensors[name].array()
        with pytest.raises(ResourceError, match="was changed after it was opened"):
            weights.tensors[name].rows(np.array([1, 3]))


@pytest.mark.parametrize("format", FILES)
def test_another_file_under_the_name_changes_nothing(tmp_path: Path, format: str) -> None:
    path = saved(tmp_path, format)
    before, weights = open_weights(path).tensors["lm_head"].array(), open_weights(path)
    put_another_in_place(path / FILES[format] if FILES[format] else path)
    assert np.array_equal(weights.tensors["lm_head"].array(), before)


@pytest.mark.parametrize("backend", ["cpu", "numpy", "torch"])
def test_a_loaded_model_needs_its_file_no_more(tmp_path: Path, backend: str) -> None:
    if backend == "torch":
        pytest.importorskip("torch")
    from camelid.engine.load import choose_backend

    path = saved(tmp_path, "gguf", "Q8_0", dim=64, n_heads=2, n_kv_heads=2, head_dim=32, ffn_dim=64)
    options = EngineOptions(context=32, threads=1)
    engine = Engine(choose_backend(open_weights(path), backend, options), options)
    before = logits(engine, [5, 6, 7])
    cut_short(path)
    assert np.array_equal(logits(Engine(engine.backend, options), [5, 6, 7]), before)
    assert np.isfinite(logits(engine, [200, 300])).all()


WHILE_LOADING = """
import os, sys, threading
from camelid.cli import main
from camelid.open_file import OpenFile

read, n = OpenFile.read, 0
def cut(self, start, count):
    global n
    n += 1
    if n == 40:
        os.truncate(self.path, self.size // 3)
    return read(self, start, count)
OpenFile.read = cut
main(sys.argv[1:])
"""


@pytest.mark.parametrize("words", [["generate", "{}", "hi"], ["convert", "{}", "new", "--to", "hf"]])
def test_a_file_cut_short_while_it_is_read_is_one_line(smollm2_path: Path, tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(smollm2_path.read_bytes())
    command = [sys.executable, "-c", WHILE_LOADING, *(word.format(path) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"camelid: {path}: was changed after it was opened")
    assert [other.name for other in tmp_path.iterdir()] == ["m.gguf"]


def test_rows_of_a_region(tmp_path: Path) -> None:
    data = np.arange(200 * 3, dtype=np.uint16).view(np.uint8)
    (tmp_path / "f").write_bytes(b"head" + data.tobytes() + b"tail")
    region = Region(OpenFile(tmp_path / "f"), 4, data.nbytes)
    rows = data.reshape(200, 6)
    draw = np.random.default_rng(0)
    for which in (slice(None), slice(3, 9), slice(9, 3), slice(0, 100, 7), slice(None, None, -1)):
        assert np.array_equal(region.rows(200, which), rows[which])
    for n in (0, 1, 5, 63, 64, 65, 300):
        which = draw.integers(0, 200, n)
        assert np.array_equal(region.rows(200, which), rows[which])
    assert np.array_equal(region.part(6, 12).read(2, 4), data[8:12])


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    with pytest.raises(FormatError, match="something else stands where a file should be"):
        OpenFile(tmp_path / "pipe")
    with pytest.raises(FormatError, match="a folder stands"):
        OpenFile(tmp_path)
    with pytest.raises(FormatError, match="empty"):
        OpenFile(tmp_path / "empty")
    with pytest.raises(MissingError, match="cannot be read"):
        OpenFile(tmp_path / ("n" * 300))

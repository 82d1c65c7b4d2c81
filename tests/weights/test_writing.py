"""Complete or not at all, and not without room."""

from __future__ import annotations

import errno
from collections import namedtuple
from pathlib import Path

import pytest

from camelid.errors import OptionError, ResourceError
from camelid.weights import open_weights, save_weights, writing
from tests.weights.models import assert_same, saved, tiny_weights


@pytest.mark.parametrize("format", ["gguf", "hf", "meta"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_leaves_nothing(tmp_path: Path, format: str, failure: type[BaseException]) -> None:
    def stop(done: int, total: int, name: str) -> None:
        if done > total // 2:
            raise failure

    with pytest.raises(failure):
        save_weights(tiny_weights(), tmp_path / "m", format=format, progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["gguf", "hf", "meta"])
def test_an_interrupt_leaves_what_was_there(tmp_path: Path, format: str) -> None:
    path = saved(tmp_path, format)
    before = open_weights(path)

    def stop(done: int, total: int, name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_weights(tiny_weights("BF16"), path, format=format, overwrite=True, progress=stop)
    assert_same(open_weights(path), before)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("format", ["gguf", "hf", "meta"])
def test_existing_targets(tmp_path: Path, format: str) -> None:
    path = saved(tmp_path, format)
    with pytest.raises(OptionError, match="exists already"):
        save_weights(tiny_weights("BF16"), path, format=format)
    # Over itself: the old file is read while the new one is written.
    save_weights(open_weights(path), path, format=format, quant="BF16", overwrite=True)
    assert open_weights(path).tensors["lm_head"].quant == "BF16"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_without_a_model_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/love.txt").write_text("dear")
    for format, says in (("hf", "holds no model"), ("gguf", "format gguf is a file")):
        with pytest.raises(OptionError, match=says):
            save_weights(tiny_weights(), tmp_path / "letters", format=format, overwrite=True)
    with pytest.raises(OptionError, match="format hf is a folder"):
        save_weights(tiny_weights(), tmp_path / "letters/love.txt", format="hf", overwrite=True)
    assert (tmp_path / "letters/love.txt").read_text() == "dear"


def test_room_is_checked_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda folder: usage(10**9, 0, 1_000_000))
    with pytest.raises(ResourceError, match=r"needs 64\.\d MB of disk, 1\.0 MB free"):
        save_weights(tiny_weights(), tmp_path / "m", format="hf")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    def fill(done: int, total: int, name: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ResourceError, match="disk or quota is full"):
        save_weights(tiny_weights(), tmp_path / "m", format="meta", progress=fill)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["gguf", "hf", "meta"])
def test_progress_counts_every_byte(tmp_path: Path, format: str) -> None:
    seen: list[tuple[int, int, str]] = []
    save_weights(tiny_weights("F16"), tmp_path / "m", format=format, progress=lambda *row: seen.append(row))
    done = [row[0] for row in seen]
    assert done == sorted(done)
    assert seen[-1][0] == seen[-1][1]
    assert {row[2] for row in seen} == set(tiny_weights().tensors)

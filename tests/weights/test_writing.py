"""Complete or not at all, and not without room."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from camelid.errors import CamelidError, OptionError, ResourceError
from camelid.pedigree import write_pedigree
from camelid.weights import open_weights, save_weights, writing
from camelid.weights.exchange import can_exchange
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
    with pytest.raises(ResourceError, match=r"needs 64\.\d MB of disk, 1 MB free"):
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


TRIAL = Path(tempfile.gettempdir()) / f"trial-{os.getpid()}"
KILLED_CONVERT = """
import os, signal, sys
from pathlib import Path
from camelid.weights import save_weights, writing
from tests.weights.models import tiny_weights

moment, target = sys.argv[1], Path(sys.argv[2])
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if moment == "while writing":
    progress = die
else:
    progress, swap = None, writing.exchange
    writing.exchange = lambda *paths: (moment == "before" and die(), swap(*paths), die())
save_weights(tiny_weights("BF16"), target, format="hf", overwrite=True, progress=progress)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not can_exchange(Path(tempfile.gettempdir()) / f"trial-{os.getpid()}"),
    reason="this file system cannot exchange folders",
)
@pytest.mark.parametrize(
    ("moment", "left"), [("while writing", "F32"), ("before the exchange", "F32"), ("after the exchange", "BF16")]
)
def test_a_kill_leaves_the_old_or_the_new_model_and_the_next_one_sweeps(tmp_path: Path, moment: str, left: str) -> None:
    path = saved(tmp_path, "hf")
    done = subprocess.run([sys.executable, "-c", KILLED_CONVERT, moment.partition(" the")[0], str(path)], cwd=Path())
    assert done.returncode == -signal.SIGKILL
    assert open_weights(path).tensors["lm_head"].quant == left
    assert [other for other in tmp_path.iterdir() if ".partial-" in other.name]
    save_weights(tiny_weights("F16"), path, format="hf", overwrite=True)
    assert open_weights(path).tensors["lm_head"].quant == "F16"
    assert list(tmp_path.iterdir()) == [path]


def test_old_leftovers_are_swept_and_other_names_are_not(tmp_path: Path) -> None:
    (tmp_path / ".m.old-123").mkdir()
    (tmp_path / ".m.trial-5").mkdir()
    (tmp_path / ".m.partial-9").write_bytes(b"x")
    others = {tmp_path / ".m.partial-x", tmp_path / ".mm.partial-9", tmp_path / ".m.partial"}
    for other in others:
        other.touch()
    save_weights(tiny_weights(), tmp_path / "m", format="gguf")
    assert set(tmp_path.iterdir()) == {tmp_path / "m", *others}


@pytest.mark.parametrize("format", ["gguf", "hf"])
def test_two_to_one_name_are_refused(tmp_path: Path, format: str) -> None:
    target = tmp_path / "m"

    def again(done: int, total: int, name: str) -> None:
        with pytest.raises(OptionError, match="another camelid is writing it"):
            save_weights(tiny_weights("BF16"), target, format=format, overwrite=True)

    save_weights(tiny_weights(), target, format=format, progress=again)
    assert open_weights(target).tensors["lm_head"].quant == "F32"
    assert list(tmp_path.iterdir()) == [target]


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="exists already"):
        save_weights(tiny_weights(), tmp_path / "m", format="gguf", progress=lambda *_: (tmp_path / "m").touch())
    assert (tmp_path / "m").read_bytes() == b""


def test_where_folders_cannot_be_exchanged_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, "hf")
    monkeypatch.setattr(writing, "can_exchange", lambda trial: False)
    with pytest.raises(ResourceError, match="another name"):
        save_weights(tiny_weights("BF16"), path, format="hf", overwrite=True)
    assert open_weights(path).tensors["lm_head"].quant == "F32"
    save_weights(tiny_weights("BF16"), tmp_path / "m.gguf", format="gguf")  # a file is replaced without it
    save_weights(tiny_weights("F16"), tmp_path / "m.gguf", format="gguf", overwrite=True)


def test_a_new_file_never_stands_beside_the_record_of_the_old_one(tmp_path: Path) -> None:
    path = saved(tmp_path, "gguf")
    write_pedigree(path, "convert", [], {})
    save_weights(tiny_weights("BF16"), path, format="gguf", overwrite=True)
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_are_too_long(tmp_path: Path) -> None:
    for name in ("n" * 250, "n" * 300):
        with pytest.raises(CamelidError, match="cannot be written"):
            save_weights(tiny_weights(), tmp_path / name, format="hf")
        with pytest.raises(CamelidError, match=r"cannot be read|no such file"):
            open_weights(tmp_path / name)

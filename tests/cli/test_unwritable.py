"""Places that cannot be written: one line, status 2, and nothing half-written."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from camelid.cli.verbs.infill import _cut
from camelid.errors import OptionError
from tests.weights.models import saved

NOWHERE = "/proc/nowhere"


def camelid(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "camelid", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=300, check=False, **options)


def small_files() -> None:
    """As a disk that is full after the first kilobytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model"), "gguf")


@pytest.mark.slow
@pytest.mark.parametrize("place", [f"{NOWHERE}/new.gguf", "file/new.gguf", "a" * 300, "folder"])
def test_convert_to_a_place_that_cannot_be(model, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    done = camelid("convert", model, place, cwd=tmp_path)
    assert done.returncode == 2
    [complaint] = [line for line in done.stderr.splitlines() if b"no tokenizer" not in line]  # the tiny model has none
    assert complaint.startswith(b"camelid: ")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("form", ["gguf", "hf"])
def test_convert_to_a_disk_that_fills(model, tmp_path, form):
    done = camelid("convert", model, tmp_path / "new", "--to", form, preexec_fn=small_files)
    assert done.returncode == 2
    assert b"new: " in done.stderr
    assert b"Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_pull_to_a_home_that_cannot_be_written():
    done = camelid("pull", "smollm2:135m-instruct", env={"CAMELID_HOME": NOWHERE})
    assert done.returncode == 2
    assert b"set CAMELID_HOME elsewhere" in done.stderr


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_file_to_fill_is_read_as_it_is(tmp_path, monkeypatch, ends):
    """The same bytes by name and by a pipe; a byte-order mark is no part of the text."""
    path = tmp_path / "a.py"
    path.write_bytes(f"\ufeffdef f():{ends}    <FILL>{ends}    return x{ends}".encode())
    by_name = _cut(str(path))
    assert by_name == (f"def f():{ends}    ", f"{ends}    return x{ends}")
    with path.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert _cut("-") == by_name


def test_a_file_without_a_gap_is_refused(tmp_path):
    (tmp_path / "a.py").write_text("<FILL> and <FILL>")
    with pytest.raises(OptionError, match="exactly once, has it 2 times"):
        _cut(str(tmp_path / "a.py"))

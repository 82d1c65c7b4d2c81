"""Files that are complete or absent, locks that die with their holder, hashes, room on a disk, sizes in words."""

from __future__ import annotations

import errno
import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import filelock
import pytest

from camelid.errors import ResourceError
from camelid.files import check_space, free_bytes, lock, sha256, size_text, whole_file

HOLD = """
import sys, time
from pathlib import Path
from camelid.files import lock
with lock(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    time.sleep(60)
"""


class HeldElsewhereError(Exception):
    pass


def refuse() -> None:
    raise HeldElsewhereError


def write_half(path: Path) -> None:
    with whole_file(path) as file:
        file.write(b"half")
        raise ZeroDivisionError


def test_a_file_is_there_when_it_is_complete(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write_half(path)
    assert path.read_bytes() == b"old"
    with whole_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_is_freed_when_its_holder_is_killed(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(HeldElsewhereError), lock(path, refuse):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with lock(path, refuse):
        assert path.exists()


def test_a_lock_is_waited_for(tmp_path):
    path, looks, order = tmp_path / "lock", [], []

    def wait_for_it() -> None:
        with lock(path, lambda: looks.append(1)):
            order.append("second")

    with lock(path, refuse):
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        while len(looks) < 2:
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_one_holder_at_a_time_though_each_removes_the_file(tmp_path):
    """As model folders are written: the lock's file goes with its holder, and others are waiting for it."""
    path, inside, most = tmp_path / "lock", [], []

    def work() -> None:
        for _ in range(10):
            with lock(path, lambda: None):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()
                path.unlink()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 40


@pytest.mark.skipif(os.name == "nt", reason="flock is not Windows'")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch, number):
    def none(*given: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", none)
    with lock(tmp_path / "lock", refuse):
        pass


def test_a_lock_that_cannot_be_made_is_the_systems_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises((FileExistsError, NotADirectoryError)), lock(tmp_path / "file" / "lock", refuse):
        pass


def test_locks_are_those_of_the_library(tmp_path):
    with lock(tmp_path / "lock", refuse), pytest.raises(filelock.Timeout):
        filelock.FileLock(tmp_path / "lock").acquire(blocking=False)


def test_hashes_are_those_of_sha256sum(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "a.gz").write_bytes(gzip.compress(content))
    done = subprocess.run(["sha256sum", tmp_path / "a"], capture_output=True, text=True, check=True)
    assert sha256(tmp_path / "a") == sha256(tmp_path / "a.gz", gzip.open) == done.stdout.split()[0]


def test_room_is_that_of_the_disk_where_a_path_will_be(tmp_path, monkeypatch):
    usage, asked = namedtuple("usage", "total used free"), []
    monkeypatch.setattr("shutil.disk_usage", lambda path: asked.append(path) or usage(10**9, 0, 2_500_000))
    assert free_bytes(tmp_path / "not" / "yet") == 2_500_000
    assert asked == [tmp_path]
    check_space(tmp_path, 2_500_000)
    with pytest.raises(ResourceError, match=r"needs 2\.6 MB of disk, 2\.5 MB free; free some, or write elsewhere"):
        check_space(tmp_path, 2_600_000)


def test_sizes_in_words():
    numbers = (0, 7, 999, 999.6, 9500, 98_500_000, 999_700_000, 3.254e9, 1.5e12, 2e15)
    words = ["0 bytes", "7 bytes", "999 bytes", "1 kB", "9.5 kB", "98.5 MB", "1 GB", "3.25 GB", "1.5 TB", "2e+03 TB"]
    assert [size_text(number) for number in numbers] == words

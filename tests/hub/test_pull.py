"""pull as a whole: full disks, kills, two at a time, folders that are there already."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest

from camelid.errors import OptionError, ResourceError
from camelid.hub import store
from camelid.hub.pull import pull
from camelid.hub.store import is_complete, models
from tests.hub.hub_server import WEIGHTS, HubServer, incoming

pytestmark = pytest.mark.usefixtures("own_home")


def test_what_is_here_is_not_asked_for_again(hub: HubServer) -> None:
    first = pull("hf:a/b")
    n = len(hub.asked)
    assert pull("hf:a/b") == first
    assert len(hub.asked) == n


def test_a_full_disk_is_said_before_the_first_byte(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(123_000))
    with pytest.raises(ResourceError, match=r"needs 300 kB of disk, 123 kB free"):
        pull("hf:a/b")
    assert not hub.contents_asked()


def test_what_has_arrived_needs_no_room(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["a/m"] = {"x.gguf": WEIGHTS}
    incoming("a--m").mkdir(parents=True)
    (incoming("a--m") / "x.gguf.part").write_bytes(WEIGHTS[:250_000])
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(60_000))
    assert pull("hf:a/m").read_bytes() == WEIGHTS


def test_a_folder_that_cannot_be_made(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ResourceError, match="cannot be written"):
        pull("hf:a/b")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_killed_pull_goes_on(hub: HubServer, how: signal.Signals) -> None:
    hub.repos["a/m"] = {"x.gguf": WEIGHTS}
    hub.faults = ["stall:40000"]
    program = "import sys; from camelid.hub.pull import pull; pull('hf:a/m', token='t')"
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    part = incoming("a--m") / "x.gguf.part"
    until(lambda: part.exists() and part.stat().st_size == 40_000)
    process.send_signal(how)
    _, said = process.communicate()
    assert process.returncode != 0
    assert (b"KeyboardInterrupt" in said) == (how == signal.SIGINT)
    assert not (models() / "a--m").exists()
    hub.asked.clear()
    assert pull("hf:a/m").read_bytes() == WEIGHTS
    assert [headers["Range"] for _, headers in hub.contents_asked()] == ["bytes=40000-"]


def test_two_pulls_of_one_model_fetch_it_once(hub: HubServer) -> None:
    hub.repos["a/m"] = {"x.gguf": WEIGHTS}
    hub.faults = ["stall:1000"]
    paths: list[Path] = []
    waited: list[str] = []
    threads = [
        threading.Thread(target=lambda: paths.append(pull("hf:a/m", progress=lambda what, *_: waited.append(what))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 2
    assert paths[0].read_bytes() == WEIGHTS
    assert "hf:a/m: another pull is at it" in waited
    assert [headers.get("Range") for _, headers in hub.contents_asked()] == [None, "bytes=1000-"]


def until(true: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def test_a_lost_file_is_fetched_again_alone(hub: HubServer) -> None:
    path = pull("hf:a/b")
    (path / "config.json").unlink()
    (path / "my notes").write_text("mine")
    hub.asked.clear()
    assert pull("hf:a/b") == path
    assert [asked.rpartition("/")[2] for asked, _ in hub.contents_asked()] == ["config.json"]
    assert (path / "my notes").read_text() == "mine"


def test_a_damaged_manifest_is_made_anew(hub: HubServer) -> None:
    path = pull("hf:a/b")
    (path / "manifest.json").write_text("{")
    hub.asked.clear()
    assert is_complete(pull("hf:a/b"))
    assert not hub.contents_asked()


def test_a_folder_of_another_origin_is_left_alone(hub: HubServer, tmp_path: Path) -> None:
    (models() / "a--b").mkdir(parents=True)
    (models() / "a--b" / "config.json").write_text("mine")
    with pytest.raises(OptionError, match="not made by a pull"):
        pull("hf:a/b")
    assert (models() / "a--b" / "config.json").read_text() == "mine"
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.gguf").write_bytes(WEIGHTS)
    pull(str(tmp_path / "one" / "m.gguf"))
    with pytest.raises(OptionError, match=r"holds a model pulled as .*one/m\.gguf"):
        pull(str(tmp_path / "two" / "m.gguf"))


@pytest.mark.parametrize("name", ["llama2:7b-caht", "x/y", "nothing at all"])
def test_an_unknown_name(name: str) -> None:
    with pytest.raises(OptionError, match="no such name"):
        pull(name)
    assert not store.home().exists()


def test_the_manifest_is_plain_json(hub: HubServer) -> None:
    text = (pull("hf:a/b") / "manifest.json").read_text(encoding="utf-8")
    assert list(json.loads(text)) == ["name", "source", "revision", "licence", "date", "camelid", "files"]

"""Downloads in spite of servers that cut, stall and lie."""

from __future__ import annotations

import urllib.request

import pytest

from camelid.errors import MissingError, ResourceError, VerifyError
from camelid.hub import download
from camelid.hub.pull import pull
from camelid.hub.store import models, resolve
from tests.hub.hub_server import WEIGHTS, HubServer, incoming, names

pytestmark = pytest.mark.usefixtures("own_home")


@pytest.mark.parametrize(
    "faults",
    [
        ["cut:1000", "cut:50000", "cut:0", "cut:1"],
        ["stall:1000", "stall:0"],
        ["cut:100000", "whole"],
        ["cut:100000", "elsewhere"],
        ["short", "long"],
        ["quiet"],
        ["status:503", "status:429", "status:500"],
        ["away"],
        ["cut:70000", "away", "cut:1000", "expired"],
    ],
    ids="+".join,
)
def test_the_network_may_do_this(hub: HubServer, faults: list[str]) -> None:
    hub.repos["a/m"] = {"x.gguf": WEIGHTS}
    hub.faults = faults
    path = pull("hf:a/m")
    assert path.read_bytes() == WEIGHTS
    assert names(path.parent) == {"x.gguf", "manifest.json"}
    assert not hub.faults


def test_nothing_is_fetched_twice(hub: HubServer) -> None:
    hub.repos["a/m"] = {"x.gguf": WEIGHTS}
    hub.faults = ["cut:1000", "cut:50000"]
    pull("hf:a/m")
    assert [headers.get("Range") for _, headers in hub.contents_asked()] == [None, "bytes=1000-", "bytes=51000-"]


def test_progress_never_goes_back(hub: HubServer) -> None:
    hub.repos["a/m"] = {"x.gguf": WEIGHTS}
    hub.faults = ["cut:1000", "whole", "cut:200000", "short"]
    told: list[int] = []
    pull("hf:a/m", progress=lambda what, done, total: told.append(done) if what == "x.gguf" else None)
    assert told == sorted(told)
    assert told[-1] == len(WEIGHTS)


@pytest.mark.parametrize("fault", ["cut:0", "stall:0", "status:503", "elsewhere"])
def test_in_the_end_it_gives_up_and_keeps_what_it_has(hub: HubServer, fault: str) -> None:
    hub.repos["a/m"] = {"x.gguf": WEIGHTS}
    hub.faults, hub.always = ["cut:5000"], fault
    with pytest.raises(ResourceError, match=r"x\.gguf: .*5000 of 300004 bytes are here; pull again") as caught:
        pull("hf:a/m")
    assert "\n" not in str(caught.value)
    assert (incoming("a--m") / "x.gguf.part").stat().st_size == 5000
    assert not (models() / "a--m").exists()
    with pytest.raises(MissingError, match="was begun"):
        resolve("hf:a/m")
    hub.always = None
    hub.asked.clear()
    assert pull("hf:a/m").read_bytes() == WEIGHTS
    assert hub.contents_asked()[0][1]["Range"] == "bytes=5000-"


@pytest.mark.parametrize("large", [True, False], ids=["sha256", "git"])
def test_wrong_bytes_are_found_and_set_aside(hub: HubServer, large: bool) -> None:
    content = WEIGHTS if large else WEIGHTS[:500]
    hub.repos["a/m"] = {"x.gguf": content}
    hub.faults = ["flip"]
    with pytest.raises(VerifyError, match=r"hash differs|SHA-256 differs") as caught:
        pull("hf:a/m")
    assert "x.gguf.bad" in str(caught.value)
    assert names(incoming("a--m")) == {"commit", "x.gguf.bad"}
    assert not (models() / "a--m").exists()
    path = pull("hf:a/m")
    assert path.read_bytes() == content
    assert names(path.parent) == {"x.gguf", "manifest.json"}


def test_a_part_longer_than_the_file_is_begun_anew(hub: HubServer) -> None:
    hub.repos["a/m"] = {"x.gguf": WEIGHTS}
    incoming("a--m").mkdir(parents=True)
    (incoming("a--m") / "x.gguf.part").write_bytes(WEIGHTS + b"more")
    assert pull("hf:a/m").read_bytes() == WEIGHTS


def test_a_packed_answer_is_refused(hub: HubServer) -> None:
    hub.always = "gzip"
    with pytest.raises(ResourceError, match="compresses the file"):
        pull("hf:a/b")


def test_a_token_stays_with_its_host(hub: HubServer) -> None:
    hub.repos["a/m"] = {"x.gguf": WEIGHTS}
    hub.faults = ["away"]
    pull("hf:a/m", token="hf_good")
    given = [headers.get("Authorization") for _, headers in hub.contents_asked()]
    assert given == ["Bearer hf_good", None]


def test_a_disk_that_fills_up_keeps_what_came(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["a/m"] = {"x.gguf": WEIGHTS}
    true_read, left = download._read, [3]

    def read(*given: object) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return true_read(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(download, "_read", read)
    with pytest.raises(ResourceError, match="disk or quota is full"):
        pull("hf:a/m")
    assert (incoming("a--m") / "x.gguf.part").stat().st_size > 0
    monkeypatch.setattr(download, "_read", true_read)
    assert pull("hf:a/m").read_bytes() == WEIGHTS


def test_https_is_not_left_for_http() -> None:
    request = urllib.request.Request("https://example.org/x?key=secret")
    with pytest.raises(ResourceError, match="not encrypted") as caught:
        download._Redirects().redirect_request(request, None, 302, "Found", {}, "http://example.org/x")
    assert "secret" not in str(caught.value)


def test_only_a_number_of_empty_attempts_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    bytes_here = [0]

    def attempt() -> None:
        if len(pauses) == 3:
            bytes_here[0] += 1  # one attempt brings something: the pauses begin anew
        raise download.Retry("no", wait=7.0 if not pauses else 1e9 if len(pauses) == 1 else None)

    with pytest.raises(ResourceError, match="no at all"):
        download.patiently(attempt, lambda: bytes_here[0], lambda reason: ResourceError(f"{reason} at all"))
    assert pauses == [7.0, download.LONGEST_WAIT, 4.0, *download.PAUSES]

"""A .gguf file from any web server."""

from __future__ import annotations

import hashlib

import pytest

from camelid.errors import CamelidError, MissingError, OptionError, ResourceError, VerifyError
from camelid.hub.pull import pull
from camelid.hub.store import models, resolve
from tests.hub.hub_server import WEIGHTS, HubServer

pytestmark = pytest.mark.usefixtures("own_home")


def test_any_url_of_a_gguf(hub: HubServer) -> None:
    hub.files["/d/m x.gguf"] = WEIGHTS
    hub.faults = ["", "cut:100"]
    url = f"http://joe:secret@{hub.url.removeprefix('http://')}/d/m%20x.gguf?key=secret"
    path = pull(url)
    assert path.read_bytes() == WEIGHTS
    assert path == resolve(url) == pull(url)
    assert "secret" not in (path.parent / "manifest.json").read_text()
    assert {headers["Authorization"] for _, headers in hub.asked} == {"Basic am9lOnNlY3JldA=="}


def test_a_url_may_bring_its_hash(hub: HubServer) -> None:
    hub.files["/m.gguf"] = WEIGHTS
    good = hashlib.sha256(WEIGHTS).hexdigest()
    with pytest.raises(VerifyError, match=r"m\.gguf: SHA-256 differs"):
        pull(f"{hub.url}/m.gguf#sha256={'0' * 64}")
    with pytest.raises(OptionError, match="must be sha256="):
        pull(f"{hub.url}/m.gguf#sha256=12")
    assert pull(f"{hub.url}/m.gguf#sha256={good}").read_bytes() == WEIGHTS


def test_a_file_that_changed_on_the_server_is_begun_anew(hub: HubServer) -> None:
    hub.files["/m.gguf"], hub.tags["/m.gguf"] = b"GGUF" + b"a" * 5000, '"1"'
    hub.faults, hub.always = ["", "cut:2000"], "status:503"
    with pytest.raises(ResourceError):
        pull(f"{hub.url}/m.gguf")
    hub.always = None
    hub.files["/m.gguf"], hub.tags["/m.gguf"] = WEIGHTS, '"2"'
    assert pull(f"{hub.url}/m.gguf").read_bytes() == WEIGHTS


def test_a_web_page_is_no_model(hub: HubServer) -> None:
    hub.files["/m.gguf"] = b"<html>please log in</html>"
    with pytest.raises(VerifyError, match="not a GGUF file"):
        pull(f"{hub.url}/m.gguf")
    assert not (models() / "m").exists()


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("/none.gguf", OptionError, "no such file there"),
        ("/m.zip", OptionError, r"not a \.gguf file"),
        ("/m-00001-of-00002.gguf", OptionError, "one part of a split model"),
    ],
)
def test_urls_that_are_refused(hub: HubServer, path: str, error: type[CamelidError], said: str) -> None:
    with pytest.raises(error, match=said):
        pull(hub.url + path)


def test_a_login_is_asked_for(hub: HubServer) -> None:
    hub.files["/m.gguf"] = WEIGHTS
    hub.always = "status:401"
    with pytest.raises(MissingError, match="requires a login"):
        pull(f"{hub.url}/m.gguf")


@pytest.mark.parametrize("url", ["https://[x/m.gguf", "http://:x/m.gguf"])
def test_a_malformed_url(url: str) -> None:
    with pytest.raises(OptionError, match="not a usable URL"):
        pull(url)


@pytest.mark.parametrize("size", [5004, 3000, 9000])
def test_a_file_that_changes_under_way_is_not_mixed(hub: HubServer, size: int) -> None:
    hub.files["/m.gguf"], hub.tags["/m.gguf"] = b"GGUF" + b"a" * 5000, '"1"'
    hub.faults = ["", "cut:2000"]
    new = b"GGUF" + b"b" * (size - 4)

    def change(what: str, done: int, total: int | None) -> None:
        hub.files["/m.gguf"], hub.tags["/m.gguf"] = new, '"2"'

    with pytest.raises(ResourceError, match="has changed"):
        pull(f"{hub.url}/m.gguf", progress=change)
    assert pull(f"{hub.url}/m.gguf").read_bytes() == new

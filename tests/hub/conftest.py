"""Fixtures of the tests that fetch models: a home of their own, and a hub on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from camelid.hub import download
from tests.hub.hub_server import REPO, HubServer, hub_server


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and nobody's token, proxy or mirror."""
    monkeypatch.setenv("CAMELID_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: os.environ.get("HF_TOKEN"))
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def hub(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with one repository, a/b; connections stall soon, and attempts follow each other fast."""
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.01, 0.01))
    with hub_server() as server:
        server.repos["a/b"] = dict(REPO)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server

"""A leaderboard on a loopback port, over votes that tests make."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from camelid.serve.options import ServeOptions
from camelid.serve.server import Server, listen


@contextmanager
def serving(app: FastAPI, options: ServeOptions) -> Iterator[str]:
    """The address of a real server in a thread of this process."""
    up, server = threading.Event(), Server(app, options)
    server._ready = up.set
    listener, url = listen(options)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    assert up.wait(60)
    try:
        yield url
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, timeout=60) as it:
        yield it


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, for tests of pages."""
    from playwright.sync_api import expect

    from tests.serve.pages.watched import chromium

    expect.set_options(timeout=60_000)
    with chromium() as it:
        yield it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that drive a browser take seconds each."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)

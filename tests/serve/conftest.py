"""Servers to test against: the application in this process, and a real one on a loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

import camelid
from camelid.chat.llama import Llama
from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.load import choose_backend
from camelid.serve.app import create_app
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions
from camelid.serve.server import Server, listen
from camelid.serve.worker import Worker
from camelid.weights import Tensor, open_weights
from tests.tiny import tiny_config, tiny_tensors

MODEL, TINY = "smollm2", "tiny"


def random_llama(smollm2_path: Path, context: int = 256, **options: Any) -> Llama:
    """Random weights behind the default model's tokenizer and template: quick, and it talks nonsense."""
    real, config = open_weights(smollm2_path), tiny_config(vocab_size=49152, n_layers=1, context=context)
    tensors = {name: Tensor.from_array(name, array, "F32") for name, array in tiny_tensors(config).items()}
    weights = replace(real, config=config, tensors=tensors)
    chosen = EngineOptions(**{"threads": 1, **options})
    return Llama(weights, Engine(choose_backend(weights, "cpu", chosen), chosen))


@pytest.fixture(scope="module")
def llama(smollm2_path: Path) -> Llama:
    """The default model; each module has its own, since a worker takes it over."""
    return camelid.load(smollm2_path, backend="cpu", options=EngineOptions(threads=1, context=2048))


@pytest.fixture(scope="module")
def tiny_llama(smollm2_path: Path) -> Llama:
    """A model of random weights with 256 tokens of context; each module has its own."""
    return random_llama(smollm2_path)


@dataclass
class Running:
    """A real server."""

    url: str
    app: FastAPI
    models: Models
    server: Server


@contextlib.contextmanager
def running(
    models: Models, options: ServeOptions, routers: Sequence[APIRouter] = (), hidden: Sequence[str] = ()
) -> Iterator[Running]:
    """A real server on a free loopback port, in a thread of this process."""
    app = create_app(models, options, routers, hidden=hidden)
    up = threading.Event()
    server = Server(app, options, up.set)
    listener, url = listen(options)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    assert up.wait(120)
    try:
        yield Running(url, app, models, server)
    finally:
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> ServeOptions:
    """A free port, and a place of its own for what is kept."""
    return ServeOptions(port=0, data=tmp_path_factory.mktemp("data") / "serve.db", shutdown_seconds=5)


@pytest.fixture(scope="module")
def models(llama: Llama, tiny_llama: Llama) -> Models:
    """The default model under the name `smollm2`, and the random one under `tiny`."""
    return Models([Worker(MODEL, llama), Worker(TINY, tiny_llama)])


@pytest.fixture(scope="module")
def server(models: Models, options: ServeOptions) -> Iterator[Running]:
    """A real server with both models."""
    with running(models, options) as it:
        yield it


@pytest.fixture(scope="module")
def app(models: Models, options: ServeOptions) -> FastAPI:
    """The application with both models; `client` runs it. Not beside `server`: workers run once."""
    return create_app(models, options)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    """The application in this process, without a network."""
    with TestClient(app, base_url="http://127.0.0.1") as it:
        yield it


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, for tests of pages."""
    from playwright.sync_api import expect

    from tests.serve.pages.watched import chromium  # playwright may be missing; only those tests are skipped then

    expect.set_options(timeout=60_000)  # a machine that does other things too makes pages slow, not wrong
    with chromium() as it:
        yield it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that drive a browser take seconds each."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def watched(browser: Any, server: Running) -> Iterator[Any]:
    """A new page of desk width, on which nothing may have gone wrong when the test ends."""
    from tests.serve.pages.watched import Watched

    it = Watched(browser, server.url, viewport={"width": 1280, "height": 800})
    it.page.set_default_timeout(60_000)
    yield it
    it.context.close()
    assert not it.wrong


@pytest.fixture
def page(watched: Any) -> Any:
    """The page itself."""
    return watched.page


def wait_until(condition: Any, seconds: float = 60) -> None:
    """Give the server's threads time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)

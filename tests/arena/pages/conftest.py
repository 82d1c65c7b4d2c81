"""The arena's pages over an API with known answers, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from camelid.arena.pages.direct import HIDDEN
from camelid.arena.pages.routes import arena_pages
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions
from camelid.serve.worker import Worker
from tests.arena.pages.fake import MODELS, FakeArena
from tests.serve.conftest import (  # noqa: F401 - fixtures, and what marks tests that drive a browser
    Running,
    browser,
    pytest_collection_modifyitems,
    running,
    tiny_llama,
)


@pytest.fixture(scope="module")
def arena() -> FakeArena:
    return FakeArena()


@pytest.fixture(scope="module")
def server(arena: FakeArena, tiny_llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:  # noqa: F811
    data = tmp_path_factory.mktemp("data") / "serve.db"
    options = ServeOptions(port=0, data=data, shutdown_seconds=5)
    models, routers = Models([Worker("tiny", tiny_llama)]), [arena_pages(MODELS, arena.find), arena.router]
    with running(models, options, routers, HIDDEN) as it:
        yield it


@pytest.fixture
def open_page(browser: Any, server: Running) -> Iterator[Any]:  # noqa: F811
    """Opens a page of a size and colours; nothing may have gone wrong on any of them when the test ends."""
    from tests.serve.pages.watched import Watched

    made = []

    def open_one(path: str, width: int = 1280, height: int = 800, *, read: bool = True, **context: Any) -> Any:
        it = Watched(browser, server.url, viewport={"width": width, "height": height}, **context)
        made.append(it)
        it.page.set_default_timeout(60_000)
        it.page.goto(path)
        if read:
            it.page.get_by_role("button", name="I understand").click()
        return it

    yield open_one
    wrong = [text for it in made for text in it.wrong]
    for it in made:
        it.context.close()
    assert not wrong

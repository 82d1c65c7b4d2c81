"""What handlers ask for: the parts of the application that serves them, by their types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import Depends, FastAPI, Request
from prometheus_client import CollectorRegistry

from camelid.serve.keys import Keys
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions
from camelid.serve.storage.conversations import Store
from camelid.serve.storage.database import Database

T = TypeVar("T")


def provide(app: FastAPI, *parts: object) -> None:
    """Give an application parts, one of each type; `part_of` and `asked` find them."""
    app.state.parts = {**getattr(app.state, "parts", {}), **{type(part): part for part in parts}}


def part_of(app: FastAPI, kind: type[T]) -> T:
    """The part of this type."""
    part: T = app.state.parts[kind]
    return part


def asked(kind: type[T]) -> Callable[[Request], Awaitable[T]]:
    """A dependency that gives handlers the part of this type: `Annotated[Kind, Depends(asked(Kind))]`."""

    async def ask(request: Request) -> T:  # waits for nothing, and needs no thread
        return part_of(request.app, kind)

    return ask


ModelsDep = Annotated[Models, Depends(asked(Models))]
OptionsDep = Annotated[ServeOptions, Depends(asked(ServeOptions))]
KeysDep = Annotated[Keys, Depends(asked(Keys))]
DatabaseDep = Annotated[Database, Depends(asked(Database))]
RegistryDep = Annotated[CollectorRegistry, Depends(asked(CollectorRegistry))]
StoreDep = Annotated[Store, Depends(asked(Store))]

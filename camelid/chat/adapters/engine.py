"""One engine, one base in memory, and several adapters: each is asked as if it were an engine of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from camelid.engine.engine import Engine
from camelid.engine.request import Request


class AdaptedEngine(Engine):
    """An engine as one of its adapters sees it: all is the engine's own, but requests are answered with the adapter.

    Requests with different adapters, and without one, run in the same forward passes. Pages of keys and values are
    shared within an adapter only: `root_of` sees to that.

    Args:
        engine: shared; whoever owns it owns this.
        adapter: its number, of `Backend.add_adapter`.
    """

    _OWN = ("_shared", "adapter")

    def __init__(self, engine: Engine, adapter: int) -> None:
        self._shared, self.adapter = engine, adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_shared"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._shared, name, value)

    def add(self, request: Request) -> int:
        """Queue a request, to be answered with the adapter; returns its number."""
        return self._shared.add(self.asked(request))

    def asked(self, request: Request) -> Request:
        """A request as it is asked with the adapter."""
        own = replace(request, adapter=self.adapter)
        object.__setattr__(own, "is_checked", request.is_checked)
        return own

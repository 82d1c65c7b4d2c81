"""A model's adapters as models of a server: each has a name of its own, and all share one engine and its thread."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from camelid.chat.llama import Llama
from camelid.serve.stats import Counts, WorkerStats
from camelid.serve.worker import Worker


class AdapterWorker(Worker):
    """The worker of a base, as clients of one of its adapters see it.

    Everything is the base's: thread, queue, limits. Requests are answered with the adapter, in the same steps as those
    of the base and of other adapters, and are counted by themselves.

    Args:
        name: the adapter's, by which clients ask for it.
        llama: of `chat.load.beside`.
        owner: the base's worker.
    """

    _OWN = ("name", "llama", "created", "_owner", "_counts")

    def __init__(self, name: str, llama: Llama, owner: Worker) -> None:
        self._owner, self.name, self.llama, self.created = owner, name, llama, int(time.time())
        self._counts = Counts()

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_owner"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._owner, name, value)

    @property
    def base(self) -> str:
        """The base's name."""
        return self._owner.name

    def start(self) -> None:
        """The base's worker starts."""

    async def stop(self, seconds: float) -> None:
        """Stop the base's worker, and with it all its adapters."""
        self.llama.close_forms()
        await self._owner.stop(seconds)

    def stats(self) -> WorkerStats:
        """What this adapter was asked and wrote; what runs, waits and is held is the whole engine's."""
        return replace(super().stats(), drafted_tokens=0, accepted_tokens=0)

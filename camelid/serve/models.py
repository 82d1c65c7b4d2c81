"""The models of a server, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Self

from camelid.errors import OptionError, one_of
from camelid.serve.errors import ApiError
from camelid.serve.worker import Worker

MOST_SHOWN = 200  # characters of a name that is not known


class Models:
    """Workers by the names of their models; the first one serves requests that name none.

    Raises:
        OptionError: there is no model, or two have the same name.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = {worker.name: worker for worker in workers}
        if not workers:
            raise OptionError("models: there are none; name at least one", param="models")
        if len(self._workers) < len(workers):
            names = [worker.name for worker in workers]
            twice = next(name for name in names if names.count(name) > 1)
            raise OptionError(f"{twice}: two models have this name; serve one of them, or rename a file")

    @classmethod
    def none(cls) -> Self:
        """For a server of pages that ask no model."""
        made = cls.__new__(cls)
        made._workers = {}
        return made

    def get(self, name: str | None) -> Worker:
        """The worker of a model; of the first one without a name.

        Raises:
            ApiError: 404, no such model is here; the message lists those that are.
        """
        if name is None:
            return next(iter(self._workers.values()))
        if name not in self._workers:
            shown = name[:MOST_SHOWN]
            message = f"model: {shown!r} is not served here; {one_of(shown, self._workers)}"
            raise ApiError(404, message, "model_not_found", "model")
        return self._workers[name]

    async def stop(self, seconds: float) -> None:
        """Stop all workers: no new requests; running ones have `seconds` to finish."""
        await asyncio.gather(*(worker.stop(seconds) for worker in self))

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def __len__(self) -> int:
        return len(self._workers)

"""Whether tokens are still what was written, looked at when training begins: a flipped bit is not learned."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from camelid.data.shards import Shard
from camelid.errors import CamelidError

AT_ONCE = 256 * 2**20  # bytes that are hashed before anything else begins; SHA-256 takes about 1 GB a second


class Verifier:
    """Hashes shards: few bytes at once, when the context begins; many in a thread beside the training.

    Args:
        folder: where the shards lie.
        shards: this process's share of them.

    Raises:
        MissingError, VerifyError: a shard is not there, or not what was written.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._folder, self._shards = folder, shards
        self._ends, self._thread = threading.Event(), threading.Thread(target=self._look, daemon=True)
        self._problem: CamelidError | None = None

    def __enter__(self) -> Self:
        if sum(shard.n_bytes(self._folder) for shard in self._shards) <= AT_ONCE:
            self._look()
            self.check()
        else:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def found(self) -> bool:
        """Whether something is wrong, as far as was looked."""
        return self._problem is not None

    def check(self) -> None:
        """Raise what is wrong, if anything is."""
        if self._problem is not None:
            raise self._problem

    def _look(self) -> None:
        for shard in self._shards:
            if self._ends.is_set():
                return
            try:
                shard.verify_tokens(self._folder)
            except CamelidError as error:
                self._problem = error
                return

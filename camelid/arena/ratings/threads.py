"""Matrices of some hundred models are solved by one thread: the hand-over between several takes longer than the work,
five times as long on a busy machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import RLock

from threadpoolctl import ThreadpoolController

_LOCK = RLock()  # the number is the whole process's: two at once would each put back what the other had set


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS uses one thread inside; one at a time is inside."""
    with _LOCK, _controller().limit(limits=1, user_api="blas"):
        yield

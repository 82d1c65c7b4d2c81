"""Threads that the system takes away: nobody waits for them, what they held is done again, and bits stay."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from camelid.engine import _cpu
from tests.engine.backends import forward, span
from tests.engine.test_backend_cpu import all_rows, cpu, ids_of, weights
from tests.tiny import tiny_config

REDOES = "CAMELID_SANITIZE_THREADS" not in os.environ  # there a held model waits: what a late thread reads is a race


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """A process that does nothing but compute."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("pieces", [1, 2, 7, 300])
def test_every_piece_is_done_once_whoever_does_it(threads, pieces):
    assert _cpu.rehearse(threads=threads, walks=20, phases=40, pieces=pieces, held_every=0, microseconds=0) >= 0


@pytest.mark.parametrize("threads", [2, 3, 5])
@pytest.mark.parametrize("pieces", [2, 7, 30])
def test_a_held_piece_is_done_by_another_and_the_late_one_is_not_heard(threads, pieces):
    """Threads sleep a hundred times as long as others wait, and wake up in later phases and later walks."""
    redone = _cpu.rehearse(threads=threads, walks=30, phases=10, pieces=pieces, held_every=17, microseconds=2000)
    assert redone > 0


def test_one_thread_holds_up_nobody_else():
    assert _cpu.rehearse(threads=1, walks=2, phases=4, pieces=5, held_every=3, microseconds=100) == 0


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("shape", [{}, {"norms_after": True, "qk_norm": True}, {"norm": "layer", "clip_qkv": 1.0}])
def test_rows_keep_their_bits_when_threads_are_held(threads, shape):
    """One token, two, a dozen, many, crowds, long contexts: each kind of phase is redone somewhere."""
    config = tiny_config(context=1024, n_layers=2, **shape)
    opened, ids = weights(config, "Q8_0"), ids_of(430, config)
    whole = all_rows(cpu(opened, 1, n_pages=150), ids)
    held = cpu(opened, threads, n_pages=150)
    held._model.hold(13, 3000)
    parts = [all_rows(held, ids[a:b], a) for a, b in ((0, 7), (7, 9), (9, 10), (10, 22), (22, 400))]
    np.testing.assert_array_equal(np.concatenate(parts), whole[:400])
    pages = tuple(range(27))
    for at in range(400, 430):
        np.testing.assert_array_equal(forward(held, span(ids[at : at + 1], at, pages, "last")), whole[at : at + 1])
    crowd = tuple(span(ids[:1], 0, (page,), "all") for page in range(30, 90))
    np.testing.assert_array_equal(forward(held, *crowd), np.repeat(whole[:1], 60, 0))
    states = tuple(span(ids[:9], 0, (page,), "last", "hidden") for page in range(30, 90))
    np.testing.assert_array_equal(forward(held, *states), np.repeat(forward(cpu(opened, 1), states[0]), 60, 0))
    assert held._model.redone > 0 or not REDOES


def test_memory_may_change_while_a_thread_is_late():
    """It grows with the batch, and goes with the model: late threads are waited for first."""
    config = tiny_config(context=1024)
    opened, ids = weights(config, "Q8_0"), ids_of(300, config)
    whole = all_rows(cpu(opened, 1), ids)
    for _ in range(5):
        held = cpu(opened, 3)
        held._model.hold(5, 2000)
        for n in (1, 5, 40, 300):
            np.testing.assert_array_equal(all_rows(held, ids[:n]), whole[:n])
        held.allocate(70)
        np.testing.assert_array_equal(all_rows(held, ids), whole)


def test_bits_stay_beside_a_busy_process():
    config = tiny_config(context=512)
    opened, ids = weights(config, "Q4_1"), ids_of(90, config)
    alone = [all_rows(cpu(opened, 1), ids[:n]) for n in (1, 2, 90)]
    with busy_process():
        for threads in (1, 2, 3):
            backend = cpu(opened, threads)
            for _ in range(10):
                for n, rows in zip((1, 2, 90), alone, strict=True):
                    np.testing.assert_array_equal(all_rows(backend, ids[:n]), rows)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux alone has it")
def test_the_caller_keeps_its_processors():
    """It is on one of its own only while a pass lasts."""
    config = tiny_config()
    before = os.sched_getaffinity(0)
    backend = cpu(weights(config, "Q4_1"), len(before))
    all_rows(backend, ids_of(40, config))
    assert os.sched_getaffinity(0) == before
    if len(before) > 1:
        kept = [os.sched_getaffinity(int(task.name)) for task in Path("/proc/self/task").iterdir()]
        assert sum(len(processors) == 1 for processors in kept) >= len(before) - 1

"""What is asked of the C runtime once, for all of a training: to keep memory, and to wait asleep.

Memory that a step gives back is kept for the next one, instead of being asked of the system again.

glibc maps large blocks one by one and unmaps them when they are freed; each new mapping is zeroed page by page as it
is touched. Training allocates the same large blocks in every step, and spends up to half its time so. With the
thresholds raised, blocks come from one heap that stays.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed, for the rest of this process; False where there is no glibc.

    Python objects of other libraries are served by the same malloc, so that a process's resident memory stays at its
    highest. To be called before the first large tensor.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(
        mallopt(parameter, value)
        for parameter, value in ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, 1 << 26))
    )


def sleep_while_waiting() -> None:
    """Let OpenMP threads that wait for each other sleep soon; to be called before torch is imported.

    libgomp's threads spin for milliseconds. Where other programs want the same cores, a thread spins until it is put
    aside, in every loop: on two cores with a load of five, a step of recipes/tiny.toml took 7.2 s and 4.4 s of
    processor time, and 3.4 s and 1.2 s with this. What the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")

"""Memory that a step gives back is kept for the next one, instead of being asked of the system again.

glibc maps large blocks one by one and unmaps them when they are freed; each new mapping is zeroed page by page as it
is touched. Training allocates the same large blocks in every step, and spends up to half its time so. With the
thresholds raised, blocks come from one heap that stays.
"""

from __future__ import annotations

import ctypes
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

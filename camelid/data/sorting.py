"""The order of many numbers, several times faster than NumPy's argsort."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def stable_order(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """`np.argsort(keys, kind="stable")` (N,) for hashes: key and place share 64 bits, which sort by vector units.

    Where keys agree in the bits that are left and not in the others, NumPy does it after all.
    """
    bits = np.uint64(max(1, len(keys)).bit_length())
    places = np.arange(len(keys), dtype=np.uint64)
    packed = (keys >> bits << bits) | places
    packed.sort()
    order = (packed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    ordered = keys[order]
    different = ordered[1:] != ordered[:-1]
    if np.any(different & (ordered[1:] >> bits == ordered[:-1] >> bits)):
        return np.argsort(keys, kind="stable")
    return order

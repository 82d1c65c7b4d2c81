"""pass@k: how likely at least one of k programs, drawn from n of which c pass, passes (Chen et al., 2021)."""

from __future__ import annotations

from camelid.errors import OptionError


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 − C(n−c, k) / C(n, k), as a product, which no large number enters; 1 where fewer than k fail.

    Raises:
        OptionError: not 0 ≤ c ≤ n, or not 1 ≤ k ≤ n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise OptionError(f"pass@{k}: needs 0 ≤ passed ≤ n and 1 ≤ k ≤ n, got n={n}, passed={c}", param="k")
    if n - c < k:
        return 1.0
    fails = 1.0
    for i in range(n - c + 1, n + 1):
        fails *= 1.0 - k / i
    return 1.0 - fails

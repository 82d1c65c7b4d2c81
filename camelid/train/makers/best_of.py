"""What the best of K answers is worth: the curve of Llama 2's figure 7 (arXiv:2307.09288), without chance in it.

Of N answers to a prompt every K may have been the ones that were written. The mean over all such choices is the same
for every order of the answers, and is known: an answer that i - 1 others are below is the r-th lowest of K in
C(i-1, r-1) · C(N-i, K-r) of the C(N, K) choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb


@dataclass(frozen=True)
class BestOf:
    """One point of the curve: means over prompts.

    Attributes:
        k: answers to each prompt.
        most, median: the expected highest and the expected median reward of k answers.
    """

    k: int
    most: float
    median: float


def expected_max(rewards: Sequence[float], k: int) -> float:
    """The mean, over all choices of k of the rewards, of the highest.

    Raises:
        ValueError: there are not so many.
    """
    return _expected(rewards, k, k)


def expected_median(rewards: Sequence[float], k: int) -> float:
    """The mean, over all choices of k of the rewards, of their median: of an even k, of the middle two's mean.

    Raises:
        ValueError: there are not so many.
    """
    if k % 2:
        return _expected(rewards, k, (k + 1) // 2)
    return (_expected(rewards, k, k // 2) + _expected(rewards, k, k // 2 + 1)) / 2


def curve(prompts: Sequence[Sequence[float]]) -> list[BestOf]:
    """The points for every k that all prompts have enough answers for.

    Args:
        prompts: the rewards of each prompt's answers.
    """
    if not prompts:
        return []
    points = []
    for k in range(1, min(map(len, prompts)) + 1):
        most = sum(expected_max(rewards, k) for rewards in prompts) / len(prompts)
        points.append(BestOf(k, most, sum(expected_median(rewards, k) for rewards in prompts) / len(prompts)))
    return points


def _expected(rewards: Sequence[float], k: int, rank: int) -> float:
    """The mean of the `rank`-th lowest of k."""
    return sum(share * reward for share, reward in zip(_shares(len(rewards), k, rank), sorted(rewards), strict=True))


@lru_cache(maxsize=4096)
def _shares(n: int, k: int, rank: int) -> tuple[float, ...]:
    """How often each of n sorted rewards is the `rank`-th lowest of k."""
    if not 1 <= k <= n:
        raise ValueError(f"no {k} of {n} answers can be chosen")
    ways = comb(n, k)
    return tuple(float(Fraction(comb(i, rank - 1) * comb(n - 1 - i, k - rank), ways)) for i in range(n))

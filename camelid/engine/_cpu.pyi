"""The C++ engine's module; `csrc/bind.cpp` is where these come from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

def instruction_sets() -> list[str]:
    """Instruction sets of this build that this machine runs, best first."""

def keep_freed_memory() -> None:
    """Let malloc keep up to 64 MiB that were freed, instead of giving them back and fetching them page by page again.

    Sampling makes arrays of the vocabulary's size for each token: with glibc's defaults that takes ten times as long.
    """

def read_bandwidth(isa: str, threads: int, megabytes: int) -> float:
    """Bytes a second that the threads read together, the best of several passes."""

def multiply_peak(isa: str, what: int, threads: int) -> float:
    """Operations a second in registers: 0 float32, 1 bfloat16 (0 where there is none), 2 eight-bit integers."""

def log_sums(isa: str, rows: NDArray[np.float32], sums: NDArray[np.float64], best: NDArray[np.int64]) -> None:
    """Write what each row of logits, (n, V), exceeds its log-probabilities by, and its likeliest id; (n,) each.

    A sum is good to 1e-7, and not finite where the row is not of numbers.
    """

def rehearse(*, threads: int, walks: int, phases: int, pieces: int, held_every: int, microseconds: int) -> int:
    """For tests of the pool: walk phases of known sums while threads sleep in every so many pieces, 0: in none.

    Returns how many pieces were done in another's place.
    """

def chance(seed: int, sample: int, index: int, purpose: int) -> float:
    """`sampling.chance`, without making a generator."""

class Chain:
    """How the ids of one answer are chosen, and what its steps have seen of the text.

    Args:
        steps: names of those that do something, in order, with what steers them (of min-p the logarithm).
        banned: ids that never come, where no mask is given.
        banned_early: those that do not come before `min_tokens` are written.
        keeps_ties, counts_prompt: see `sampling.Order`.
        window: penalties look at the last so many ids; 0: all.
        n_prompt: ids of a text that are its prompt.
        alternatives: how many likely ids are told beside log-probability and rank; -1: none of these.
    """

    def __init__(
        self,
        *,
        steps: list[tuple[str, float]],
        bias: list[tuple[int, float]],
        banned: list[int],
        banned_early: list[int],
        min_tokens: int,
        is_greedy: bool,
        keeps_ties: bool,
        counts_prompt: bool,
        window: int,
        n_prompt: int,
        seed: int,
        sample: int,
        alternatives: int,
    ) -> None: ...

class Sampler:
    """Chooses ids as `sampling.py` does, on an instruction set."""

    def __init__(self, isa: str) -> None: ...
    def choose(
        self,
        rows: list[NDArray[np.float32]],
        chains: list[Chain],
        texts: list[list[int]],
        masks: list[NDArray[np.bool_] | None],
    ) -> list[tuple[int, float, float | None, int | None, tuple[tuple[int, float, float | None], ...]] | None]:
        """The next id of each text, from its row of logits, (V,), and a mask of those that may come, (V,).

        Returns:
            Of each the id, its log-probability as it was drawn, that of the raw distribution, its rank there, and the
            likeliest ids with both log-probabilities; None where only `sampling.py` can say.
        """

KINDS: dict[str, tuple[int, int]]
"""Kinds of weights that the engine packs, by their names in files: columns and bytes of a block."""

MATRICES: tuple[str, ...]
"""Matrices of a layer; a slot is an index of them."""

NORMS: tuple[str, ...]
"""Norms of a layer; a slot is an index of them."""

class Model:
    """Packed weights, threads and a pool of pages."""

    def __init__(
        self,
        *,
        dim: int,
        layers: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        ffn_dim: int,
        vocab: int,
        eps: float,
        layer_norm: bool,
        norms_after: bool,
        qk_norm: bool,
        clip_qkv: float,
        isa: str,
        threads: int,
        int16: bool,
    ) -> None: ...
    def plan(self, layer: int, slot: int, kind: str, exact: bool, rows: int, columns: int) -> None:
        """Say what a layer's matrix will be. `exact`: F16 stays F16."""

    def plan_head(self, kind: str, exact: bool, rows: int, columns: int) -> None:
        """Say what the output matrix will be."""

    def reserve(self) -> None:
        """Take memory for all that was planned."""

    def fill(self, layer: int, matrices: list[NDArray[np.uint8]]) -> int:
        """Pack a layer's matrices, in the order of their slots; returns how many weights were rounded."""

    def fill_head(self, blocks: NDArray[np.uint8]) -> int:
        """Pack the output matrix; returns how many weights were rounded."""

    def set_bias(self, layer: int, slot: int, bias: NDArray[np.float32]) -> None:
        """What is added to a matrix's outputs; after `fill`."""

    def set_norm(self, layer: int, slot: int, weight: NDArray[np.float32]) -> None: ...
    def set_final_norm(self, weight: NDArray[np.float32]) -> None: ...
    def add_adapter(self) -> int:
        """A new adapter, which adds nothing yet; returns its number, from 1 on."""

    def set_low_rank(
        self, adapter: int, layer: int, slot: int, down: NDArray[np.float32], up: NDArray[np.float32]
    ) -> None:
        """What an adapter adds to a matrix (out, in): up (out, rank) · down (rank, in)."""

    def allocate(self, pages: int) -> None: ...
    def copy_page(self, source: int, target: int) -> None: ...
    def read_weights(self) -> int:
        """Read every byte of the packed weights once: the least time that a token can take here."""

    def forward(
        self,
        embedded: NDArray[np.float32],
        lengths: NDArray[np.int32],
        starts: NDArray[np.int32],
        n_pages: NDArray[np.int32],
        pages: NDArray[np.int32],
        adapters: NDArray[np.int32],
        cos: NDArray[np.float32],
        sin: NDArray[np.float32],
        logits_rows: NDArray[np.int32],
        logits: NDArray[np.float32],
        hidden_rows: NDArray[np.int32],
        hidden: NDArray[np.float32],
    ) -> None:
        """Run spans of new ids, (T, D) embedded. Write logits of `logits_rows` of them, (rows, V), and hidden states of
        `hidden_rows`, (rows, D); both lists ascend."""

    def hold(self, every: int, microseconds: int) -> None:
        """For tests: threads sleep in every so many pieces of work; 0: in none."""

    @property
    def redone(self) -> int:
        """Pieces of work that a thread held too long, so that another finished them."""

    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...

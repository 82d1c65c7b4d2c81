"""GGUF files with bytes changed or missing, run by the C++ engine: an error of ours or numbers, never a crash."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from camelid.engine.backend_cpu import CpuBackend
from camelid.engine.engine import Engine, EngineOptions
from camelid.errors import CamelidError
from camelid.weights import open_weights, save_weights
from tests.engine.backends import logits
from tests.tiny import tiny_config
from tests.weights.models import tiny_weights

ROUNDS = 150
SHAPE = {"dim": 256, "ffn_dim": 256, "n_heads": 8, "head_dim": 32, "n_layers": 1, "vocab_size": 64}
OPTIONS = EngineOptions(context=32, threads=1)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, most of them in the header, or the end missing."""
    if chance.random() < 0.2:
        return data[: chance.randrange(len(data))]
    changed = bytearray(data)
    reach = len(data) if chance.random() < 0.5 else 2000
    for _ in range(chance.randint(1, 6)):
        changed[chance.randrange(min(reach, len(data)))] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize("quant", ["Q4_0", "Q8_0", "Q4_K", "Q6_K", "F16"])
def test_damaged_files_never_crash(tmp_path: Path, quant: str) -> None:
    weights = tiny_weights(quant, norms="F32", config=tiny_config(**SHAPE))
    save_weights(weights, tmp_path / "sound.gguf", format="gguf")
    data = (tmp_path / "sound.gguf").read_bytes()
    path, chance, runs = tmp_path / "damaged.gguf", random.Random(quant), 0
    for _ in range(ROUNDS):
        path.write_bytes(damaged(data, chance))
        try:
            weights = open_weights(path)
            engine = Engine(CpuBackend(weights, OPTIONS), OPTIONS)
            logits(engine, [1, 2, 3])
        except CamelidError:
            continue
        runs += 1
    assert runs < ROUNDS

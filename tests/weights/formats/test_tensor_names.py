"""Names both ways, and the order of q and k rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from camelid.model.config import tensor_shapes
from camelid.weights.formats.tensor_names import (
    NAMES,
    gguf_name,
    halves_to_interleaved,
    hf_name,
    interleaved_to_halves,
    meta_name,
)
from tests.tiny import tiny_config

OLMO2 = tiny_config(architecture="olmo2", norms_after=True, qk_norm=True)


def test_every_tensor_has_its_own_name_in_each_format() -> None:
    config = tiny_config()
    names = list(tensor_shapes(config))
    for rename in (hf_name, meta_name, lambda name: gguf_name(name, config)):
        assert len({rename(name) for name in names}) == len(names)
    olmo = list(tensor_shapes(OLMO2))
    assert len({gguf_name(name, OLMO2) for name in olmo}) == len({hf_name(name) for name in olmo}) == len(olmo)


def test_names_of_ggml() -> None:
    gguf = pytest.importorskip("gguf")
    for config, architecture in ((tiny_config(), "LLAMA"), (OLMO2, "OLMO2")):
        known = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture], config.n_layers)
        for name in tensor_shapes(config):
            theirs = known.get_name(hf_name(name).removesuffix(".weight"))
            assert gguf_name(name, config) == f"{theirs}.weight"


def test_examples() -> None:
    assert hf_name("layers.31.q_proj") == "model.layers.31.self_attn.q_proj.weight"
    assert meta_name("layers.31.down_proj") == "layers.31.feed_forward.w2.weight"
    assert gguf_name("layers.0.post_attention_layernorm", tiny_config()) == "blk.0.ffn_norm.weight"
    assert gguf_name("layers.0.post_attention_layernorm", OLMO2) == "blk.0.post_attention_norm.weight"


def test_the_table_has_a_row_for_every_tensor_and_no_more() -> None:
    every = [*tensor_shapes(tiny_config(n_layers=1)), *tensor_shapes(replace(OLMO2, n_layers=1))]
    every += tensor_shapes(tiny_config(n_layers=1, scalar_head=True))
    assert {row.ours for row in NAMES} == {name.replace(".0.", ".{}.") for name in every}


@pytest.mark.parametrize(("heads", "width"), [(1, 2), (4, 16), (3, 64)])
def test_row_order(heads: int, width: int) -> None:
    """The published conversions reshape and transpose; ours names rows. Both must say the same."""
    matrix = np.random.default_rng(0).standard_normal((heads * width, 5))
    meta_to_hf = matrix.reshape(heads, width // 2, 2, 5).swapaxes(1, 2).reshape(-1, 5)
    assert np.array_equal(matrix[interleaved_to_halves(heads * width, heads)], meta_to_hf)
    hf_to_meta = matrix.reshape(heads, 2, width // 2, 5).swapaxes(1, 2).reshape(-1, 5)
    assert np.array_equal(matrix[halves_to_interleaved(heads * width, heads)], hf_to_meta)


def test_row_order_keeps_what_rotation_means() -> None:
    """Rotating neighbours in Meta's order and halves in ours gives the same products of queries and keys."""
    rng = np.random.default_rng(1)
    q, k = rng.standard_normal((2, 8))
    angles = rng.standard_normal(4)
    turns = np.exp(1j * angles)

    def neighbours(x: np.ndarray, turn: np.ndarray) -> np.ndarray:
        return (x.reshape(4, 2) @ [1, 1j] * turn).view(np.float64)

    def halves(x: np.ndarray, turn: np.ndarray) -> np.ndarray:
        turned = (x[:4] + 1j * x[4:]) * turn
        return np.concatenate([turned.real, turned.imag])

    order = interleaved_to_halves(8, 1)
    meta = neighbours(q, turns) @ neighbours(k, turns**3)
    assert meta == pytest.approx(halves(q[order], turns) @ halves(k[order], turns**3))

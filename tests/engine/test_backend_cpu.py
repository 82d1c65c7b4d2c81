"""The C++ engine against the NumPy reference on the same weights, and against itself: neighbours, threads, chunks."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from camelid.engine import _cpu
from camelid.engine.backend_cpu import CpuBackend, instruction_sets
from camelid.engine.backend_numpy import NumpyBackend
from camelid.engine.batch import Batch
from camelid.engine.options import EngineOptions
from camelid.errors import OptionError, ResourceError
from camelid.model.config import ModelConfig
from camelid.weights.quants import QUANTS
from camelid.weights.tensor import Tensor
from tests.engine.backends import forward, span
from tests.tiny import tiny_config, tiny_tensors

EXACT = ("F32", "BF16")
INT16_POSITIONS = 48  # the first of a text, which keep fifteen bits: state.h
WRITABLE = tuple(name for name in _cpu.KINDS if QUANTS[name].encode)
SHAPES = {
    "grouped": {},
    "one key head each": {"n_kv_heads": 4},
    "tied": {"ties_embeddings": True, "vocab_size": 333},
    "layer norm, clamp": {"norm": "layer", "clip_qkv": 1.0},
    "norms after, qk norm": {"norms_after": True, "qk_norm": True},
    "biases": {"attention_bias": True, "mlp_bias": True, "vocab_size": 333},
    "biases before norms of q and k": {"norms_after": True, "qk_norm": True, "attention_bias": True},
}
LARGE = {"dim": 256, "ffn_dim": 512, "n_heads": 8, "head_dim": 32}  # as the kinds with blocks of 256 need
BIASES = {"attention_bias": True, "mlp_bias": True}
ODD = {"dim": 37, "ffn_dim": 53, "n_heads": 3, "n_kv_heads": 1, "head_dim": 10, "vocab_size": 101}


def weights(config: ModelConfig, quant: str, seed: int = 0) -> SimpleNamespace:
    """A random model whose matrices are stored as `quant`."""
    tensors = {
        name: Tensor.from_array(name, array, "F32" if array.ndim == 1 else quant)
        for name, array in tiny_tensors(config, seed).items()
    }
    return SimpleNamespace(path=Path("tiny"), config=config, tensors=tensors)


def cpu(opened: SimpleNamespace, threads: int = 1, isa: str | None = None, n_pages: int = 64, **options) -> CpuBackend:
    backend = CpuBackend(opened, EngineOptions(threads=threads, **options), isa)
    backend.allocate(n_pages)
    return backend


def ids_of(n: int, config: ModelConfig, seed: int = 0) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, config.vocab_size, n).tolist())


def all_rows(backend, ids: tuple[int, ...], start: int = 0, first_page: int = 0) -> np.ndarray:
    pages = tuple(range(first_page, first_page + -(-(start + len(ids)) // 16)))
    return forward(backend, span(ids, start, pages, "all"))


def divergence(reference: np.ndarray, rows: np.ndarray) -> float:
    """Mean Kullback–Leibler distance of next-token distributions, in nats."""
    logs = [x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)
            for x in (reference.astype(np.float64), rows.astype(np.float64))]  # fmt: skip
    return float((np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1).mean())


def reference_rows(opened: SimpleNamespace, ids: tuple[int, ...]) -> np.ndarray:
    backend = NumpyBackend.load(opened, EngineOptions())
    backend.allocate(64)
    return all_rows(backend, ids)


@pytest.mark.slow
@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("quant", WRITABLE)
def test_every_kind_on_every_instruction_set_agrees_with_the_reference(quant, isa):
    config = tiny_config(**LARGE)
    opened, ids = weights(config, quant), ids_of(INT16_POSITIONS + 70, config)
    expected = reference_rows(opened, ids)[INT16_POSITIONS:]
    # F16 meets bfloat16 on processors that multiply it.
    int16, usual = (1e-5, 1e-5) if quant in EXACT else (1e-4, 1e-4) if quant == "F16" else (1e-6, 1e-3)
    for threads in (1, 2):
        assert divergence(expected, all_rows(cpu(opened, threads, isa), ids)[INT16_POSITIONS:]) < usual
        exact = all_rows(cpu(opened, threads, isa, activation_bits=15), ids)
        assert divergence(expected, exact[INT16_POSITIONS:]) < int16


@pytest.mark.slow
@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("quant", ["Q4_0", "Q4_1", "Q6_K"])
def test_the_first_positions_of_every_text_keep_fifteen_bits(quant, isa):
    """They are where a model decides how it answers, and where large activations lie."""
    config = tiny_config(**LARGE)
    opened, ids = weights(config, quant), ids_of(INT16_POSITIONS + 40, config)
    rows, exact = (all_rows(cpu(opened, 1, isa, activation_bits=bits), ids) for bits in (8, 15))
    if isa in ("amx", "avx512bf16"):  # attention has bfloat16 pairs there, which fifteen bits do without
        assert divergence(exact[:INT16_POSITIONS], rows[:INT16_POSITIONS]) < 1e-4
    else:
        np.testing.assert_array_equal(rows[:INT16_POSITIONS], exact[:INT16_POSITIONS])
    assert not np.array_equal(rows[INT16_POSITIONS:], exact[INT16_POSITIONS:])
    crowd = cpu(opened, 2, isa)
    all_rows(crowd, ids[:50])
    spans = (span(ids[50:], 50, tuple(range(6)), "all"), span(ids, 0, tuple(range(10, 16)), "all"))
    np.testing.assert_array_equal(forward(crowd, *spans), np.concatenate([rows[50:], rows]))


@pytest.mark.skipif("amx" not in instruction_sets(), reason="this machine multiplies no tiles")
@pytest.mark.parametrize("bits", [8, 15])
@pytest.mark.parametrize("quant", WRITABLE)
def test_tiles_give_the_bits_of_lanes(quant, bits):
    config = tiny_config(**LARGE)
    opened, ids = weights(config, quant), ids_of(170, config)
    lanes = cpu(opened, 1, "avx512bf16", activation_bits=bits)
    expected = all_rows(lanes, ids)
    for threads in (1, 3):
        tiles = cpu(opened, threads, "amx", activation_bits=bits)
        np.testing.assert_array_equal(all_rows(tiles, ids), expected)
        for first, last in ((0, 23), (23, 50), (50, 91), (91, 92), (92, 170)):
            np.testing.assert_array_equal(all_rows(tiles, ids[first:last], first), expected[first:last])
        crowd = tuple(span(ids[:1], 0, (page,), "all") for page in range(29))
        np.testing.assert_array_equal(forward(tiles, *crowd), np.repeat(expected[:1], 29, 0))


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("quant", ["F32", "Q8_0"])
def test_every_shape_agrees(shape, quant, isa):
    config = tiny_config(**SHAPES[shape])
    opened, ids = weights(config, quant), ids_of(40, config)
    assert divergence(reference_rows(opened, ids), all_rows(cpu(opened, 2, isa, activation_bits=15), ids)) < 1e-5


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("quant", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("biases", [{}, BIASES])
def test_sizes_that_fill_no_register_agree(quant, isa, biases):
    config = tiny_config(**ODD, **biases)
    opened, ids = weights(config, quant), ids_of(33, config)
    expected = reference_rows(opened, ids)
    for options in ({}, {"dtype": "float32"}):
        rows = all_rows(cpu(opened, 2, isa, **options), ids)
        exact = quant in EXACT or bool(options)
        assert divergence(expected, rows) < (1e-5 if exact else 1e-3)
        if exact:
            np.testing.assert_allclose(rows, expected, atol=0.02)


@pytest.mark.parametrize("seed", range(6))
def test_random_shapes_agree(seed):
    rng = np.random.default_rng(seed)
    kv_heads, group, head_dim = int(rng.integers(1, 4)), int(rng.integers(1, 6)), 2 * int(rng.integers(1, 40))
    config = tiny_config(
        dim=32 * int(rng.integers(1, 5)),
        ffn_dim=32 * int(rng.integers(1, 7)),
        n_kv_heads=kv_heads,
        n_heads=kv_heads * group,
        head_dim=head_dim,
        vocab_size=int(rng.integers(20, 400)),
        n_layers=int(rng.integers(1, 4)),
    )
    quant = "Q4_1" if config.q_dim % 32 == 0 else "BF16"
    opened, ids = weights(config, quant, seed), ids_of(int(rng.integers(1, 120)), config, seed)
    expected = reference_rows(opened, ids)
    assert divergence(expected, all_rows(cpu(opened, 2, activation_bits=15), ids)) < 1e-5
    assert divergence(expected, all_rows(cpu(opened, 2), ids)) < (1e-5 if quant == "BF16" else 1e-3)


@pytest.mark.parametrize("quant", ["Q8_0", "BF16"])
@pytest.mark.parametrize("isa", instruction_sets())
def test_what_a_page_held_before_does_not_reach_the_next_text(quant, isa):
    config = tiny_config()
    opened = weights(config, quant)
    table = opened.tensors["embed_tokens"].array().copy()
    table[7] = np.inf
    opened.tensors["embed_tokens"] = Tensor.from_array("embed_tokens", table, "F32")
    ids = tuple(1 if i == 7 else i for i in ids_of(13, config))
    fresh, used = cpu(opened, 1, isa), cpu(opened, 1, isa)
    assert np.isnan(all_rows(used, (7,) * 16)).all()
    for i in range(13):
        np.testing.assert_array_equal(all_rows(used, ids[i : i + 1], i), all_rows(fresh, ids[i : i + 1], i))


@pytest.mark.parametrize("quant", ["Q4_1", "Q8_0", "Q6_K", "BF16", "F16"])
@pytest.mark.parametrize("isa", instruction_sets())
def test_a_row_has_the_same_bits_alone_in_chunks_in_a_crowd_and_with_more_threads(quant, isa):
    config = tiny_config(**(LARGE if quant == "Q6_K" else {}))
    opened, ids = weights(config, quant), ids_of(85, config)
    whole = all_rows(cpu(opened, 1, isa), ids)
    many = cpu(opened, 2, isa)
    np.testing.assert_array_equal(all_rows(many, ids), whole)
    alone = cpu(opened, 1, isa)
    np.testing.assert_array_equal(np.concatenate([all_rows(alone, ids[i : i + 1], i) for i in range(85)]), whole)
    chunked = cpu(opened, 2, isa)
    parts = [all_rows(chunked, ids[a:b], a) for a, b in ((0, 3), (3, 60), (60, 62), (62, 85))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    crowd = cpu(opened, 2, isa)
    others = [span(ids_of(n, config, n), 0, (10 + n,), "all") for n in (1, 5, 16)]
    mine = span(ids, 0, tuple(range(6)), "all")
    rows = forward(crowd, others[0], mine, *others[1:])
    np.testing.assert_array_equal(rows[1:86], whole)


@pytest.mark.parametrize("isa", instruction_sets())
def test_kinds_may_be_mixed_in_a_layer(isa):
    """As Q4_K_M files have them, and gate and up of different kinds too."""
    config = tiny_config(**LARGE)
    opened, ids = weights(config, "Q4_K"), ids_of(INT16_POSITIONS + 20, config)
    for name, quant in {"v_proj": "Q6_K", "gate_proj": "F32", "down_proj": "Q8_0", "k_proj": "BF16"}.items():
        for layer in range(config.n_layers):
            old = opened.tensors[f"layers.{layer}.{name}"]
            opened.tensors[old.name] = Tensor.from_array(old.name, old.array(), quant)
    int16 = all_rows(cpu(opened, 2, isa, activation_bits=15), ids)
    assert divergence(reference_rows(opened, ids), int16) < 1e-6
    alone, whole = cpu(opened, 1, isa), all_rows(cpu(opened, 2, isa), ids)
    np.testing.assert_array_equal(np.concatenate([all_rows(alone, ids[i : i + 1], i) for i in range(len(ids))]), whole)


def test_long_contexts_are_read_in_chunks_and_keep_their_bits():
    """Several chunks of positions: split over threads when one token is read, in line when many are."""
    config = tiny_config(context=2048)
    opened, ids = weights(config, "Q8_0"), ids_of(900, config)
    expected, whole = reference_rows(opened, ids), all_rows(cpu(opened, 1), ids)
    assert divergence(expected, whole) < 1e-3
    stepped = cpu(opened, 2)
    all_rows(stepped, ids[:890])
    pages = tuple(range(57))
    rows = [forward(stepped, span(ids[i : i + 1], i, pages, "last")) for i in range(890, 900)]
    np.testing.assert_array_equal(np.concatenate(rows), whole[890:])
    again = cpu(opened, 2)
    all_rows(again, ids[:890])
    together = forward(again, span(ids[890:894], 890, pages, "all"), span(ids[:3], 0, (60,), "all"))
    np.testing.assert_array_equal(together[:4], whole[890:894])


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_of_many_tokens_each_thread_takes_its_own_and_bits_stay(shape, threads):
    config = tiny_config(context=512, **SHAPES[shape])
    opened, ids = weights(config, "Q8_0"), ids_of(230, config)
    few, many = cpu(opened, 2), cpu(opened, threads, n_pages=150)
    expected = np.concatenate([all_rows(few, ids[i : i + 20], i) for i in range(0, 230, 20)])
    np.testing.assert_array_equal(all_rows(many, ids), expected)
    pages = tuple(range(15))
    some = forward(many, span(ids, 0, pages, "last"), span(ids[:170], 0, tuple(range(20, 31)), "all"))
    np.testing.assert_array_equal(some, np.concatenate([expected[-1:], expected[:170]]))
    last = forward(many, span(ids[:150], 0, pages, "none"), span(ids, 0, tuple(range(20, 35)), "last"))
    np.testing.assert_array_equal(last, expected[-1:])
    crowd = tuple(span(ids[:1], 0, (page,), "all") for page in range(150))
    np.testing.assert_array_equal(forward(many, *crowd), np.repeat(expected[:1], 150, 0))
    states = tuple(span(ids[:1], 0, (page,), "all", "hidden") for page in range(150))
    np.testing.assert_array_equal(forward(many, *states), np.repeat(forward(few, states[0]), 150, 0))


@pytest.mark.parametrize(("quant", "head_dim"), [("Q4_0", 16), ("Q4_0", 24), ("F32", 10)])  # values are padded to 16
def test_pages_may_lie_anywhere_and_a_copy_holds_the_same(quant, head_dim):
    config = tiny_config(head_dim=head_dim)
    opened, ids = weights(config, quant), ids_of(40, config)
    whole = all_rows(cpu(opened), ids)
    backend = cpu(opened, n_pages=43)  # the last ones of a run of sixteen that is not full
    first = forward(backend, span(ids[:33], 0, (7, 42, 19), "all"))
    backend.copy_page(19, 33)
    all_rows(backend, ids_of(200, config, seed=3), first_page=20)  # on all pages between
    rest = forward(backend, span(ids[33:], 33, (7, 42, 33), "all"))
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)


def test_only_wanted_rows_come_back_in_order():
    backend = cpu(weights(tiny_config(), "Q8_0"))
    whole = forward(backend, span((1, 2, 3), 0, (0,), "all"), span((4, 5), 0, (1,), "all"))
    asked = (span((4, 5), 0, (1,), "last"), span((9,), 0, (2,), "none"), span((1, 2, 3), 0, (0,), "all"))
    np.testing.assert_array_equal(forward(backend, *asked), whole[[4, 0, 1, 2]])
    assert forward(backend, span((1,), 0, (3,), "none")).shape == (0, 320)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", ["grouped", "tied", "norms after, qk norm"])  # tied: the vocabulary fills no register
def test_logits_and_hidden_states_of_one_batch_come_from_one_pass(shape, threads):
    config = tiny_config(context=512, **SHAPES[shape])
    opened, ids = weights(config, "Q8_0"), ids_of(230, config)
    few = (
        span(ids[:3], 0, (0,), "all", "hidden"),
        replace(span(ids[:9], 0, (1,), "all"), wanted=range(4, 6)),
        span(ids[:2], 0, (2,), "none", "hidden"),
        span(ids[:1], 0, (3,), "last", "hidden"),
        span(ids[:5], 0, (4,), "last"),
    )
    many = (
        span(ids, 0, tuple(range(15)), "all", "hidden"),
        span(ids[:170], 0, tuple(range(20, 31)), "all"),
        span(ids[:20], 0, (31, 32), "last"),
        replace(span(ids[:100], 0, tuple(range(40, 47)), "all", "hidden"), wanted=range(30, 95)),
    )
    alone = cpu(opened, 1)
    for spans in (few, many, many[:2], many[1:]):
        backend = cpu(opened, threads)
        with mock.patch.object(backend, "_pass", wraps=backend._pass) as run:
            together = backend.forward(Batch(spans))
        assert run.call_count == 1
        for rows, alone_span in zip(together, spans, strict=True):
            np.testing.assert_array_equal(rows, forward(alone, alone_span))


def test_blocks_are_as_large_as_the_quants_say():
    assert _cpu.KINDS.keys() <= QUANTS.keys()
    for name, (columns, n_bytes) in _cpu.KINDS.items():
        assert QUANTS[name].row_bytes(256) == 256 // columns * n_bytes


def test_other_kinds_are_requantised_and_that_is_said(caplog):
    config = tiny_config(**LARGE)
    opened, ids = weights(config, "F32"), ids_of(20, config)
    name = "layers.0.up_proj"
    blocks = np.random.default_rng(0).integers(0, 256, (512, QUANTS["Q2_K"].row_bytes(256)), np.uint8)
    blocks[:, 80:84] = np.array([0.002, 0.002], np.float16).view(np.uint8)  # its scales
    opened.tensors[name] = Tensor(name, (512, 256), "Q2_K", lambda: blocks)
    rows = all_rows(cpu(opened), ids)
    assert "turns Q2_K into Q8_0" in caplog.text
    assert divergence(reference_rows(opened, ids), rows) < 1e-3


@pytest.mark.skipif("avx512bf16" not in instruction_sets(), reason="this processor has no BF16 products")
def test_halves_that_lose_bits_as_bfloat16_are_counted(caplog):
    config = tiny_config()
    opened = weights(config, "F16")
    cpu(opened)
    assert "weights were rounded; --dtype float32 keeps them" in caplog.text
    caplog.clear()
    opened.tensors = {n: Tensor.from_array(n, np.round(8 * t.array()) / 8, "F16") for n, t in opened.tensors.items()}
    cpu(opened)
    assert not caplog.text


@pytest.mark.parametrize("quant", ["Q8_0", "BF16", "F16"])
def test_damaged_weights_give_numbers_that_the_engine_can_refuse(quant):
    """A NaN must not be hidden by whole numbers."""
    config = tiny_config()
    opened = weights(config, quant)
    name = "layers.0.input_layernorm"
    bad = opened.tensors[name].array()
    bad[3] = np.nan
    opened.tensors[name] = Tensor.from_array(name, bad)
    assert np.isnan(all_rows(cpu(opened), (1, 2))).any(axis=1).all()


def test_what_cannot_be_is_refused_in_one_line(monkeypatch):
    opened = weights(tiny_config(), "F32")
    monkeypatch.setenv("CAMELID_ISA", "avx1024")
    with pytest.raises(OptionError, match="CAMELID_ISA: 'avx1024' does not run here"):
        CpuBackend(opened, EngineOptions())
    monkeypatch.setenv("CAMELID_ISA", "scalar")
    assert CpuBackend(opened, EngineOptions()).isa == "scalar"
    monkeypatch.setattr("camelid.engine.backend_cpu.available_bytes", lambda: 10**6)
    with pytest.raises(ResourceError, match="tiny: needs"):
        CpuBackend(opened, EngineOptions())


def test_the_binding_refuses_what_would_leave_its_arrays():
    backend = cpu(weights(tiny_config(), "F32"), n_pages=4)
    for bad in (span((1,), 0, (4,), "last"), span((1,) * 17, 0, (0,), "last"), span((1,), 0, (-1,), "last")):
        with pytest.raises(ValueError, match=r"page|room"):
            forward(backend, bad)
    with pytest.raises(ValueError, match="no such page"):
        backend.copy_page(0, 4)


def test_threads_sleep_and_wake():
    """Two engines in one process, used in turns with pauses, and one that is dropped while its threads wait."""
    import time

    opened, ids = weights(tiny_config(), "Q8_0"), ids_of(20, tiny_config())
    first, second = cpu(opened, 3), cpu(opened, 2)
    whole = all_rows(first, ids)
    for _ in range(3):
        time.sleep(0.01)
        np.testing.assert_array_equal(all_rows(second, ids), whole)
        np.testing.assert_array_equal(all_rows(first, ids), whole)
    del first
    np.testing.assert_array_equal(all_rows(second, ids), whole)


def test_the_machines_limits_are_positive():
    isa = instruction_sets()[0]
    assert _cpu.read_bandwidth(isa, 1, 32) > 1e8
    assert all(_cpu.multiply_peak(isa, what, 1) > 1e8 for what in (0, 2))


@pytest.mark.skipif(sys.platform != "linux", reason="objdump reads ELF")
def test_the_module_starts_without_numpy_torch_or_their_threads():
    code = "import camelid.engine._cpu as c, sys; print(c.instruction_sets()); assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, capture_output=True)

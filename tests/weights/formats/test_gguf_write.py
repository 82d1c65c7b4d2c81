"""Our GGUF files as the gguf package sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from camelid.errors import UnsupportedError
from camelid.model.config import RopeScaling
from camelid.model.rope import divisors
from camelid.weights import QUANTS, open_weights, save_weights
from camelid.weights.formats.gguf_write import _value
from camelid.weights.formats.tensor_names import gguf_name, halves_to_interleaved
from tests.tiny import tiny_config
from tests.weights.models import StubTokenizer, tiny_weights

gguf = pytest.importorskip("gguf")
BIG = tiny_config(dim=256, head_dim=64, ffn_dim=512)
WRITTEN = [name for name, row in QUANTS.items() if row.quantise]


@pytest.mark.parametrize("quant", WRITTEN)
def test_the_package_reads_our_numbers(tmp_path: Path, quant: str) -> None:
    weights = tiny_weights(config=BIG)
    path = save_weights(weights, tmp_path / "m.gguf", format="gguf", quant=quant)
    ours = open_weights(path)
    reader = gguf.GGUFReader(path)
    theirs = {tensor.name: tensor for tensor in reader.tensors}
    assert set(theirs) == {gguf_name(name, BIG) for name in ours.tensors}
    for name, tensor in ours.tensors.items():
        row = theirs[gguf_name(name, BIG)]
        assert row.tensor_type.name == tensor.quant
        expected = gguf.quants.dequantize(row.data, row.tensor_type).reshape(tensor.shape)
        array = tensor.array()
        if name.endswith(("q_proj", "k_proj")):
            heads = BIG.n_heads if name.endswith("q_proj") else BIG.n_kv_heads
            array = array[halves_to_interleaved(len(array), heads)]
        assert np.array_equal(array, expected), name
    file_type = reader.fields["general.file_type"].contents()
    words = {"F32": "ALL_F32", "Q4_K": "MOSTLY_Q4_K_S", "Q5_K": "MOSTLY_Q5_K_S"}
    assert gguf.LlamaFileType(file_type).name == words.get(quant, f"MOSTLY_{quant}")


def test_fields(tmp_path: Path) -> None:
    weights = tiny_weights(
        chat_template="{{ 1 }}", stop_ids=(2, 9, 7), sampling={"temperature": 0.6, "top_k": 40.0},
        load_tokenizer=StubTokenizer,
    )  # fmt: skip
    path = save_weights(weights, tmp_path / "m.gguf", format="gguf")
    stored = gguf.GGUFReader(path).fields
    # The package cannot decode a piece that is half a character.
    fields = {key: field.contents() for key, field in stored.items() if key != "tokenizer.ggml.tokens"}
    expected = {
        "general.architecture": "llama", "general.type": "model", "general.name": "in memory", "general.file_type": 0,
        "general.sampling.temp": pytest.approx(0.6), "general.sampling.top_k": 40,
        "llama.block_count": 2, "llama.embedding_length": 64, "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 16, "llama.rope.freq_base": 10000.0, "llama.vocab_size": 320,
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-5),
        "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.eot_token_id": 9, "tokenizer.ggml.eom_token_id": 7,
        "tokenizer.ggml.token_type": [1, 3, 1] + [5] * 317,
        "tokenizer.ggml.scores": [0.5, -1.0, 0.0] + [-10000.0] * 317,
        "tokenizer.ggml.merges": [], "tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template": "{{ 1 }}",
    }  # fmt: skip
    assert {key: fields[key] for key in expected} == expected
    found = open_weights(path)
    assert (found.stop_ids, found.sampling) == ((2, 9, 7), {"temperature": 0.6, "top_k": 40.0})
    assert found.gguf_fields["tokenizer.ggml.tokens"] == ["<0>", "é", "\udcff", *(f"[PAD{n}]" for n in range(3, 320))]
    assert found.has_tokenizer


def test_more_stop_ids_than_slots(tmp_path: Path) -> None:
    weights = tiny_weights(stop_ids=(2, 9, 7, 8), load_tokenizer=StubTokenizer)
    with pytest.raises(UnsupportedError, match="three slots"):
        save_weights(weights, tmp_path / "m.gguf", format="gguf")


def test_a_gguf_keeps_its_vocabulary_and_pedigree(tmp_path: Path, smollm2_path: Path) -> None:
    source = open_weights(smollm2_path)
    found = open_weights(save_weights(source, tmp_path / "copy.gguf", format="gguf"))
    assert dict(found.gguf_fields) == dict(source.gguf_fields)
    for name, tensor in source.tensors.items():
        assert np.array_equal(found.tensors[name].blocks(), tensor.blocks()), name


def test_frequencies_are_the_first_tensor(tmp_path: Path) -> None:
    config = tiny_config(rope_theta=5e5, rope_scaling=RopeScaling(rule="llama3", factor=8.0))
    path = save_weights(tiny_weights(config=config), tmp_path / "m.gguf", format="gguf")
    first = gguf.GGUFReader(path).tensors[0]
    assert (first.name, first.tensor_type.name) == ("rope_freqs.weight", "F32")
    assert np.array_equal(first.data, divisors(config))


def test_values_that_gguf_cannot_hold() -> None:
    for value in ({"a": 1}, 1 << 70, [1, "a"], [[1], 2], [[1, "a"]]):
        with pytest.raises(UnsupportedError, match="GGUF cannot hold"):
            _value("k", value)

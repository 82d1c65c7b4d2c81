"""Meta folders: any number of shards, both ways of cutting the embedding, torch as the oracle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from camelid.errors import FormatError, MissingError, OptionError, UnsupportedError
from camelid.model.config import RopeScaling
from camelid.weights import open_weights, save_weights
from camelid.weights.formats.tensor_names import meta_name
from tests.tiny import tiny_config
from tests.weights.models import StubTokenizer, assert_same, saved, tiny_weights

torch = pytest.importorskip("torch")


def load(folder: Path) -> list[dict[str, torch.Tensor]]:
    files = sorted(folder.glob("*.pth"))
    return [torch.load(file, weights_only=True) for file in files]


def meta_order(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Our rows in Meta's order, as the published conversion script writes it."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("quant", ["F32", "F16", "BF16"])
def test_torch_sees_metas_layout(tmp_path: Path, quant: str, shards: int) -> None:
    weights = tiny_weights(quant, config=tiny_config(n_heads=8, n_kv_heads=4, head_dim=8))
    folder = save_weights(weights, tmp_path / "m", format="meta", shards=shards)
    parts = load(folder)
    assert len(parts) == shards
    arrays = {name: tensor.array() for name, tensor in weights.tensors.items()}
    for name, axis in (("layers.1.o_proj", 1), ("layers.1.gate_proj", 0), ("embed_tokens", 1), ("lm_head", 0)):
        joined = torch.cat([part[meta_name(name)] for part in parts], axis)
        assert np.array_equal(joined.float().numpy(), arrays[name])
    for name, heads in (("layers.0.q_proj", 8), ("layers.0.k_proj", 4)):
        joined = torch.cat([part[meta_name(name)] for part in parts], 0)
        assert np.array_equal(joined.float().numpy(), meta_order(arrays[name], heads))
    for part in parts:
        assert np.array_equal(part["norm.weight"].float().numpy(), arrays["norm"])
    assert_same(open_weights(folder), weights)


def test_large_vocabularies_are_cut_by_rows(tmp_path: Path) -> None:
    config = tiny_config(vocab_size=100_002, dim=8, head_dim=2, n_layers=1)
    weights = tiny_weights("BF16", config=config)
    folder = save_weights(weights, tmp_path / "m", format="meta", shards=2)
    assert load(folder)[0]["tok_embeddings.weight"].shape == (50_001, 8)
    assert_same(open_weights(folder), weights)


@pytest.mark.parametrize("shards", [2, 8])
def test_more_shards_than_key_value_heads(tmp_path: Path, shards: int) -> None:
    weights = tiny_weights("F16", config=tiny_config(n_heads=8, n_kv_heads=2, head_dim=8))
    folder = save_weights(weights, tmp_path / "m", format="meta", shards=shards)
    parts = load(folder)
    assert all(part["layers.0.attention.wk.weight"].shape == (8, 64) for part in parts)
    assert torch.equal(parts[0]["layers.0.attention.wv.weight"], parts[shards // 2 - 1]["layers.0.attention.wv.weight"])
    assert_same(open_weights(folder), weights)


def test_files_by_torch_with_frequencies(tmp_path: Path) -> None:
    """Meta's own files carry rope.freqs, some tensors as views, and no camelid.json."""
    folder = saved(tmp_path, "meta", "BF16")
    before = {name: tensor.array() for name, tensor in open_weights(folder).tensors.items()}
    (state,) = load(folder)
    state["rope.freqs"] = torch.ones(8)
    state["norm.weight"] = torch.stack([torch.zeros(64), state["norm.weight"].float()]).bfloat16()[1]
    torch.save(state, folder / "consolidated.00.pth")
    (folder / "camelid.json").unlink()
    after = open_weights(folder)
    assert after.config.context == 4096
    assert all(np.array_equal(array, after.tensors[name].array()) for name, array in before.items())


def test_tied_matrix_is_written_twice_and_found_again(tmp_path: Path) -> None:
    weights = tiny_weights("BF16", config=tiny_config(ties_embeddings=True))
    folder = save_weights(weights, tmp_path / "m", format="meta", shards=2)
    assert torch.equal(
        torch.cat([part["output.weight"] for part in load(folder)]),
        torch.cat([part["tok_embeddings.weight"] for part in load(folder)], 1),
    )
    assert_same(open_weights(folder), weights)


def test_what_meta_cannot_say_stands_beside(tmp_path: Path) -> None:
    config = tiny_config(context=777, rope_theta=5e5, rope_scaling=RopeScaling(rule="llama3", factor=32.0))
    weights = tiny_weights(config=config, chat_template="{{ 1 }}", stop_ids=(2, 5), load_tokenizer=StubTokenizer)
    folder = save_weights(weights, tmp_path / "m", format="meta")
    found = open_weights(folder)
    assert (found.config, found.chat_template, found.stop_ids) == (config, "{{ 1 }}", (2, 5))
    assert (folder / "tokenizer.model").read_bytes() == StubTokenizer().to_meta()
    params = json.loads((folder / "params.json").read_text())
    assert params["use_scaled_rope"] is True
    # Meta's programs pass these keys on by name and fail on one they do not know.
    assert "max_seq_len" not in params
    (folder / "camelid.json").write_text('{"stop_ids": "all"}')
    with pytest.raises(FormatError, match=r"camelid\.json"):
        open_weights(folder)


def test_missing_shards(tmp_path: Path) -> None:
    folder = saved(tmp_path, "meta", shards=2)
    (folder / "consolidated.00.pth").rename(tmp_path / "away")
    with pytest.raises(MissingError, match=r"consolidated\.00\.pth is missing"):
        open_weights(folder)
    (folder / "consolidated.01.pth").unlink()
    with pytest.raises(MissingError, match="fetch the weights"):
        open_weights(folder)


def test_shards_that_disagree(tmp_path: Path) -> None:
    folder = saved(tmp_path, "meta", shards=2)
    first, second = load(folder)
    del second["norm.weight"]
    torch.save(second, folder / "consolidated.01.pth")
    with pytest.raises(FormatError, match=r"disagree about norm\.weight"):
        open_weights(folder)
    second["norm.weight"] = torch.ones(5)
    torch.save(second, folder / "consolidated.01.pth")
    with pytest.raises(FormatError, match="different shapes in different shards"):
        open_weights(folder)
    (folder / "consolidated.01.pth").unlink()
    with pytest.raises(FormatError):  # half of a model
        open_weights(folder)
    del first["output.weight"]
    torch.save(first, folder / "consolidated.00.pth")
    with pytest.raises(FormatError, match=r"lacks output\.weight"):
        open_weights(folder)


def test_unknown_tensors(tmp_path: Path) -> None:
    folder = saved(tmp_path, "meta")
    (state,) = load(folder)
    torch.save({**state, "layers.0.attention.wq.bias": torch.ones(64)}, folder / "consolidated.00.pth")
    with pytest.raises(UnsupportedError, match=r"wq\.bias"):
        open_weights(folder)
    torch.save({**state, "layers.0.moe.weight": torch.ones(64, 2)}, folder / "consolidated.00.pth")
    with pytest.raises(FormatError, match=r"does not know: layers\.0\.moe\.weight"):
        open_weights(folder)
    folder = saved(tmp_path, "meta", shards=2)
    for number, part in enumerate(load(folder)):
        torch.save({**part, "layers.0.moe.weight": torch.ones(64, 2)}, folder / f"consolidated.{number:02d}.pth")
    with pytest.raises(UnsupportedError, match=r"moe\.weight is not known"):
        open_weights(folder)


def test_cuts_that_do_not_divide(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="3 does not divide this model's heads 4"):
        save_weights(tiny_weights(), tmp_path / "m", format="meta", shards=3)
    assert not list(tmp_path.iterdir())

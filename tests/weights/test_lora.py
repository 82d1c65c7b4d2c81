"""Adapters in PEFT's form: opened, refused, written, and added to their base."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from camelid.errors import FormatError, MissingError, NumericsError, OptionError, UnsupportedError
from camelid.weights import open_weights, save_weights
from camelid.weights.adapted import adapted, check_base, describe_base, is_trained_on
from camelid.weights.lora import CONFIG, TENSORS, base_path, is_adapter, open_adapter
from tests.weights.adapters import Made, made_adapter, random_parts
from tests.weights.models import saved


def changed(folder: Path, **values) -> Path:
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


@pytest.mark.parametrize("rslora", [False, True])
def test_what_is_written_is_read_again(tmp_path, rslora):
    base = saved(tmp_path, "hf")
    folder = made_adapter(tmp_path / "a", base, Made(5, 12.0, rslora), name="tiny:base")
    adapter = open_adapter(folder)
    parts = random_parts(open_weights(base).config, 5)
    assert set(adapter.pairs) == set(parts)
    for name, (down, up) in parts.items():
        assert np.array_equal(adapter.pairs[name].down, down)
        assert np.array_equal(adapter.pairs[name].up, up)
        assert adapter.pairs[name].scale == pytest.approx(12 / (5**0.5 if rslora else 5))
    assert adapter.base.name == "tiny:base"
    assert base_path(adapter) == base.absolute()
    assert adapter.n_parameters == sum(down.size + up.size for down, up in parts.values())


def test_an_adapters_folder_opens_as_its_base_with_it_added(tmp_path):
    base = saved(tmp_path, "hf")
    folder = made_adapter(tmp_path / "a", base, targets=("q_proj", "down_proj"))
    whole, plain, adapter = open_weights(folder), open_weights(base), open_adapter(folder)
    for name, tensor in whole.tensors.items():
        expected = plain.tensors[name].array()
        if name in adapter.pairs:
            pair = adapter.pairs[name]
            expected = expected + np.float64(7 / 3) * (pair.up.astype(np.float64) @ pair.down)
        assert tensor.array() == pytest.approx(expected, abs=1e-6)
    assert folder / TENSORS in whole.files
    assert base / "model.safetensors" in whole.files
    assert open_weights(folder / CONFIG).config == plain.config


def test_the_same_model_in_other_formats_is_its_base(tmp_path):
    base = saved(tmp_path, "hf")
    adapter = open_adapter(made_adapter(tmp_path / "a", base))
    gguf = open_weights(save_weights(base, tmp_path / "m.gguf", format="gguf", quant="Q8_0"))
    half = open_weights(save_weights(base, tmp_path / "half", format="hf", quant="BF16"))
    for other in (gguf, half):
        check_base(adapter, other)
        assert not is_trained_on(adapter, other)
    assert is_trained_on(adapter, open_weights(base))


def test_another_base_is_refused(tmp_path):
    adapter = open_adapter(made_adapter(tmp_path / "a", saved(tmp_path, "hf")))
    wide = open_weights(saved(tmp_path / "wide", "hf", ffn_dim=128))
    with pytest.raises(OptionError, match=r"an adapter of another base: layers\.0\.down_proj is \(64, 96\) in it, "):
        check_base(adapter, wide)
    with pytest.raises(OptionError, match="no such matrix"):
        check_base(adapter, open_weights(saved(tmp_path / "short", "hf", n_layers=1)))


def test_another_model_of_the_same_shape_is_refused(tmp_path):
    base = saved(tmp_path, "hf")
    adapter = open_adapter(made_adapter(tmp_path / "a", base))
    tensors = load_file(base / "model.safetensors")
    for name in [name for name in tensors if "norm" in name]:
        tensors[name] = tensors[name] * np.float32(1.01)
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(OptionError, match=r"the norms of .* are not those; give that base"):
        check_base(adapter, open_weights(base))


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ({"use_dora": True}, UnsupportedError, "DoRA is not supported"),
        ({"bias": "all"}, UnsupportedError, "trains biases"),
        ({"peft_type": "IA3"}, UnsupportedError, "of kind IA3"),
        ({"init_lora_weights": "pissa"}, UnsupportedError, "changes the base"),
        ({"trainable_token_indices": [1]}, UnsupportedError, "single trained tokens"),
        ({"r": 4}, FormatError, "says rank 4; the two files are not of one adapter"),
        ({"r": "x"}, FormatError, "r must be a number"),
        ({"lora_alpha": None}, FormatError, "lora_alpha must be a number"),
        ({"rank_pattern": {"q_proj": 9}}, FormatError, "says rank 9"),
        ({"rank_pattern": {"(": 9}}, FormatError, "is no pattern"),
    ],
)
def test_what_is_not_plain_lora_is_refused(tmp_path, values, error, says):
    folder = changed(made_adapter(tmp_path / "a", saved(tmp_path, "hf")), **values)
    with pytest.raises(error, match=says):
        open_adapter(folder)


def test_damaged_files_are_one_line(tmp_path):
    folder = made_adapter(tmp_path / "a", saved(tmp_path, "hf"))
    whole = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(whole[:-7])
    with pytest.raises(FormatError, match="it is incomplete"):
        open_adapter(folder)
    (folder / TENSORS).write_bytes(whole)
    tensors = load_file(folder / TENSORS)
    one = next(iter(tensors))
    save_file({**tensors, one: np.full_like(tensors[one], np.nan)}, folder / TENSORS)
    with pytest.raises(NumericsError, match="no finite number"):
        open_adapter(folder)
    save_file({**tensors, "base_model.model.model.layers.0.mlp.router.lora_A.weight": tensors[one]}, folder / TENSORS)
    with pytest.raises(UnsupportedError, match=r"adapts model\.layers\.0\.mlp\.router"):
        open_adapter(folder)
    (folder / TENSORS).unlink()
    with pytest.raises(MissingError, match=f"but no {TENSORS}"):
        open_adapter(folder)
    assert is_adapter(folder)


def test_a_base_that_is_gone_is_one_line(tmp_path):
    base = saved(tmp_path, "hf")
    folder = made_adapter(tmp_path / "a", base)
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(MissingError, match="is not there; give the base too"):
        open_weights(folder)
    (folder / "base.json").unlink()
    changed(folder, base_model_name_or_path="../elsewhere")  # relative to the adapter's folder
    assert open_weights(folder).config == open_weights(tmp_path / "elsewhere").config


@pytest.mark.parametrize("trained", ["embed_tokens", "lm_head"])
@pytest.mark.parametrize("ties", [False, True])
def test_a_trained_embedding_parts_a_tied_model(tmp_path, trained, ties):
    base = saved(tmp_path, "hf", ties_embeddings=True)
    folder = changed(made_adapter(tmp_path / "a", base), ensure_weight_tying=ties)
    plain = open_weights(base)
    own = np.random.default_rng(3).standard_normal(plain.tensors["embed_tokens"].shape, dtype=np.float32)
    place = {"embed_tokens": "model.embed_tokens", "lm_head": "lm_head"}[trained]
    save_file({**load_file(folder / TENSORS), f"base_model.model.{place}.weight": own}, folder / TENSORS)
    whole = open_weights(folder)
    assert whole.config.ties_embeddings is ties
    old = plain.tensors["embed_tokens"].array()
    embedding = own if trained == "embed_tokens" else old
    assert np.array_equal(whole.tensors["embed_tokens"].array(), embedding)
    if not ties:
        assert np.array_equal(whole.tensors["lm_head"].array(), own if trained == "lm_head" else old)
    again = open_weights(save_weights(whole, tmp_path / "again", format="hf"))
    assert again.config == whole.config


def test_what_is_known_of_a_base_tells_quants_apart(tmp_path):
    base = saved(tmp_path, "hf")
    one, other = describe_base(open_weights(base)), describe_base(open_weights(saved(tmp_path / "q", "hf", "BF16")))
    assert one.stored != other.stored
    assert set(one.norms) == set(other.norms)


def peft_oracle(config, targets, **lora):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("peft")
    import torch

    from tests.model.hf import hf_model
    from tests.tiny import tiny_tensors
    from tests.weights.adapters import peft_model

    torch.manual_seed(lora["r"])
    assert transformers
    return peft_model(hf_model(config, tiny_tensors(config)), target_modules=targets, **lora)


@pytest.mark.parametrize(
    ("targets", "lora"),
    [
        ("all-linear", {"r": 2, "lora_alpha": 3}),
        (["q_proj", "v_proj"], {"r": 8, "lora_alpha": 16, "use_rslora": True}),
        (
            ["k_proj", "o_proj", "up_proj"],
            {"r": 4, "lora_alpha": 8, "rank_pattern": {"k_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 5}},
        ),
        (["q_proj"], {"r": 2, "lora_alpha": 4, "modules_to_save": ["lm_head"]}),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of PEFT's own use of transformers
def test_an_adapter_of_peft_gives_its_logits(tmp_path, targets, lora):
    import torch

    from tests.tiny import tiny_config

    base = saved(tmp_path, "hf")
    model = peft_oracle(tiny_config(), targets, **lora)
    if "modules_to_save" in lora:
        with torch.no_grad():
            model.base_model.model.lm_head.modules_to_save["default"].weight.mul_(1.5)
    model.save_pretrained(tmp_path / "peft")
    weights = adapted(open_weights(base), open_adapter(tmp_path / "peft"))
    ids = np.random.default_rng(1).integers(0, 320, 20)
    with torch.no_grad():
        theirs = model(torch.tensor(ids)[None]).logits[0].numpy()
        merged = model.merge_and_unload()(torch.tensor(ids)[None]).logits[0].numpy()
    from camelid.model.reference import forward, logits
    from camelid.model.rope import rope_table

    tensors = {name: tensor.array() for name, tensor in weights.tensors.items()}
    cos, sin = rope_table(weights.config, np.arange(len(ids)))
    ours = logits(weights.config, tensors, forward(weights.config, tensors, ids, cos, sin))
    assert np.abs(ours - theirs).max() < 1e-5 * max(1, np.abs(theirs).max())
    assert np.abs(ours - merged).max() < 1e-5 * max(1, np.abs(theirs).max())


@pytest.mark.filterwarnings("ignore")
def test_peft_opens_what_camelid_writes(tmp_path):
    peft = pytest.importorskip("peft")
    import torch

    from tests.model.hf import hf_model
    from tests.tiny import tiny_config, tiny_tensors

    base = saved(tmp_path, "hf")
    folder = made_adapter(tmp_path / "a", base, Made(4, 9.0, rslora=True))
    model = peft.PeftModel.from_pretrained(hf_model(tiny_config(), tiny_tensors(tiny_config())), folder)
    merged = hf_model(tiny_config(), {name: t.array() for name, t in open_weights(folder).tensors.items()})
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, merged(ids).logits, atol=2e-5)

"""What lies in real model folders: adapters, pointers of Git LFS, names of wrappers, notes among the tensors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from torch import nn

from camelid.errors import CamelidError, FormatError, MissingError, UnsupportedError
from camelid.weights import open_weights
from tests.weights.models import assert_same, saved

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 9900000000\n"


def renamed(folder: Path, rename) -> Path:
    path = folder / "model.safetensors"
    save_file({rename(name): values for name, values in load_file(path).items()}, path)
    return folder


@pytest.mark.parametrize("beside", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
@pytest.mark.parametrize("format", ["hf", "meta"])
def test_an_adapter_beside_a_whole_model_is_not_passed_over(tmp_path, beside, format):
    folder = saved(tmp_path, format)
    (folder / beside).write_text("{}")
    with pytest.raises(UnsupportedError, match=f"a whole model and an adapter \\({beside}\\), which is not applied"):
        open_weights(folder)
    with pytest.raises(UnsupportedError, match="which is not applied"):
        open_weights(folder / ("config.json" if format == "hf" else "params.json"))


def test_an_adapter_without_its_other_half(tmp_path):
    save_file({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": np.zeros((2, 4), np.float32)},
              tmp_path / "adapter_model.safetensors")  # fmt: skip
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        with pytest.raises(MissingError, match=r"no adapter_config.json is there"):
            open_weights(path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "adapter_config.json").write_text('{"r": 2}')
    with pytest.raises(FormatError, match="has lora_A alone"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    ("format", "name"),
    [("hf", "model.safetensors"), ("hf", "config.json"), ("meta", "consolidated.00.pth"), ("meta", "params.json")],
)
def test_a_pointer_of_git_lfs_is_called_one(tmp_path, format, name):
    folder = saved(tmp_path, format)
    (folder / name).write_text(POINTER)
    with pytest.raises(
        MissingError, match=f"{name}: a pointer of Git LFS, not the file itself; fetch it: git lfs pull"
    ):
        open_weights(folder)


def test_a_pointer_among_shards_and_in_the_tokenizers_place(tmp_path):
    folder = saved(tmp_path, "hf", shards=3)
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    whole = shard.read_bytes()
    shard.write_text(POINTER)
    with pytest.raises(MissingError, match=f"{shard.name}: a pointer of Git LFS"):
        open_weights(folder)
    shard.write_bytes(whole)
    (folder / "tokenizer.json").write_text(POINTER)
    with pytest.raises(MissingError, match=r"tokenizer\.json: a pointer of Git LFS"):
        _ = open_weights(folder).tokenizer


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "module._orig_mod.", "base_model.model.", "model.", "llama."]
)
def test_names_with_a_longer_beginning(tmp_path, prefix):
    plain = open_weights(saved(tmp_path / "plain", "hf"))
    assert_same(plain, open_weights(renamed(saved(tmp_path, "hf"), lambda name: prefix + name)))


@pytest.mark.parametrize("ties", [True, False])
def test_names_without_model(tmp_path, ties):
    """As LlamaModel saves itself; the output matrix keeps its own name where there is one."""
    plain = open_weights(saved(tmp_path / "plain", "hf", ties_embeddings=ties))
    bare = renamed(saved(tmp_path, "hf", ties_embeddings=ties), lambda name: name.removeprefix("model."))
    assert_same(plain, open_weights(bare))


def test_names_that_wrappers_give_in_the_middle(tmp_path):
    plain = open_weights(saved(tmp_path / "plain", "hf"))
    for wrapper in ("_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod"):
        inside = renamed(
            saved(tmp_path, "hf"), lambda name, wrapper=wrapper: name.replace(".self_attn", f".{wrapper}.self_attn")
        )
        assert_same(plain, open_weights(inside))


def test_what_torch_saves_of_a_wrapped_model_opens(tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "plain")
    plain = open_weights(tmp_path / "plain")
    for content in (
        nn.DataParallel(model).state_dict(),
        {
            "state_dict": torch.compile(model, backend="eager").state_dict(),
            "epoch": 3,
            "optimizer": {"lr": torch.tensor(0.1)},
        },
        {"model_state_dict": model.state_dict()},
    ):
        folder = tmp_path / "wrapped"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config.to_dict()))
        torch.save(content, folder / "pytorch_model.bin")
        assert_same(plain, open_weights(folder))


def test_two_tensors_for_one_name_are_refused(tmp_path):
    folder = saved(tmp_path, "hf")
    tensors = load_file(folder / "model.safetensors")
    tensors["module.model.norm.weight"] = tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(FormatError, match=r"are both model\.norm\.weight"):
        open_weights(folder)
    tensors["ema.embed_tokens.weight"] = tensors["model.embed_tokens.weight"]  # two models: not guessed which
    del tensors["module.model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(FormatError, match=r"does not know: ema\.embed_tokens\.weight"):
        open_weights(folder)


def test_an_adapter_among_the_tensors_is_refused(tmp_path):
    folder = renamed(
        saved(tmp_path, "hf"), lambda name: "base_model.model." + name.replace(".q_proj.", ".q_proj.base_layer.")
    )
    with pytest.raises(UnsupportedError, match=r"q_proj\.base_layer\.weight: an adapter that is not merged"):
        open_weights(folder)


def test_single_numbers_are_ignored_unless_they_could_count(tmp_path, caplog):
    folder = saved(tmp_path, "hf")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "global_step": np.array(7)}, folder / "model.safetensors")
    assert_same(open_weights(saved(tmp_path / "plain", "hf")), open_weights(folder))
    assert "single numbers, ignored: global_step" in caplog.text
    for name in ("logit_scale", "model.layers.0.self_attn.q_proj.weight_scale"):
        save_file({**tensors, name: np.array(0.5, np.float32)}, folder / "model.safetensors")
        with pytest.raises(FormatError, match=f"does not know: {name}"):
            open_weights(folder)


@pytest.mark.parametrize("shape", [(), (0,), (0, 64)])
def test_tensors_of_no_size_in_a_matrixs_place_are_refused(tmp_path, shape):
    """DeepSpeed and FSDP leave them where the whole was not gathered."""
    folder = saved(tmp_path, "hf")
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.gate_proj.weight"):
        save_file({**tensors, name: np.zeros(shape, np.float32)}, folder / "model.safetensors")
        with pytest.raises(FormatError, match="other shapes than its config says"):
            open_weights(folder)
    meta = saved(tmp_path, "meta")
    found = torch.load(meta / "consolidated.00.pth")
    for name in ("tok_embeddings.weight", "output.weight", "layers.1.feed_forward.w2.weight"):
        torch.save({**found, name: torch.zeros(shape)}, meta / "consolidated.00.pth")
        with pytest.raises(CamelidError, match=r"other shapes|lacks|0 rows"):
            open_weights(meta)


def test_float64_weights_are_rounded_and_that_is_said(tmp_path, caplog):
    folder = saved(tmp_path, "hf")
    plain = {name: tensor.array() for name, tensor in open_weights(folder).tensors.items()}
    tensors = load_file(folder / "model.safetensors")
    save_file({name: values.astype(np.float64) for name, values in tensors.items()}, folder / "model.safetensors")
    found = open_weights(folder)
    assert "21 tensors are float64; they are rounded to float32" in caplog.text
    for name, tensor in found.tensors.items():
        assert tensor.quant == "F32"
        np.testing.assert_array_equal(tensor.array(), plain[name])

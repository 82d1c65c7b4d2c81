"""Hugging Face folders: with transformers in both directions, and folders that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camelid.errors import CamelidError, FormatError, MissingError, UnsupportedError
from camelid.weights import open_weights, save_weights
from camelid.weights.formats.safetensors_file import read_safetensors, write_header
from camelid.weights.formats.tensor_names import hf_name
from tests.tiny import tiny_config
from tests.weights.models import StubTokenizer, assert_same, saved, tiny_weights

quiet = pytest.mark.filterwarnings("ignore")


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **values}))


def rewrite(folder: Path, drop: str = "", add: dict[str, np.ndarray] | None = None) -> None:
    """The folder's weights with a tensor less or more."""
    path = folder / "model.safetensors"
    old = {name: (row.shape, row.data.tobytes()) for name, row in read_safetensors(path).items() if name != drop}
    old |= {name: (value.shape, value.astype("<f4").tobytes()) for name, value in (add or {}).items()}
    with path.open("wb") as file:
        write_header(file, {name: ("F32", shape) for name, (shape, _) in old.items()})
        for _, data in old.values():
            file.write(data)


@quiet
@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_opens_what_transformers_saves(tmp_path: Path, tied: bool, safe: bool) -> None:
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "vocab_size": 320, "eos_token_id": [2, 7], "bos_token_id": 1}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, tie_word_embeddings=tied)).bfloat16()
    model.save_pretrained(tmp_path, **({"max_shard_size": "40KB"} if safe else {}))
    state = {name: value for name, value in model.state_dict().items() if not (tied and name == "lm_head.weight")}
    if safe:
        assert (tmp_path / "model.safetensors.index.json").exists()
    else:
        (tmp_path / "model.safetensors").unlink()
        torch.save(state, tmp_path / "pytorch_model.bin")
    weights = open_weights(tmp_path)
    assert weights.config.ties_embeddings == tied
    assert weights.stop_ids == (2, 7)
    assert not weights.has_tokenizer
    assert {hf_name(name) for name in weights.tensors} == set(state)
    for name, tensor in weights.tensors.items():
        assert tensor.quant == "BF16"
        assert np.array_equal(tensor.array(), state[hf_name(name)].float().numpy()), name


@quiet
@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        tiny_config(ties_embeddings=True, head_dim=32),
        tiny_config(architecture="olmo2", norms_after=True, qk_norm=True),
        tiny_config(architecture="olmo", norm="layer", clip_qkv=8.0),
    ],
    ids=lambda config: config.architecture,
)
def test_transformers_opens_what_we_save(tmp_path: Path, config: Any, shards: int) -> None:
    transformers = pytest.importorskip("transformers")
    weights = tiny_weights("F32", config=config)
    save_weights(weights, tmp_path / "m", format="hf", shards=shards)
    assert len(list((tmp_path / "m").glob("*.safetensors"))) >= shards
    model, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    state = model.state_dict()
    for name, tensor in weights.tensors.items():
        assert np.array_equal(tensor.array(), state[hf_name(name)].float().numpy()), name


def test_sampling_stop_ids_and_template(tmp_path: Path) -> None:
    folder = saved(tmp_path, "hf")
    change(folder / "config.json", eos_token_id=2)
    change(folder / "generation_config.json", eos_token_id=[2, 9], temperature=0.6, top_p=0.9, top_k=None)
    change(folder / "tokenizer_config.json", chat_template="{{ messages }}")
    weights = open_weights(folder)
    assert weights.stop_ids == (2, 9)
    assert weights.sampling == {"temperature": 0.6, "top_p": 0.9}
    assert weights.chat_template == "{{ messages }}"
    change(
        folder / "tokenizer_config.json",
        chat_template=[{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}],
    )
    assert open_weights(folder).chat_template == "d"
    (folder / "chat_template.jinja").write_text("file")
    assert open_weights(folder).chat_template == "file"


def test_writes_end_ids_sampling_and_template(tmp_path: Path) -> None:
    weights = tiny_weights(
        chat_template="{{ 1 }}", stop_ids=(2, 9), sampling={"temperature": 0.6, "top_k": 40.0},
        load_tokenizer=StubTokenizer,
    )  # fmt: skip
    found = open_weights(save_weights(weights, tmp_path / "m", format="hf"))
    assert (found.chat_template, found.stop_ids, found.sampling) == (
        "{{ 1 }}",
        (2, 9),
        {"temperature": 0.6, "top_k": 40, "top_p": 1.0},  # left out, so transformers takes 1
    )
    assert found.has_tokenizer
    assert json.loads((tmp_path / "m/generation_config.json").read_text())["do_sample"] is True
    assert json.loads((tmp_path / "m/tokenizer_config.json").read_text())["bos_token"] == "<1>"


def test_what_lies_beside_is_copied_between_hf_folders(tmp_path: Path) -> None:
    folder = saved(tmp_path, "hf")
    (folder / "tokenizer.json").write_text('{"exactly": "this"}')
    change(folder / "config.json", pad_token_id=5)
    save_weights(open_weights(folder), tmp_path / "copy", format="hf", quant="BF16")
    assert (tmp_path / "copy/tokenizer.json").read_text() == '{"exactly": "this"}'
    values = json.loads((tmp_path / "copy/config.json").read_text())
    assert (values["pad_token_id"], values["torch_dtype"]) == (5, "bfloat16")


def test_old_files_store_frequencies(tmp_path: Path) -> None:
    folder = saved(tmp_path, "hf")
    before = open_weights(folder)
    arrays = {name: tensor.array() for name, tensor in before.tensors.items()}
    rewrite(folder, add={"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8)})
    after = open_weights(folder)
    assert set(after.tensors) == set(arrays)
    assert np.array_equal(after.tensors["lm_head"].array(), arrays["lm_head"])


@pytest.mark.parametrize(
    ("drop", "add", "error", "says"),
    [
        ("lm_head.weight", {}, FormatError, "lacks lm_head"),
        ("model.norm.weight", {"model.norm.weight": np.ones(8)}, FormatError, r"norm \(8,\), not \(64,\)"),
        ("", {"model.layers.0.self_attn.q_proj.bias": np.ones(64)}, FormatError, "set attention_bias to true"),
        ("", {"model.layers.5.mlp.up_proj.weight": np.ones((2, 2))}, FormatError, "layers.5.mlp.up_proj"),
    ],
)
def test_tensors_that_do_not_fit(
    tmp_path: Path, drop: str, add: dict[str, np.ndarray], error: type[CamelidError], says: str
) -> None:
    folder = saved(tmp_path, "hf")
    rewrite(folder, drop, add)
    with pytest.raises(error, match=says):
        open_weights(folder)


def test_tied_models_with_an_output_matrix(tmp_path: Path) -> None:
    folder = saved(tmp_path, "hf", ties_embeddings=True)
    embedding = open_weights(folder).tensors["embed_tokens"].array()
    rewrite(folder, add={"lm_head.weight": embedding})
    assert "lm_head" not in open_weights(folder).tensors
    rewrite(folder, "lm_head.weight", {"lm_head.weight": embedding + 1})
    with pytest.raises(FormatError, match=r"lm_head\.weight differs"):
        open_weights(folder)


def test_shards_that_are_wrong(tmp_path: Path) -> None:
    folder = saved(tmp_path, "hf", shards=3)
    files = sorted(folder.glob("*.safetensors"))
    files[1].rename(tmp_path / "away")
    with pytest.raises(MissingError, match=files[1].name):
        open_weights(folder)
    files[0].rename(files[1])
    (tmp_path / "away").rename(files[0])
    with pytest.raises(FormatError, match="lacks"):
        open_weights(folder)
    index = folder / "model.safetensors.index.json"
    for content in ('{"weight_map": {"a": 5}}', '{"weight_map": {"a": "../x"}}', "{}", "nonsense"):
        index.write_text(content)
        with pytest.raises(FormatError):
            open_weights(folder)


def test_no_weights_and_bad_json(tmp_path: Path) -> None:
    folder = saved(tmp_path, "hf")
    change(folder / "config.json", eos_token_id=["x"])
    with pytest.raises(FormatError, match="eos_token_id"):
        open_weights(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(FormatError, match="not JSON"):
        open_weights(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(FormatError, match="not a JSON object"):
        open_weights(folder)
    (folder / "model.safetensors").unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": "mistral"}))
    with pytest.raises(UnsupportedError, match="mistral"):
        open_weights(folder)


def test_folder_without_weights(tmp_path: Path) -> None:
    folder = saved(tmp_path, "hf")
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingError, match=r"no weights; fetch model.safetensors"):
        open_weights(folder)


def test_many_files_hold_the_same_model(tmp_path: Path) -> None:
    one = open_weights(saved(tmp_path / "1", "hf", "BF16"))
    many = open_weights(saved(tmp_path / "2", "hf", "BF16", shards=5))
    assert len(many.files) > 5
    assert_same(one, many)

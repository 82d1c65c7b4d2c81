"""What files recommend for sampling gives the distribution that transformers draws from, or is named in the log."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import camelid
from camelid.chat.sampling_choices import recommended
from camelid.engine.backend import ALL_ARE_TOKENS
from camelid.engine.sampling.steps import distribution
from camelid.weights import open_weights, save_weights
from camelid.weights.formats.sampling_files import from_generation_config, from_gguf, to_generation_config, to_gguf
from tests.model.hf import hf_model
from tests.tiny import tiny_config, tiny_tensors
from tests.tokens.vocabularies import small_bytes
from tests.weights.models import tiny_weights

IDS = [3, 17, 250, 17, 9]
WHERE = Path("generation_config.json")


@pytest.fixture(scope="module")
def model() -> Any:
    config = tiny_config()
    return hf_model(config, tiny_tensors(config))


@pytest.mark.parametrize(
    "values",
    [
        {"do_sample": True},
        {"do_sample": True, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.5},
        {"do_sample": True, "temperature": 1.3, "typical_p": 0.6},
        {"do_sample": True, "min_p": 0.1, "suppress_tokens": [5, 6, 7], "bad_words_ids": [[9], [40]]},
        {"do_sample": True, "epsilon_cutoff": 0.004, "top_p": 0.8},
        {"do_sample": True, "eta_cutoff": 0.004},
        {"do_sample": True, "top_p": 0.0},
        {"do_sample": False, "temperature": 0.7, "repetition_penalty": 3.0},
    ],
)
def test_the_distribution_is_transformers(model: Any, values: dict[str, Any]) -> None:
    # top_k is given as "off" where the file has none: the 50 that generate() puts there is no word of the file
    config = transformers.GenerationConfig(**{"top_k": 0, **values}, max_new_tokens=1)
    ids = torch.tensor([IDS])
    found = model.generate(
        ids, generation_config=config, output_scores=True, return_dict_in_generate=True, attention_mask=ids * 0 + 1
    )
    theirs = torch.softmax(found.scores[0][0].double(), -1).numpy()
    weights = tiny_weights(sampling=from_generation_config(WHERE, values))
    logits = model(ids).logits[0, -1].float().detach().numpy()
    ours = distribution(logits, recommended(weights, ALL_ARE_TOKENS), IDS)
    if values["do_sample"]:
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    else:
        assert ours.argmax() == theirs.argmax()
        assert ours.max() == 1


@pytest.mark.parametrize(
    ("values", "expected", "named"),
    [
        ({}, {}, []),
        ({"top_k": -1, "top_p": None, "num_beams": 1, "no_repeat_ngram_size": 0}, {"top_k": 0}, []),
        ({"top_k": 50.0, "max_new_tokens": 5}, {"top_k": 50, "max_tokens": 5}, []),
        ({"top_k": 1.5, "temperature": "0.7", "top_p": True}, {}, ["top_k 1.5", "temperature 0.7", "top_p True"]),
        ({"min_p": math.nan, "typical_p": math.inf, "eta_cutoff": [1]}, {}, ["min_p", "typical_p", "eta_cutoff"]),
        ({"no_repeat_ngram_size": 2, "num_beams": 4}, {}, ["no_repeat_ngram_size 2", "num_beams 4"]),
        ({"bad_words_ids": [[4], [5, 6]]}, {"logit_bias": {4: -math.inf}}, ["bad_words_ids [[5, 6]]"]),
        ({"bad_words_ids": [4], "suppress_tokens": "x"}, {}, ["bad_words_ids", "suppress_tokens"]),
        ({"stop_strings": "x"}, {"stop": ("x",)}, []),
        ({"stop_strings": ["x", ""]}, {}, ["stop_strings"]),
        ({"min_new_tokens": 3, "anything": {"a": 1}}, {}, ["min_new_tokens 3", "anything"]),
        ({"transformers_version": "5", "eos_token_id": [1, 2], "max_length": 4096}, {}, []),
    ],
)
def test_used_or_named(
    values: dict[str, Any], expected: dict[str, Any], named: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert from_generation_config(WHERE, values) == expected
    assert len(caplog.records) == bool(named)
    assert all(word in caplog.text for word in named)


def test_a_value_out_of_range_blocks_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sampling = {"temperature": 200.0, "top_k": 7, "logit_bias": {5: -math.inf, 99999: -math.inf}}
    weights = tiny_weights(load_tokenizer=lambda: small_bytes("<|end|>"), stop_ids=(256,))
    folder = save_weights(weights, tmp_path / "m", format="hf")
    values = to_generation_config(folder, sampling)
    assert values == {"do_sample": True, "temperature": 200.0, "top_k": 7, "suppress_tokens": [5, 99999]}
    (folder / "generation_config.json").write_text(json.dumps(values))
    llama = camelid.load(folder, backend="numpy")
    with caplog.at_level(logging.WARNING):
        params = llama.params
    assert "temperature: must be less than or equal to 100, got 200" in caplog.text
    assert (params.temperature, params.top_k, params.logit_bias) == (0.6, 7, {5: -math.inf})
    assert len(llama.generate("a", temperature=0, max_tokens=3, ignore_stop=True).ids) == 3


def test_gguf_means_what_llama_cpp_means(caplog: pytest.LogCaptureFixture) -> None:
    start = "general.sampling."
    given = {
        "temp": -1.0,
        "top_k": 40,
        "penalty_repeat": 1.5,
        "penalty_last_n": 64,
        "mirostat": 0,
        "xtc_probability": 0.5,
    }
    with caplog.at_level(logging.WARNING):
        found = from_gguf(WHERE, {start + key: value for key, value in given.items()})
    assert found == {"temperature": 0.0, "top_k": 40, "repetition_penalty": 1.5, "penalty_window": 64}
    assert "xtc_probability 0.5" in caplog.text
    assert from_gguf(WHERE, {start + "penalty_repeat": 1.5, start + "penalty_last_n": 0}) == {}
    written = to_gguf(WHERE, {"repetition_penalty": 1.5, "typical": 0.5, "top_k": 3})
    assert written == {start + "top_k": 3, start + "penalty_repeat": 1.5, start + "penalty_last_n": -1}
    assert "typical" in caplog.text
    assert from_gguf(WHERE, written) == {"repetition_penalty": 1.5, "top_k": 3}


def test_from_folder_to_gguf_and_back(tmp_path: Path) -> None:
    sampling = {"temperature": 0.6, "top_p": 0.9, "top_k": 5, "min_p": 0.05, "repetition_penalty": 1.25}
    weights = tiny_weights(load_tokenizer=lambda: small_bytes("<|end|>"), sampling=sampling)
    folder = save_weights(weights, tmp_path / "m", format="hf")
    file = save_weights(open_weights(folder), tmp_path / "m.gguf", format="gguf")
    again = save_weights(open_weights(file), tmp_path / "again", format="hf")
    assert open_weights(folder).sampling == sampling
    assert open_weights(again).sampling == pytest.approx(sampling)

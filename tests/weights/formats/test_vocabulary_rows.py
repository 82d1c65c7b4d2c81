"""A model whose embedding has more rows than its tokenizer has tokens, or fewer, as a GGUF that others load."""

from __future__ import annotations

import io
from pathlib import Path

import gguf
import numpy as np
import pytest
import sentencepiece
import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

from camelid.errors import UnsupportedError
from camelid.weights import open_weights, save_weights
from camelid.weights.formats.vocabulary_rows import fit_vocabulary
from tests.weights.models import assert_same, saved

TEXT = ["the capital of France is Paris", "llamas live in high mountains", "one two three 123"] * 20
N_TOKENS, N_ROWS = 320, 384


def sentencepiece_file(folder: Path) -> None:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=out, model_type="bpe", vocab_size=N_TOKENS, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(out.getvalue())


def byte_level_file(folder: Path) -> None:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    names = ["<s>", "</s>", "[PAD321]"]  # a name that padding would take
    trainer = trainers.BpeTrainer(
        vocab_size=N_TOKENS, special_tokens=names, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(params=[sentencepiece_file, byte_level_file])
def padded(request, tmp_path) -> Path:
    folder = saved(tmp_path, "hf", vocab_size=N_ROWS)
    request.param(folder)
    return folder


def test_the_list_is_as_long_as_the_embedding(padded, tmp_path):
    """What llama.cpp wants, by the gguf package: tokens, types and scores for every row."""
    save_weights(padded, tmp_path / "m.gguf", format="gguf")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    assert len(tokens) == len(types) == len(set(tokens)) == N_ROWS
    (embedding,) = [tensor for tensor in reader.tensors if tensor.name == "token_embd.weight"]
    assert tuple(embedding.shape) == (64, N_ROWS)
    assert types[N_TOKENS:] == [gguf.TokenType.UNUSED] * (N_ROWS - N_TOKENS)
    assert tokens[-1] == f"[PAD{N_ROWS - 1}]"
    if "tokenizer.ggml.scores" in reader.fields:
        scores = reader.fields["tokenizer.ggml.scores"].contents()
        assert len(scores) == N_ROWS
        assert max(scores[N_TOKENS:]) == -10000.0


@pytest.mark.filterwarnings("ignore")
def test_transformers_loads_it(padded, tmp_path):
    save_weights(padded, tmp_path / "m.gguf", format="gguf")
    model = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path), gguf_file="m.gguf")
    assert model.get_input_embeddings().weight.shape == (N_ROWS, 64)


def test_it_comes_back_as_it_was(padded, tmp_path):
    save_weights(padded, tmp_path / "m.gguf", format="gguf")
    save_weights(tmp_path / "m.gguf", tmp_path / "again.gguf", format="gguf")
    save_weights(tmp_path / "m.gguf", tmp_path / "back", format="hf")
    first = open_weights(padded)
    for path in (tmp_path / "m.gguf", tmp_path / "again.gguf", tmp_path / "back"):
        found = open_weights(path)
        assert_same(first, found)
        assert found.tokenizer.vocab_size == first.tokenizer.vocab_size
        for text in (*TEXT[:3], "[PAD322] x [PAD321] <s>"):
            assert found.tokenizer.encode(text) == first.tokenizer.encode(text)
    assert (tmp_path / "again.gguf").stat().st_size == (tmp_path / "m.gguf").stat().st_size


def fields(n: int, kinds: list[int], **more: int) -> dict[str, object]:
    tokens = [f"t{number}" for number in range(n)]
    columns = {"tokens": tokens, "token_type": kinds, "scores": [0.0] * n, **more}
    return {f"tokenizer.ggml.{key}": value for key, value in columns.items()}


def test_added_tokens_without_a_row_are_left_out_and_that_is_said(caplog):
    given = fields(6, [1, 1, 1, 1, 3, 4], padding_token_id=5, eos_token_id=1)
    assert fit_vocabulary(Path("m"), given, 4) == fields(4, [1] * 4, eos_token_id=1) | {
        "tokenizer.ggml.scores": [0.0] * 4
    }
    assert "m: the embedding has no rows for 't4', 't5'; left out" in caplog.text
    with pytest.raises(UnsupportedError, match="6 tokens, but 4 rows of the embedding"):
        fit_vocabulary(Path("m"), fields(6, [1] * 6), 4)
    assert fit_vocabulary(Path("m"), given, 6) == given
    assert fit_vocabulary(Path("m"), {}, 6) == {}
    assert np.array_equal(fit_vocabulary(Path("m"), given, 7)["tokenizer.ggml.token_type"], [1, 1, 1, 1, 3, 4, 5])

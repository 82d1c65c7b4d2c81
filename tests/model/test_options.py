"""A recipe's words about the model become a shape, or one line that says why not."""

from __future__ import annotations

import pytest

from camelid.errors import OptionError
from camelid.model.family import FAMILY
from camelid.model.options import ModelOptions


@pytest.mark.parametrize("title", sorted(FAMILY))
def test_like_is_the_member(title):
    member = FAMILY[title].config
    assert ModelOptions(like=title).config(member.vocab_size, member.context) == member


def test_sizes_of_ones_own():
    options = ModelOptions(dim=64, n_layers=2, n_heads=4, ffn_dim=128, ties_embeddings=True)
    config = options.config(vocab_size=300, context=32)
    assert (config.n_kv_heads, config.head_dim, config.vocab_size, config.context) == (4, 16, 300, 32)
    assert config.ties_embeddings


def test_a_member_made_smaller():
    config = ModelOptions(like="Llama 2 7B", dim=64, n_layers=2, n_heads=4, ffn_dim=128).config(300, 32)
    assert (config.dim, config.n_kv_heads, config.head_dim, config.norm_eps) == (64, 4, 16, 1e-5)


def test_biases_are_asked_for():
    config = ModelOptions(dim=64, n_layers=1, n_heads=4, ffn_dim=96, attention_bias=True).config(300, 32)
    assert (config.attention_bias, config.mlp_bias) == (True, False)


def test_an_architecture_brings_its_switches():
    config = ModelOptions(architecture="olmo2", dim=64, n_layers=1, n_heads=4, ffn_dim=128).config(300, 32)
    assert (config.architecture, config.norms_after, config.qk_norm) == ("olmo2", True, True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"like": "Lama 2 7B"}, "model: like: no member 'Lama 2 7B'; did you mean 'Llama 2 7B'?"),
        ({"dim": 64}, "model: n_layers, n_heads, ffn_dim: not given"),
        ({"dim": 64, "n_layers": 1, "n_heads": 3, "ffn_dim": 4}, "model: n_heads: 3 heads do not divide dim 64"),
        ({"like": "Llama 2 7B", "vocab_size": 100}, "model: vocab_size: 100 is less than the tokenizer's 300 ids"),
        ({"like": "Llama 2 7B", "context": 16}, "model: context: 16 is less than the 32 tokens of a training row"),
        ({"like": "Llama 2 70B", "n_kv_heads": 7}, "model: 64 heads cannot share 7 key/value heads evenly"),
        ({"architecture": "gpt", "dim": 64}, "model: architecture: no 'gpt'"),
    ],
)
def test_mistakes_are_one_line(values, words):
    with pytest.raises(OptionError) as error:
        ModelOptions(**values).config(vocab_size=300, context=32)
    assert str(error.value).startswith(words)

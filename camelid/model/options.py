"""What a recipe says about the model it trains: a member of the family, or sizes of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from camelid.errors import FormatError, OptionError, one_of
from camelid.model.config import ModelConfig
from camelid.model.family import ARCHITECTURES, FAMILY
from camelid.options import Options

# What an architecture's arithmetic has, in ModelConfig's words.
_SWITCHES: dict[str, dict[str, Any]] = {
    "llama": {},
    "olmo": {"norm": "layer"},
    "olmo2": {"norms_after": True, "qk_norm": True},
}


class ModelOptions(Options):
    """A shape to train: `like` a member of the family, sizes of one's own, or a member with some sizes changed."""

    like: str | None = Field(None, description="Title of a family member whose shape is taken, as `Llama 2 7B`.")
    architecture: str | None = Field(None, description="llama, olmo or olmo2.")
    dim: int | None = Field(None, gt=0, description="Width of the residual stream.")
    n_layers: int | None = Field(None, gt=0, description="Blocks.")
    n_heads: int | None = Field(None, gt=0, description="Query heads of a layer.")
    n_kv_heads: int | None = Field(None, gt=0, description="Key/value heads of a layer; as many as query heads.")
    head_dim: int | None = Field(None, gt=0, description="Width of a head; dim / n_heads.")
    ffn_dim: int | None = Field(None, gt=0, description="Width of the feed-forward block.")
    vocab_size: int | None = Field(None, gt=0, description="Rows of the embedding; the tokenizer's size.")
    context: int | None = Field(None, gt=0, description="Tokens the model is made for; the training context.")
    norm_eps: float | None = Field(None, gt=0, le=1, description="Added to the variance in norms.")
    rope_theta: float | None = Field(None, ge=1, le=1e12, description="Base of the rotary frequencies.")
    ties_embeddings: bool | None = Field(None, description="Use the embedding as the output matrix.")

    attention_bias: bool | None = Field(None, description="Add a vector to q, k, v and the output of attention.")
    mlp_bias: bool | None = Field(None, description="Add a vector to gate, up and down.")

    def config(self, vocab_size: int, context: int) -> ModelConfig:
        """The shape, for a tokenizer of `vocab_size` ids and rows of `context` tokens.

        Raises:
            OptionError: no such member, a size is missing, sizes do not fit each other, the vocabulary is smaller
                than the tokenizer's, or the context shorter than the rows.
        """
        said = self.model_dump(exclude_none=True, exclude={"like"})
        said |= _SWITCHES[self._architecture()] if self.architecture is not None else {}
        said = {"vocab_size": vocab_size, "context": context} | said
        try:
            config = replace(self._member(), **said) if self.like is not None else ModelConfig(**self._sizes(said))
        except FormatError as error:
            raise OptionError(f"model: {str(error).removeprefix('model config: ')}") from None
        if config.vocab_size < vocab_size:
            raise OptionError(f"model: vocab_size: {config.vocab_size} is less than the tokenizer's {vocab_size} ids")
        if config.context < context:
            raise OptionError(f"model: context: {config.context} is less than the {context} tokens of a training row")
        return config

    def _architecture(self) -> str:
        name = self.architecture or "llama"
        if name not in ARCHITECTURES:
            raise OptionError(f"model: architecture: no {name!r}; {one_of(name, ARCHITECTURES)}")
        return name

    def _member(self) -> ModelConfig:
        """The member's shape; head_dim and key/value heads follow what is changed, if they followed it there."""
        assert self.like is not None
        if self.like not in FAMILY:
            raise OptionError(f"model: like: no member {self.like!r}; {one_of(self.like, FAMILY)}")
        member = FAMILY[self.like].config
        if self.head_dim is None and (self.dim or self.n_heads):
            dim, heads = self.dim or member.dim, self.n_heads or member.n_heads
            member = replace(member, head_dim=_evenly(dim, heads))
        if self.n_kv_heads is None and self.n_heads and member.n_kv_heads == member.n_heads:
            member = replace(member, n_heads=self.n_heads, n_kv_heads=self.n_heads)
        return member

    def _sizes(self, said: dict[str, Any]) -> dict[str, Any]:
        missing = [name for name in ("dim", "n_layers", "n_heads", "ffn_dim") if name not in said]
        if missing:
            raise OptionError(f'model: {", ".join(missing)}: not given; give them, or like = "Llama 2 7B"')
        said.setdefault("n_kv_heads", said["n_heads"])
        said.setdefault("head_dim", _evenly(said["dim"], said["n_heads"]))
        return said


def _evenly(dim: int, n_heads: int) -> int:
    if dim % n_heads:
        raise OptionError(f"model: n_heads: {n_heads} heads do not divide dim {dim}; give head_dim, or change one")
    return dim // n_heads

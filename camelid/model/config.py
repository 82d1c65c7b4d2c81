"""What a Llama is: its shape, and the few switches by which members of the family differ.

`ModelConfig` is what a model *is* (read from its files); what a person *chooses* for a run is an `Options`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from camelid.errors import FormatError

_MOST_LAYERS = 2**16
_MOST = 2**40  # of a size, and of a factor: far beyond any model, and float32 holds its square


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are changed for contexts longer than those trained at first.

    `linear` divides positions by `factor` (Chen et al. 2023, arXiv:2306.15595); `llama3` divides long wavelengths
    only (Llama 3.1); `yarn` blends by wavelength and scales attention (Peng et al. 2023, arXiv:2309.00071);
    `divisors` gives one divisor for each frequency (GGUF's `rope_freqs`, when no named rule explains it).

    Two rules depend on the text's length, see `model.rope.rope_table`: `dynamic` raises the base of texts longer than
    `original_context` (NTK-aware scaling, of u/bloc97 and u/emozilla); `longrope` has one list of divisors for texts up
    to `original_context`, another for longer ones, and scales attention (Ding et al. 2024, arXiv:2402.13753).
    """

    rule: Literal["linear", "llama3", "yarn", "divisors", "dynamic", "longrope"]
    factor: float = 1.0
    original_context: int = 8192
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None  # yarn: None means 0.1 ln(factor) + 1; longrope: always given
    divisors: tuple[float, ...] = ()
    long_divisors: tuple[float, ...] = ()  # longrope: of texts longer than original_context

    def __post_init__(self) -> None:
        names = ("factor", "original_context", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow")
        for name in (*names, "attention_factor"):
            value = getattr(self, name)
            if value is not None and not _MOST >= value >= 1 / _MOST:  # nor NaN
                raise FormatError(f"model config: rope scaling: {name} must be positive and finite, got {value!r}")
        if self.rule == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise FormatError(
                f"model config: rope scaling: high_freq_factor, {self.high_freq_factor}, must be above "
                f"low_freq_factor, {self.low_freq_factor}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a model.

    Raises:
        FormatError: a size is not positive, or sizes do not fit each other.
    """

    architecture: str = "llama"  # a row of model.family.ARCHITECTURES
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn_dim: int
    vocab_size: int
    context: int = 2048  # tokens the model was made for
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    ties_embeddings: bool = False  # the output matrix is the embedding matrix
    norm: Literal["rms", "layer"] = "rms"  # "layer": LayerNorm without weights (OLMo 1)
    norms_after: bool = False  # normalise what a block adds, not what it reads (OLMo 2)
    qk_norm: bool = False  # RMSNorm over all of q and all of k (OLMo 2)
    clip_qkv: float | None = None  # clamp q, k and v to ±clip_qkv (OLMo 1)
    attention_bias: bool = False  # q, k, v and the output of attention have a vector added
    mlp_bias: bool = False  # gate, up and down too
    scalar_head: bool = False  # a vector takes the output matrix's place: the model rates texts and writes none

    def __post_init__(self) -> None:
        if self.clip_qkv is not None and not (math.isfinite(self.clip_qkv) and self.clip_qkv > 0):
            raise FormatError(f"model config: clip_qkv must be a positive number, got {self.clip_qkv!r}")
        sizes = ("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "ffn_dim", "vocab_size", "context")
        for name in sizes:
            value = getattr(self, name)
            most = _MOST_LAYERS if name == "n_layers" else _MOST
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
                raise FormatError(
                    f"model config: {name} must be a positive whole number up to {most}, got {value!r:.40}"
                )
        if self.n_heads % self.n_kv_heads:
            raise FormatError(
                f"model config: {self.n_heads} heads cannot share {self.n_kv_heads} key/value heads evenly"
            )
        if self.head_dim % 2:
            raise FormatError(f"model config: head_dim must be even for rotary embedding, got {self.head_dim}")
        scaling = self.rope_scaling
        lists = (scaling.divisors, scaling.long_divisors) if scaling is not None else ()
        if scaling is not None and any(len(values) not in (0, self.head_dim // 2) for values in lists):
            raise FormatError(f"model config: {scaling.rule} rope scaling needs {self.head_dim // 2} divisors")
        for name in ("norm_eps", "rope_theta"):
            value = getattr(self, name)
            if not 1 / _MOST**2 <= value <= _MOST:  # nor NaN
                raise FormatError(f"model config: {name} must be a positive number, got {value!r}")

    @property
    def q_dim(self) -> int:
        """Width of all query heads together."""
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key (or value) heads together."""
        return self.n_kv_heads * self.head_dim

    @property
    def n_parameters(self) -> int:
        """Number of weights, a tied output matrix counted once."""
        layer = sum(math.prod(shape) for shape in layer_shapes(self).values())
        matrices = self.vocab_size * self.dim * (1 if self.ties_embeddings or self.scalar_head else 2)
        vectors = self.dim * ((self.norm == "rms") + self.scalar_head)
        return self.n_layers * layer + matrices + vectors


@contextmanager
def shape_in(path: Path) -> Iterator[None]:
    """While a file's numbers are made a shape: an error names the file.

    Raises:
        FormatError: a number in `path` is no size, or sizes do not fit each other.
    """
    try:
        yield
    except ArithmeticError as error:
        raise FormatError(f"{path}: a number is out of range ({error}); correct the file") from None
    except FormatError as error:
        said = str(error)
        if not said.startswith("model config: "):
            raise
        raise FormatError(f"{path}: {said.removeprefix('model config: ')}; correct the file") from None


ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


def biased(config: ModelConfig) -> tuple[str, ...]:
    """Matrices of a layer that have a bias, called `q_proj.bias` and so on."""
    return ATTENTION * config.attention_bias + FEED_FORWARD * config.mlp_bias


def layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name → shape of the tensors of one layer. Matrices are (out, in)."""
    dim, q, kv, ffn = config.dim, config.q_dim, config.kv_dim, config.ffn_dim
    shapes: dict[str, tuple[int, ...]] = {
        "q_proj": (q, dim),
        "k_proj": (kv, dim),
        "v_proj": (kv, dim),
        "o_proj": (dim, q),
        "gate_proj": (ffn, dim),
        "up_proj": (ffn, dim),
        "down_proj": (dim, ffn),
    }
    shapes |= {f"{name}.bias": shapes[name][:1] for name in biased(config)}
    if config.norm == "rms" and config.norms_after:
        shapes |= {"post_attention_layernorm": (dim,), "post_feedforward_layernorm": (dim,)}
    elif config.norm == "rms":
        shapes |= {"input_layernorm": (dim,), "post_attention_layernorm": (dim,)}
    if config.qk_norm:
        shapes |= {"q_norm": (q,), "k_norm": (kv,)}
    return shapes


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor a model of this shape has, in the order in which a forward pass reads them.

    Names are Hugging Face's words without `model.`, `self_attn.`, `mlp.` and `.weight`: `layers.3.q_proj`, and
    `layers.3.q_proj.bias` where there are biases.
    """
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens": (config.vocab_size, config.dim)}
    per_layer = layer_shapes(config)
    for layer in range(config.n_layers):
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in per_layer.items()}
    if config.norm == "rms":
        shapes["norm"] = (config.dim,)
    if config.scalar_head:
        shapes["score"] = (1, config.dim)
    elif not config.ties_embeddings:
        shapes["lm_head"] = (config.vocab_size, config.dim)
    return shapes

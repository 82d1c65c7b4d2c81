"""The forward pass of a Llama in PyTorch: for training and for GPUs.

The same order and the same names as `reference.py`, which is the definition. N new ids (of one or many sequences),
D width, H query heads, K key/value heads, E width of a head, V vocabulary. Attention itself is handed in, because who
may look at whom differs: one causal sequence when training, pages of many requests when serving.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, noop_context_fn

from camelid.model.config import ModelConfig, biased, layer_shapes
from camelid.model.rope import rope_table

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q (…, N, H, E), k (…, N, K, E), v (…, N, K, E)) → mixed values (…, N, H, E)."""
Attend = Callable[[int], Mix]
"""How a layer mixes. (A layer itself does not know its number, so that all are one thing to torch.compile.)"""


class LlamaTorch(nn.Module):
    """A Llama as a module whose parameters are named as `tensor_shapes(config)` says, matrices with `.weight` behind.

    Args:
        config: the shape.
        context: positions that the rotary tables are made for; the model's own context by default.
        score: add a scalar head to a model that writes, as PPO's values need it.

    Attributes:
        recompute: layers keep their input only, and are computed again for the backward pass (Chen et al. 2016,
            arXiv:1604.06174).
        again: contexts of a layer's pass and of the same pass computed again, as `checkpoint` takes them.
        adapters: how it is adapted, where adapters learn instead of its own weights (`train/adapters/`).
    """

    cos: Tensor
    sin: Tensor
    recompute = False
    again: Callable[[], Any] = staticmethod(noop_context_fn)
    adapters: Any = None

    def __init__(self, config: ModelConfig, context: int | None = None, score: bool = False) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.norm = Norm(config, config.dim)
        if not config.ties_embeddings and not config.scalar_head:
            self.lm_head = nn.Linear(config.dim, config.vocab_size, bias=False)
        if score or config.scalar_head:
            self.score = nn.Linear(config.dim, 1, bias=False)
        length = context or config.context
        cos, sin = rope_table(config, np.arange(length), read=length)
        self.register_buffer("cos", torch.from_numpy(cos), persistent=False)  # (context, E/2), float32 always
        self.register_buffer("sin", torch.from_numpy(sin), persistent=False)

    def forward(
        self, ids: Tensor, positions: Tensor, attend: Attend, tables: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Hidden states after the final norm, (…, N, D), of ids (…, N) at positions (…, N).

        `tables` are cosine and sine of each id, (…, N, E/2), where a text's length decides about them; else the
        module's own, which are those of one text of `context` ids.
        """
        cos, sin = tables if tables is not None else (self.cos[positions], self.sin[positions])
        cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)  # (…, N, 1, E/2)
        x = self.embed_tokens(ids)  # (…, N, D)
        for index, layer in enumerate(self.layers):
            if self.recompute and torch.is_grad_enabled():
                kept: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False, "context_fn": self.again}
                x = checkpoint(layer, x, cos, sin, attend(index), **kept)
            else:
                x = layer(x, cos, sin, attend(index))
        hidden: Tensor = self.norm(x)
        return hidden

    @property
    def output(self) -> nn.Parameter:
        """The output matrix (V, D), which may be the embedding; a model that rates has none."""
        weight: nn.Parameter = self.embed_tokens.weight if self.config.ties_embeddings else self.lm_head.weight
        return weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary in float32, (…, V), from hidden states (…, D)."""
        return F.linear(hidden, self.output).float()

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Any], dtype: torch.dtype, device: str = "cpu") -> LlamaTorch:
        """Take values from float32 arrays (or things with `.array()`), one at a time; returns itself in `dtype`."""
        for name, parameter in list(self.named_parameters()):
            value = tensors[name.removesuffix(".weight")]
            array = value if isinstance(value, np.ndarray) else value.array()
            moved = torch.tensor(array).to(device=device, dtype=dtype)
            where, _, own = name.rpartition(".")  # "weight" or "bias"
            owner = self.get_submodule(where)
            owner.register_parameter(own, nn.Parameter(moved, requires_grad=parameter.requires_grad))
        self.cos, self.sin = self.cos.to(device), self.sin.to(device)
        return self


class Layer(nn.Module):
    """One block: attention, then feed-forward, each on the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        for name, shape in layer_shapes(config).items():
            if len(shape) == 2:
                self.add_module(name, nn.Linear(shape[1], shape[0], bias=name in biased(config)))
            elif not name.endswith(".bias"):
                self.add_module(name, Norm(config, shape[0]))
        if config.norm == "layer":  # these norms have no weights, so no names in the files either
            self.input_layernorm, self.post_attention_layernorm = Norm(config, 0), Norm(config, 0)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mix: Mix) -> Tensor:
        config = self.config
        h = x if config.norms_after else self.input_layernorm(x)
        q, k, v = self._project(h)  # (…, N, H, E), (…, N, K, E), (…, N, K, E)
        mixed = mix(rotate(q, cos, sin), rotate(k, cos, sin), v)  # (…, N, H, E)
        added = self.o_proj(mixed.flatten(-2))  # (…, N, D)
        x = x + (self.post_attention_layernorm(added) if config.norms_after else added)

        h = x if config.norms_after else self.post_attention_layernorm(x)
        added = self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))  # (…, N, D)
        return x + (self.post_feedforward_layernorm(added) if config.norms_after else added)

    def _project(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        q, k, v = self.q_proj(h), self.k_proj(h), self.v_proj(h)
        if config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if config.clip_qkv is not None:
            q, k, v = (part.clamp(-config.clip_qkv, config.clip_qkv) for part in (q, k, v))
        heads = (-1, config.head_dim)
        return q.unflatten(-1, heads), k.unflatten(-1, heads), v.unflatten(-1, heads)


class Norm(nn.Module):
    """RMSNorm, or LayerNorm without weights; computed in float32, the weight multiplied after the cast back."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.kind, self.eps = config.norm, config.norm_eps
        if self.kind == "rms":
            self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        if self.kind == "layer":
            return F.layer_norm(wide, wide.shape[-1:], eps=self.eps).to(x.dtype)
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return scaled.to(x.dtype) * self.weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (…, heads, E) by tables (…, 1, E/2), in float32."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def mix_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention within whole sequences that start at position 0: q (…, N, H, E), k and v (…, N, K, E)."""
    q, k, v = (part.transpose(-2, -3) for part in (q, k, v))  # (…, heads, N, E)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[-3] != k.shape[-3])
    return mixed.transpose(-2, -3)

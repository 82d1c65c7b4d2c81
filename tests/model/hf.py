"""The same tiny model as a transformers model: the oracle of the forward passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

from camelid.model.config import ModelConfig

_PLACES = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "gate_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "down_proj": "mlp.down_proj",
}


def hf_name(name: str) -> str:
    """Our tensor name in transformers' words."""
    if name == "lm_head":
        return "lm_head.weight"
    parts = name.removesuffix(".bias").split(".")
    parts[-1] = _PLACES.get(parts[-1], parts[-1])
    return "model." + ".".join(parts) + (".bias" if name.endswith(".bias") else ".weight")


def hf_model(config: ModelConfig, tensors: dict[str, np.ndarray], **rope: Any) -> torch.nn.Module:
    """A transformers model in float32 with the given weights; `rope` are its rope_parameters beside the base."""
    scaling = config.rope_scaling
    sizes = {
        "hidden_size": config.dim,
        "intermediate_size": config.ffn_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": scaling.original_context if scaling and scaling.rule == "dynamic" else 131072,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.ties_embeddings,
        "attention_bias": config.attention_bias,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta, **rope},
        "attn_implementation": "eager",
    }
    kinds = {
        "llama": (
            transformers.LlamaConfig,
            transformers.LlamaForCausalLM,
            {"head_dim": config.head_dim, "mlp_bias": config.mlp_bias},
        ),
        "olmo": (transformers.OlmoConfig, transformers.OlmoForCausalLM, {"clip_qkv": config.clip_qkv}),
        "olmo2": (transformers.Olmo2Config, transformers.Olmo2ForCausalLM, {}),
    }
    make_config, make_model, extra = kinds[config.architecture]
    model = make_model(make_config(**sizes, **extra)).eval()
    state = {hf_name(name): torch.from_numpy(value) for name, value in tensors.items()}
    missing = model.load_state_dict(state, strict=False)
    assert set(missing.missing_keys) <= {"lm_head.weight"}
    assert not missing.unexpected_keys
    model.tie_weights()
    return model


@torch.no_grad()
def hf_logits(model: torch.nn.Module, ids: list[int], start: int = 0) -> np.ndarray:
    """Logits (T, V) of ids whose first position is `start`."""
    positions = torch.arange(start, start + len(ids))[None]
    return model(torch.tensor([ids]), position_ids=positions).logits[0].numpy()

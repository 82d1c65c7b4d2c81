"""Keys of a config that camelid does not know: those that may touch the arithmetic are refused, others are ignored.

A published Llama's arithmetic is in the keys that transformers and llama.cpp read. Other keys are notes of whoever
trained or converted it, unless they name a part of a forward pass: then a fork with changed arithmetic wrote them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camelid.errors import first_few

log = logging.getLogger(__name__)

# Words of a key's name that belong to training, storage or the choice of a kernel, whatever stands beside them.
_HARMLESS = frozenset(
    """bf16 bnb checkpoint checkpointing compile dataset date decay deepspeed drop dropout dtype eff efficient epoch
    epochs finetuned finetuning flash fp16 fp32 fsdp fused galore grad gradient id ids impl implementation init
    initialization initializer kernel kernels learning license liger loss lr megatron mem neftune note notes optim
    optimizer pdrop precision pretraining random sdpa seed std step steps tokenizer train trained trainer training
    triton unsloth url version wandb warmup xformers""".split()  # noqa: SIM905
)
# Words that name a part of a forward pass.
_ARITHMETIC = frozenset(
    """act activation activations adaptive alibi attention attentions attn audio bias biases bidirectional causal
    clamp clip compression cross decoder depth dim embd embed embedding embeddings encoder eps epsilon expert experts
    factor factors ffn freq frequency freqs gate gated gating head heads hidden interleave interleaved kv latent layer
    layernorm layers linear local logit logits mamba mask masks mla mlp moe mscale mtp multiplier mup nextn norm norms
    ntk patch position positional positions projector q qk qkv quant quantization recurrent residual rms rope rotary
    router scalar scale scales scaling sliding softcap softcapping softmax sparse sparsity ssm state swiglu
    temperature theta tie tied tying vision width window xpos yarn""".split()  # noqa: SIM905
)
_WORD = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*")
_OFF: tuple[object, ...] = (None, False, 0, "", [], {})


def touches_arithmetic(key: str) -> bool:
    """Whether a key's name is about a part of a forward pass."""
    parts = [word.lower() for word in _WORD.findall(key)]
    words = {*parts, *(word.rstrip("0123456789") for word in parts)}
    return not words & _HARMLESS and bool(words & _ARITHMETIC)


def first_refused(unknown: Mapping[str, Any]) -> str | None:
    """The first key that is on and whose name touches the arithmetic."""
    return next((key for key, value in unknown.items() if value not in _OFF and touches_arithmetic(key)), None)


def warn_ignored(path: Path, unknown: Mapping[str, Any]) -> None:
    """One line about the keys that were passed over and are on."""
    keys = [key for key, value in unknown.items() if value not in _OFF]
    if keys:
        quoted = [ascii(key[:40])[1:-1] for key in keys]
        log.warning("%s: unknown keys, ignored: %s", path, first_few(quoted, 5))

"""The stages of generation as plain values for JSON: what the Flow page draws."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.chat.activations import Flow, Pass
from camelid.chat.llama import Llama
from camelid.chat.sampling_trace import Chosen, Outcome
from camelid.engine.request import SamplingParams
from camelid.engine.sampling.steps import STEPS
from camelid.model.rope import inverse_frequencies

STRIP = 64  # numbers of an embedding that are drawn
DIGITS = 5  # of probabilities that are only told


def stage(flow: Flow, seen: Pass, n_prompt: int, result: Outcome, params: SamplingParams) -> dict[str, Any]:
    """From text to distribution: tokens, embeddings, positions, the last position's lens, and the outcome."""
    llama, config = flow.llama, flow.llama.config
    return {
        "ids": list(seen.ids),
        "n_prompt": n_prompt,
        "longest": flow.longest,
        "shape": {
            name: getattr(config, name)
            for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "ffn_dim", "vocab_size")
        },
        "tokens": [token(llama, id) for id in seen.ids],
        "embedding": strips(seen.embeddings()),
        "frequencies": [float(f"{value:.6g}") for value in inverse_frequencies(config).tolist()],
        "lens": lens(flow, seen, len(seen.ids) - 1),
        "telling": telling_head(seen),
        "outcome": outcome(llama, result, params),
    }


def telling_head(seen: Pass) -> dict[str, int]:
    """The layer and head in which the last position looks hardest at one token, be it not the first nor itself.

    Most heads rest on the first token when they have nothing to bring in (attention sinks, arXiv:2309.17453).
    """
    looks = np.stack([seen.last_looks(layer)[:, 1:-1] for layer in range(len(seen.layers))])  # (layers, H, L - 2)
    if not looks.size:
        return {"layer": 0, "head": 0}
    layer, head = np.unravel_index(looks.max(axis=-1).argmax(), looks.shape[:2])
    return {"layer": int(layer), "head": int(head)}


def token(llama: Llama, id: int) -> dict[str, Any]:
    """A token: its id, readable piece and bytes, whether it is a control token, and whether it ends a text."""
    data = llama.tokenizer.token_bytes(id)
    return {
        "id": id,
        "piece": llama.tokenizer.piece(id),
        "bytes": data.hex(),
        "control": not data,
        "ends": id in llama.stop_ids,
    }


def strips(embeddings: NDArray[np.float32]) -> dict[str, Any]:
    """The first numbers of each embedding as signed bytes in base64, with the number that 127 stands for, and norms."""
    shown = embeddings[:, :STRIP]
    scale = float(np.abs(shown).max()) or 1.0
    levels = np.rint(shown * (127 / scale)).astype(np.int8)
    return {
        "width": shown.shape[1],
        "scale": float(f"{scale:.6g}"),
        "levels": base64.b64encode(levels.tobytes()).decode(),
        "norms": [round(norm, 3) for norm in np.linalg.norm(embeddings, axis=1).tolist()],
    }


def lens(flow: Flow, seen: Pass, position: int) -> dict[str, Any]:
    """What each layer would predict after a position, how sure it would be, and what its blocks add."""
    piece = flow.llama.tokenizer.piece
    layers = [
        {
            "top": [[piece(id), round(share, DIGITS)] for id, share in layer.top],
            "entropy": round(layer.entropy, 2),
            "attention": round(layer.attention, 2),
            "feed_forward": round(layer.feed_forward, 2),
            "stream": round(layer.stream, 1),
        }
        for layer in flow.lens(seen, position)
    ]
    return {"position": position, "layers": layers}


def attention(seen: Pass, layer: int) -> bytes:
    """A layer's attention, 255 for 1: for each head, for each position, a byte for each position up to its own."""
    weights = seen.attention(layer)  # (H, L, L)
    lower = np.tril_indices(weights.shape[1])
    return np.rint(weights[:, lower[0], lower[1]] * 255).astype(np.uint8).tobytes()


def outcome(llama: Llama, result: Outcome, params: SamplingParams) -> dict[str, Any]:
    """The table of next tokens and the sampling steps that made it."""
    rows = [
        {
            **token(llama, row.id),
            "probability": row.probability,
            "left": row.left,
            "begins": row.begins,
            "fell": row.fell,
        }
        for row in result.rows
    ]
    steps = [
        {"name": step.name, "field": STEPS[step.name].field if step.name in STEPS else None, "n_left": step.n_left}
        | {"note": step.note}
        for step in result.steps
    ]
    sliders = {name: getattr(params, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    return {"rows": rows, "others": list(result.others), "steps": steps, "params": sliders}


def chosen(llama: Llama, it: Chosen) -> dict[str, Any]:
    """The token that comes next, and how it was come by."""
    return {**token(llama, it.id), "probability": it.probability, "number": it.number}

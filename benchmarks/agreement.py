"""How far camelid and llama.cpp are from the float32 reference on the same GGUF: divergence, perplexity, greedy text.

python benchmarks/agreement.py MODEL.gguf [--text LICENSE] [--tokens 600]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp_runner import LlamaCppRunner
from numpy.typing import NDArray

import camelid
from camelid.engine import EngineOptions

PROMPTS = (
    "The best thing about AI is its ability to",
    "The capital of France is",
    "Once upon a time there was a llama who",
    "def fibonacci(n):",
    "Water boils at",
    "A short poem about the mountains:",
)
Logits = NDArray[np.float32]


class LlamaCpp:
    """llama.cpp's logits after each id."""

    def __init__(self, path: str) -> None:
        self.runner = LlamaCppRunner(path, 2, 2048)
        self.width = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.runner.model))

    def logits(self, ids: list[int]) -> Logits:
        """(len(ids), V), read at once."""
        batch, runner = self.runner.batch, self.runner
        runner.trim(0, 0)
        for i, id in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = id, i, 1, 0, True
        batch.n_tokens = len(ids)
        if llama_cpp.llama_decode(runner.context, batch):
            raise SystemExit("llama_decode failed")
        logits = llama_cpp.llama_get_logits(runner.context)
        flat = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * (len(ids) * self.width))).contents
        return np.frombuffer(flat, np.float32).reshape(len(ids), self.width).copy()

    def write(self, ids: list[int], n: int) -> list[int]:
        """`ids` and n greedy ones behind them."""
        row = self.logits(ids)[-1]
        for _ in range(n):
            ids = [*ids, int(row.argmax())]
            self.runner.forward([(ids[-1:], len(ids) - 1, 0)])
            logits = llama_cpp.llama_get_logits_ith(self.runner.context, 0)
            row = np.ctypeslib.as_array(logits, (self.width,)).copy()
        return ids


class Camelid:
    """The same of camelid."""

    def __init__(self, llama: camelid.Llama) -> None:
        self.llama, self.logits = llama, llama.logits

    def write(self, ids: list[int], n: int) -> list[int]:
        """`ids` and n greedy ones behind them."""
        answer = self.llama.generate(ids, temperature=0, max_tokens=n, ignore_stop=True)
        return [*ids, *answer.ids]


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """In float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


def departure(reference: camelid.Llama, prompt: list[int], theirs: list[int], right: list[int]) -> str:
    """Where a text leaves the reference's, and how near the two likeliest ids were there."""
    for at, (a, b) in enumerate(zip(right, theirs, strict=True)):
        if a != b:
            top = np.sort(reference.logits(right[:at])[-1])[::-1]
            return f"departs at {at - len(prompt)}, margin {top[0] - top[1]:.3f}"
    return "equal"


def main() -> None:
    """Print a row for each engine, then one for each prompt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", type=Path, default=Path(__file__).parents[1] / "LICENSE")
    parser.add_argument("--tokens", type=int, default=600)
    parser.add_argument("--written", type=int, default=50)
    choices = parser.parse_args()
    reference = camelid.load(choices.model, backend="numpy")
    engines: dict[str, Camelid | LlamaCpp] = {
        f"camelid, {bits} bits": Camelid(
            camelid.load(choices.model, backend="cpu", options=EngineOptions(activation_bits=bits))
        )
        for bits in (8, 15)
    }
    engines["llama.cpp"] = LlamaCpp(choices.model)
    ids = reference.prompt_ids(choices.text.read_text("utf-8"))[: choices.tokens]
    wanted = log_softmax(reference.logits(ids))
    surprise = -wanted[np.arange(len(ids) - 1), ids[1:]].mean()
    print(json.dumps({"engine": "reference", "tokens": len(ids), "perplexity": round(math.exp(surprise), 4)}))
    for name, engine in engines.items():
        got = log_softmax(engine.logits(ids))
        divergence = (np.exp(wanted) * (wanted - got)).sum(axis=-1)
        own = -got[np.arange(len(ids) - 1), ids[1:]].mean()
        row = {
            "engine": name,
            "mean_kl": float(f"{divergence.mean():.3g}"),
            "most_kl": float(f"{divergence.max():.3g}"),
            "perplexity": round(math.exp(own), 4),
            "off_percent": round(100 * (math.exp(own - surprise) - 1), 3),
        }
        print(json.dumps(row), flush=True)
    for text in PROMPTS:
        prompt = reference.prompt_ids(text)
        right = Camelid(reference).write(prompt, choices.written)
        distances = {
            name: departure(reference, prompt, engine.write(prompt, choices.written), right)
            for name, engine in engines.items()
        }
        print(json.dumps({"prompt": text, **distances}), flush=True)


if __name__ == "__main__":
    main()

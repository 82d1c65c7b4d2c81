"""Speed of training, beside transformers' and litgpt's plain loops: one process, in turns, A B C A B C …

    python benchmarks/train.py [--shape 15m] [--quick] [--litgpt FOLDER] [--gpu] [--only NAME …]

Everybody gets the same random tokens, float32 weights under bf16 arithmetic, fused AdamW, and camelid's tuning of
malloc. Peers run as their users do: forward, backward, step; with and without torch.compile. camelid runs its own
loop, which also clips the gradient. Prints tokens/s (median, lowest to highest), the share of the measured bf16 matrix
peak that useful arithmetic reaches, and the ratio to the best peer, the median over turns side by side; appends a JSON
line to benchmarks/results/train.jsonl.

litgpt: an installed one, or the folder that its wheel was unpacked in. What its import asks for and its model does
not use (lightning) is replaced by stand-ins.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import json
import logging
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

from camelid.data.batches import TrainingBatch
from camelid.machine import keep_freed_memory, threads
from camelid.model.config import ModelConfig
from camelid.model.llama_torch import LlamaTorch
from camelid.train.init import initialise
from camelid.train.loop import State, optimise
from camelid.train.mixed_precision import Learner
from camelid.train.optim import make_optimizer
from camelid.train.parallel import Parallel
from camelid.train.planning.devices import flops_per_token
from camelid.train.planning.flops import matrix_peak, peak_memory
from camelid.train.stages.pretrain import Pretrain, PretrainOptions

RESULTS = Path(__file__).parent / "results" / "train.jsonl"


@dataclass(frozen=True)
class Shape:
    """A model and a batch of it."""

    config: ModelConfig
    context: int
    rows: int

    @property
    def tokens(self) -> int:
        return self.context * self.rows


def _shape(dim: int, layers: int, heads: int, kv: int, ffn: int, vocab: int, context: int, rows: int) -> Shape:
    sizes = {"dim": dim, "n_layers": layers, "n_heads": heads, "n_kv_heads": kv, "head_dim": dim // heads}
    config = ModelConfig(**sizes, ffn_dim=ffn, vocab_size=vocab, context=context, ties_embeddings=True)
    return Shape(config, context, rows)


SHAPES = {
    "15m": _shape(288, 6, 6, 6, 768, 32000, 256, 16),
    "smollm2-135m": _shape(576, 30, 9, 3, 1536, 49152, 512, 4),
    "1b": _shape(2048, 16, 32, 8, 8192, 128256, 4096, 4),  # Llama 3.2 1B's
}

Step = Callable[[], float]
"""One step on the same tokens; its loss."""


class _Same(Pretrain):
    """Learns the same random tokens in every step, one document a row."""

    def __init__(self, shape: Shape, options: PretrainOptions, parallel: Parallel) -> None:
        self.options, self.config = options, shape.config
        self._rows = options.rows_at_once(1, parallel.device.type == "cuda")
        self.share = _random_batch(shape)

    def batch(self, step: int, learner: Learner) -> TrainingBatch:
        return self.share


def _random_batch(shape: Shape) -> TrainingBatch:
    drawn = np.random.default_rng(0).integers(0, shape.config.vocab_size, (shape.rows, shape.context + 1))
    places = np.broadcast_to(np.arange(shape.context), (shape.rows, shape.context)).copy()
    numbers = np.zeros((shape.rows, shape.context), np.int32)
    return TrainingBatch(drawn[:, :-1].copy(), drawn[:, 1:].copy(), places, numbers, np.arange(shape.rows))


def camelid(shape: Shape, device: torch.device, compiled: bool) -> Step:
    """The loop of `camelid train`."""
    options = PretrainOptions(
        steps=10**6, batch_tokens=shape.tokens, context=shape.context, lr=1e-4, warmup_steps=0, compile=compiled
    )
    parallel = Parallel()
    with torch.device("meta"):
        model = LlamaTorch(shape.config, shape.context)
    parallel.shard(model)
    initialise(model, 0)
    state = State(model, make_optimizer(model, options))
    learner = Learner(model, options, parallel, compiled)
    steps: Iterator[Any] = optimise(state, learner, _Same(shape, options, parallel), parallel)
    return lambda: float(next(steps).loss)


def transformers(shape: Shape, device: torch.device, compiled: bool) -> Step:
    """LlamaForCausalLM with SDPA attention, trained by autocast."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = shape.config
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.dim,
            intermediate_size=config.ffn_dim,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            use_cache=False,
            attn_implementation="sdpa",
        )
    )
    return _plain_loop(model, lambda run, ids, targets: run(input_ids=ids, shift_labels=targets, labels=targets).loss)(
        shape, device, compiled
    )


def litgpt(shape: Shape, device: torch.device, compiled: bool) -> Step:
    """litgpt's GPT with its own chunked cross entropy, trained by autocast."""
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    sizes = shape.config
    config = Config(
        name="bench",
        block_size=shape.context,
        vocab_size=sizes.vocab_size,
        padded_vocab_size=sizes.vocab_size,
        n_layer=sizes.n_layers,
        n_head=sizes.n_heads,
        n_embd=sizes.dim,
        n_query_groups=sizes.n_kv_heads,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=1e-5,
        mlp_class_name="LLaMAMLP",
        intermediate_size=sizes.ffn_dim,
    )
    model = GPT(config)
    model.transformer.wte.weight = model.lm_head.weight
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.02)
    return _plain_loop(model, lambda run, ids, targets: chunked_cross_entropy(run(ids), targets))(
        shape, device, compiled
    )


def _plain_loop(model: torch.nn.Module, lose: Callable[..., torch.Tensor]) -> Callable[..., Step]:
    def make(shape: Shape, device: torch.device, compiled: bool) -> Step:
        model.to(device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        run = torch.compile(model) if compiled else model
        batch = _random_batch(shape)
        ids, targets = (torch.from_numpy(part).to(device) for part in (batch.ids, batch.targets))

        def step() -> float:
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = lose(run, ids, targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return float(loss.detach())

        return step

    return make


CONTENDERS: dict[str, tuple[Callable[..., Step], bool]] = {
    "camelid": (camelid, True),
    "camelid, not compiled": (camelid, False),
    "transformers": (transformers, False),
    "transformers, compiled": (transformers, True),
    "litgpt": (litgpt, False),
    "litgpt, compiled": (litgpt, True),
}


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules for what litgpt imports and its model does not use."""

    names = frozenset({"lightning", "lightning_utilities", "psutil", "jsonargparse", "torchmetrics", "litdata"})

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> Any:
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__, module.__name__ = [], spec, spec.name
        return module

    def exec_module(self, module: Any) -> None:
        pass


def find_litgpt(folder: Path | None) -> bool:
    """Make `litgpt.model` importable; False if there is none."""
    if folder is None:
        spec = importlib.util.find_spec("litgpt")
        if spec is None or spec.origin is None:
            return False
        folder = Path(spec.origin).parent
    elif (folder / "litgpt").is_dir():
        folder = folder / "litgpt"
    sys.meta_path.append(_StandIns())  # after everything that is installed
    package: Any = types.ModuleType("litgpt")
    package.__path__ = [str(folder)]
    sys.modules["litgpt"] = package
    package.model = importlib.import_module("litgpt.model")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES))
    parser.add_argument("--rounds", type=int, default=5, help="turns of each that count")
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn; the fastest counts")
    parser.add_argument("--quick", action="store_true", help="two rounds of one step")
    parser.add_argument("--litgpt", type=Path, help="folder of an unpacked litgpt wheel")
    parser.add_argument("--gpu", action="store_true", help="on a GPU, with the 1b shape")
    parser.add_argument("--only", nargs="+", choices=sorted(CONTENDERS), help="some of the contenders")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    keep_freed_memory()
    device = torch.device("cuda" if chosen.gpu else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(threads()[0])
    shape = SHAPES[chosen.shape or ("1b" if chosen.gpu else "15m")]
    names = list(chosen.only or CONTENDERS)
    if not find_litgpt(chosen.litgpt):
        print("no litgpt here; see --litgpt", file=sys.stderr)
        names = [name for name in names if not name.startswith("litgpt")]
    if chosen.gpu:  # attention there is made by the compiler
        names = [name for name in names if name != "camelid, not compiled"]
    rounds, steps = (2, 1) if chosen.quick else (chosen.rounds, chosen.steps)
    rates, peaks, first = measure(shape, device, names, rounds, steps)
    report(chosen.shape or ("1b" if chosen.gpu else "15m"), shape, device, rates, peaks, first)


def measure(
    shape: Shape, device: torch.device, names: list[str], rounds: int, steps: int
) -> tuple[dict[str, list[float]], list[float], dict[str, float]]:
    """Tokens/s of each contender's turns, the matrix peaks measured between, seconds of each one's first step."""
    torch.manual_seed(0)
    first, run = {}, {}
    for name in names:
        make, compiled = CONTENDERS[name]
        run[name] = make(shape, device, compiled)
        started = time.perf_counter()
        run[name]()
        first[name] = time.perf_counter() - started
        print(f"{name}: first step {first[name]:.1f} s", file=sys.stderr)
        run[name]()
    rates: dict[str, list[float]] = {name: [] for name in names}
    peaks = []
    for _ in range(rounds):
        peaks.append(matrix_peak(device, "bf16") or float("nan"))
        for name in names:
            gc.collect()
            seconds = []
            for _ in range(steps):
                started = time.perf_counter()
                run[name]()
                seconds.append(time.perf_counter() - started)
            rates[name].append(shape.tokens / min(seconds))
    return rates, peaks, first


def report(
    title: str,
    shape: Shape,
    device: torch.device,
    rates: dict[str, list[float]],
    peaks: list[float],
    first: dict[str, float],
) -> None:
    """Print the table and keep a line of it."""
    peak, per_token = statistics.median(peaks), flops_per_token(shape.config, shape.context)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    peers = {name: rate for name, rate in middle.items() if not name.startswith("camelid")}
    best = max(peers, key=lambda name: peers[name], default=None)
    print(f"{title}: {shape.rows} rows of {shape.context}, bf16 peak {peak / 1e9:.0f} GFLOPS, on {device.type}\n")
    print(f"{'':<24}{'tokens/s':>26}{'of the peak':>14}{'to the best peer':>18}{'first step':>12}")
    for name, rate in middle.items():
        cell = f"{rate:,.0f} [{min(rates[name]):,.0f} to {max(rates[name]):,.0f}]"
        ratio = f"{statistics.median(r / p for r, p in zip(rates[name], rates[best], strict=True)):.2f}" if best else ""
        print(f"{name:<24}{cell:>26}{rate * per_token / peak:>14.0%}{ratio:>18}{first[name]:>10.1f} s")
    line = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "shape": title,
        "bf16_peak": peak,
        "peak_memory_of_all": peak_memory(device),
        "tokens_per_second": rates,
        "share_of_peak": {name: rate * per_token / peak for name, rate in middle.items()},
        "best_peer": best,
        "first_step_seconds": first,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

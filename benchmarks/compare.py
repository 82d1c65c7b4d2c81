"""camelid and llama.cpp on the same GGUF, same threads, one process, A B A B: speeds, ratios, shares of the limits.

python benchmarks/compare.py MODEL.gguf --context 0 1024 4096 --batch 8 32 --out benchmarks/results/compare.jsonl
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from camelid_runner import CamelidRunner
from llama_cpp_runner import LlamaCppRunner

from camelid.engine import _cpu
from camelid.machine import threads as usable_threads
from camelid.weights.open import open_weights

Runner = CamelidRunner | LlamaCppRunner
PEAKS = ("fp32", "bf16", "int8")  # as the engine numbers them
BATCH_PROMPT = 128


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=usable_threads()[0])
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--context", type=int, nargs="*", default=[0, 1024])
    parser.add_argument("--batch", type=int, nargs="*", default=[])
    parser.add_argument("--activation-bits", type=int, default=8, choices=[8, 15], help="camelid's")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    choices = parser.parse_args()
    Comparison(choices).run()


class Comparison:
    """One model, both engines."""

    def __init__(self, choices: argparse.Namespace) -> None:
        self.choices = choices
        config = open_weights(Path(choices.model)).config
        self.vocab_size = config.vocab_size
        self.cache_bytes = 2 * config.n_layers * config.kv_dim * 2  # of a position: float16 keys and values
        self.random = random.Random(1)
        self.matrix_weights = config.n_parameters - (0 if config.ties_embeddings else config.vocab_size * config.dim)
        self.head_weights = config.vocab_size * config.dim

    def run(self) -> None:
        """Everything, a line of JSON each."""
        choices = self.choices
        length = max([choices.prefill, *choices.context]) + choices.decode + 64
        ours = CamelidRunner(choices.model, choices.threads, length, bits=choices.activation_bits)
        theirs = LlamaCppRunner(choices.model, choices.threads, length)
        self.weight_bytes = ours.backend.weight_bytes
        self.isa = ours.backend.isa
        if n := choices.prefill:
            self.report("prefill", n, self.both([ours, theirs], lambda runner: self.prefill(runner, n), n, self.peaks))
        for context in choices.context:
            for runner in (ours, theirs):
                self.fill(runner, 0, context)
            work = lambda runner, context=context: self.decode(runner, context)  # noqa: E731
            self.report("decode", context, self.both([ours, theirs], work, choices.decode, self.bandwidth))
        ours.close(), theirs.close()
        del ours, theirs
        gc.collect()
        for n in choices.batch:
            runners: list[Runner] = [
                make(choices.model, choices.threads, 256, n) for make in (CamelidRunner, LlamaCppRunner)
            ]
            for runner in runners:
                for sequence in range(n):
                    self.fill(runner, sequence, BATCH_PROMPT)
            steps = choices.decode
            self.report("batch", n, self.both(runners, lambda runner, n=n: self.decode_many(runner, n), n * steps))
            for runner in runners:
                runner.close()

    def ids(self, n: int) -> list[int]:
        """Random ids: what they are does not matter for speed."""
        return [self.random.randrange(3, self.vocab_size - 1) for _ in range(n)]

    def prefill(self, runner: Runner, n: int) -> None:
        """Read n ids at once."""
        runner.trim(0, 0)
        runner.forward([(self.ids(n), 0, 0)])

    def fill(self, runner: Runner, sequence: int, n: int) -> None:
        """Bring a sequence to n positions."""
        runner.trim(sequence, 0)
        for start in range(0, n, 512):
            runner.forward([(self.ids(min(512, n - start)), start, sequence)])

    def decode(self, runner: Runner, context: int) -> None:
        """Write on from `context` positions."""
        runner.trim(0, context)
        for i in range(self.choices.decode):
            runner.forward([(self.ids(1), context + i, 0)])

    def decode_many(self, runner: Runner, n: int) -> None:
        """The same for n sequences at once."""
        for sequence in range(n):
            runner.trim(sequence, BATCH_PROMPT)
        for i in range(self.choices.decode):
            runner.forward([(self.ids(1), BATCH_PROMPT + i, sequence) for sequence in range(n)])

    def bandwidth(self) -> dict[str, float]:
        """What memory gives, bytes a second."""
        return {"read": _cpu.read_bandwidth(self.isa, self.choices.threads, 512)}

    def peaks(self) -> dict[str, float]:
        """What the cores multiply, operations a second."""
        return {name: _cpu.multiply_peak(self.isa, what, self.choices.threads) for what, name in enumerate(PEAKS)}

    def both(
        self,
        runners: list[Runner],
        work: Callable[[Runner], None],
        tokens: int,
        limits: Callable[[], dict[str, float]] = dict,
    ) -> dict[str, list[float]]:
        """Tokens a second of each, and the machine's limits, in turns; the first turn is not counted."""
        speeds: dict[str, list[float]] = {runner.name: [] for runner in runners}
        for turn in range(self.choices.repeats + 1):
            for name, limit in limits().items():
                speeds.setdefault(name, [])
                if turn:
                    speeds[name].append(limit)
            for runner in runners:
                started = time.perf_counter()
                work(runner)
                if turn:
                    speeds[runner.name].append(tokens / (time.perf_counter() - started))
        return speeds

    def report(self, test: str, size: int, speeds: dict[str, list[float]]) -> None:
        """Print and store medians, ranges, the ratio, and shares of the limits that were measured in the same turns."""
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        ours, theirs = medians["camelid"], medians["llama.cpp"]
        row: dict[str, object] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": Path(self.choices.model).name,
            "test": test,
            "size": size,
            "threads": self.choices.threads,
            "activation_bits": self.choices.activation_bits,
            "isa": self.isa,
            "ratio": round(ours / theirs, 2),
            **{name: summary(speeds[name]) for name in ("camelid", "llama.cpp")},
        }
        if test == "decode":
            bytes_a_token = self.weight_bytes + (size + self.choices.decode / 2) * self.cache_bytes
            row["read_gb_s"] = summary([value / 1e9 for value in speeds["read"]])
            for name, speed in (("share", ours), ("llama.cpp_share", theirs)):
                row[f"{name}_of_bandwidth"] = round(speed * bytes_a_token / medians["read"], 3)
        if test == "prefill":
            row["giga_operations"] = round(2 * (self.matrix_weights - self.head_weights) * ours / 1e9)
            for name in PEAKS:
                row[f"peak_{name}"] = round(medians[name] / 1e9)
        print(json.dumps(row), flush=True)
        if self.choices.out:
            with self.choices.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


def summary(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": round(statistics.median(values), 1), "min": round(min(values), 1), "max": round(max(values), 1)}


if __name__ == "__main__":
    main()

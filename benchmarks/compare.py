"""camelid and others on the same GGUF, same threads, A B A B: speeds, ratios, shares of the limits.

python benchmarks/compare.py MODEL.gguf --context 0 1024 4096 --batch 8 32 --out benchmarks/results/compare.jsonl

llama.cpp takes part in this process, through llama-cpp-python where that is installed. Any llama-bench program takes
part with `--llama-bench PATH` or `NAME=PATH`, as often as you like; `--llama-bench-args "-rtr 1"` are those of the one
before it. The ratio of a row is to the one that is named llama.cpp, `ratios` are to all.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import shlex
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from camelid_runner import CamelidRunner
from llama_bench_runner import LlamaBench

from camelid.engine import _cpu
from camelid.machine import threads as usable_threads
from camelid.weights.open import open_weights

if TYPE_CHECKING:
    from llama_cpp_runner import LlamaCppRunner

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
    parser.add_argument("--llama-bench", type=_program, action="append", default=[], metavar="PATH")
    parser.add_argument(
        "--llama-bench-args", action=_OfTheLastOne, metavar="ARGS", help='of the one before, as "-rtr 1"'
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    choices = parser.parse_args()
    Comparison(choices).run()


def _program(value: str) -> tuple[str, Path, list[str]]:
    name, _, path = value.rpartition("=")
    return name, Path(path), []


class _OfTheLastOne(argparse.Action):
    """Arguments of the program that was named last."""

    def __call__(self, parser: argparse.ArgumentParser, choices: argparse.Namespace, value: object, *_: object) -> None:
        if not choices.llama_bench:
            parser.error("--llama-bench-args: stands behind the --llama-bench that it is for")
        choices.llama_bench[-1][2].extend(shlex.split(str(value)))


class Comparison:
    """One model, all engines."""

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
        programs = [LlamaBench(*program, choices.model, choices.threads) for program in choices.llama_bench]
        length = max([choices.prefill, *choices.context]) + choices.decode + 64
        ours = CamelidRunner(choices.model, choices.threads, length, bits=choices.activation_bits)
        runners: list[Runner] = [ours, *self.llama_cpp(programs, length)]
        self.weight_bytes = ours.backend.weight_bytes
        self.isa = ours.backend.isa
        if n := choices.prefill:
            speeds = self.in_turns(
                "prefill", n, runners, programs, lambda runner: self.prefill(runner, n), n, self.peaks
            )
            self.report("prefill", n, speeds)
        for context in choices.context:
            for runner in runners:
                self.fill(runner, 0, context)
            work = lambda runner, context=context: self.decode(runner, context)  # noqa: E731
            speeds = self.in_turns("decode", context, runners, programs, work, choices.decode, self.bandwidth)
            self.report("decode", context, speeds)
        for runner in runners:
            runner.close()
        del ours, runners, runner
        gc.collect()
        for n in choices.batch:
            many: list[Runner] = [CamelidRunner(choices.model, choices.threads, 256, n)]
            many += self.llama_cpp(programs, 256, n)
            for runner in many:
                for sequence in range(n):
                    self.fill(runner, sequence, BATCH_PROMPT)
            work = lambda runner, n=n: self.decode_many(runner, n)  # noqa: E731
            self.report("batch", n, self.in_turns("batch", n, many, programs, work, n * choices.decode))
            for runner in many:
                runner.close()

    def llama_cpp(self, programs: list[LlamaBench], length: int, sequences: int = 1) -> list[LlamaCppRunner]:
        """llama.cpp in this process, unless a program stands for it or only programs can."""
        if any(program.name == "llama.cpp" for program in programs) or (programs and not find_spec("llama_cpp")):
            return []
        from llama_cpp_runner import LlamaCppRunner

        return [LlamaCppRunner(self.choices.model, self.choices.threads, length, sequences)]

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

    def in_turns(
        self,
        test: str,
        size: int,
        runners: list[Runner],
        programs: list[LlamaBench],
        work: Callable[[Runner], None],
        tokens: int,
        limits: Callable[[], dict[str, float]] = dict,
    ) -> dict[str, list[float]]:
        """Tokens a second of each, and the machine's limits, in turns; the first turn is not counted."""

        def seconds(runner: Runner) -> float:
            started = time.perf_counter()
            work(runner)
            return time.perf_counter() - started

        speeds: dict[str, list[float]] = {}
        for turn in range(self.choices.repeats + 1):
            found = limits()
            found |= {runner.name: tokens / seconds(runner) for runner in runners}
            found |= {
                program.name: program.speed(test, size, tokens) for program in programs if program.can(test, size)
            }
            self.builds = {program.name: program.build for program in programs if program.build}
            if turn:
                for name, value in found.items():
                    speeds.setdefault(name, []).append(value)
        return speeds

    def report(self, test: str, size: int, speeds: dict[str, list[float]]) -> None:
        """Print and store medians, ranges, ratios, and shares of the limits that were measured in the same turns."""
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        names = [name for name in speeds if name not in ("read", *PEAKS)]
        ours = medians["camelid"]
        ratios = {name: round(ours / medians[name], 2) for name in names if name != "camelid"}
        row: dict[str, object] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": Path(self.choices.model).name,
            "test": test,
            "size": size,
            "threads": self.choices.threads,
            "activation_bits": self.choices.activation_bits,
            "isa": self.isa,
            **({"ratio": ratios["llama.cpp"]} if "llama.cpp" in ratios else {}),
            **({"ratios": ratios, "builds": self.builds} if self.builds else {}),
            **{name: summary(speeds[name]) for name in names},
        }
        if test == "decode":
            bytes_a_token = self.weight_bytes + (size + self.choices.decode / 2) * self.cache_bytes
            row["read_gb_s"] = summary([value / 1e9 for value in speeds["read"]])
            for name in names:
                share = "share" if name == "camelid" else f"{name}_share"
                row[f"{share}_of_bandwidth"] = round(medians[name] * bytes_a_token / medians["read"], 3)
        if test == "prefill":
            operations = 2 * (self.matrix_weights - self.head_weights) / 1e9
            for name in names:
                row["giga_operations" if name == "camelid" else f"{name}_giga_operations"] = round(
                    operations * medians[name]
                )
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

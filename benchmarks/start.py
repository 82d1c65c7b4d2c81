"""From the start of a process to its text: camelid and llama.cpp on the same GGUF, in turns, file in the page cache.

The first turn does not count; Python keeps compiled modules then, as it does for whatever pip installs.

python benchmarks/start.py MODEL.gguf [--tokens 32] [--repeats 9]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROMPT = "Once upon a time"
THEIRS = """
import sys
from llama_cpp import Llama
llama = Llama(sys.argv[1], n_ctx=512, n_threads=2, verbose=False)
for piece in llama.create_completion(sys.argv[2], max_tokens=int(sys.argv[3]), temperature=0, stream=True):
    sys.stdout.write(piece["choices"][0]["text"]), sys.stdout.flush()
"""


def run(command: list[str]) -> tuple[float, float, float]:
    """Seconds to the first byte of text and to the end, and the peak of resident memory in MB."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        first = time.perf_counter() - started
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[:4]} failed")
    return first, time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    """Print medians and ranges of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    choices = parser.parse_args()
    size = Path(choices.model).stat().st_size / 1e6
    n = str(choices.tokens)
    flags = ["--max-tokens", n, "--temperature", "0", "--context", "512", "--ignore-stop"]
    commands = {
        "camelid": [sys.executable, "-m", "camelid", "generate", choices.model, PROMPT, *flags],
        "llama.cpp": [sys.executable, "-c", THEIRS, choices.model, PROMPT, n],
    }
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    for turn in range(choices.repeats + 1):
        for name, command in commands.items():
            figures = run(command)
            if turn:
                runs[name].append(figures)
    for name, rows in runs.items():
        row: dict[str, object] = {"engine": name, "file_mb": round(size, 1)}
        for what, values in zip(("first_text_s", "all_s", "peak_mb"), zip(*rows, strict=True), strict=True):
            row[what] = [round(f(values), 3) for f in (statistics.median, min, max)]
        print(json.dumps(row))


if __name__ == "__main__":
    main()

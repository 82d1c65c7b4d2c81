"""Fifty texts, greedy and seeded, with 1, 2 and 3 threads, alone and in a crowd, beside a busy process: one hash each.

python benchmarks/same_texts.py [MODEL] [--prompts 50] [--max-tokens 24]

Ends with status 1 where a text differs from the first of its prompt. Run it with two versions of camelid and compare
the last line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from typing import Any

import camelid
from camelid.engine.options import EngineOptions

STARTS = (
    "The capital of {} is", "Once upon a time in {}", "def {}(n):", "A recipe for {}:", "Why do people like {}?",
)  # fmt: skip
THINGS = ("France", "llamas", "fibonacci", "bread", "rain", "the Andes", "chess", "music", "Tuesday", "a quiet house")


def main() -> None:
    """Print a line for each way of running, and one for all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2:135m-instruct")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--max-tokens", type=int, default=24)
    choices = parser.parse_args()
    prompts = [start.format(thing) for thing in THINGS for start in STARTS][: choices.prompts]
    hashes = set()
    for busy in (False, True):
        process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
        try:
            for threads in (1, 2, 3):
                for crowd in (False, True):
                    hash = hash_of(texts(choices, prompts, threads, crowd))
                    hashes.add(hash)
                    print(json.dumps({"threads": threads, "crowd": crowd, "busy": busy, "hash": hash}), flush=True)
        finally:
            if process:
                process.kill()
                process.wait()
    print(" ".join(sorted(hashes)))
    raise SystemExit(len(hashes) > 1)


def texts(choices: argparse.Namespace, prompts: list[str], threads: int, crowd: bool) -> list[str]:
    """Each prompt's greedy text and its seeded one."""
    llama = camelid.load(choices.model, options=EngineOptions(threads=threads))
    written: list[str] = []
    for sampling in ({"temperature": 0}, {"temperature": 0.8, "top_p": 0.9, "seed": 7}):
        options: dict[str, Any] = {"max_tokens": choices.max_tokens, **sampling}
        if crowd:
            written += [generation.text for generation in llama.generate_all(prompts, **options)]
        else:
            written += [llama.generate(prompt, **options).text for prompt in prompts]
    return written


def hash_of(texts: list[str]) -> str:
    """Of all of them in order."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()

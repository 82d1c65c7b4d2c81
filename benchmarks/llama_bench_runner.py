"""Any llama-bench program as a part of a comparison: llama.cpp's own, or that of a fork such as ik_llama.cpp.

Each measurement is a process of its own with two repetitions, of which the second counts. Decoding behind a context is
`-d` in llama.cpp (the field `n_depth`) and `-gp` in ik_llama.cpp; several sequences at once are beyond llama-bench.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class LlamaBench:
    """A llama-bench program with arguments of its own; without a name it is called by both.

    Attributes:
        build: the commit that it says it was built from, once it has run.
    """

    def __init__(self, name: str, program: Path, arguments: Sequence[str], model: str, threads: int) -> None:
        self.name = name or " ".join([str(program), *arguments])
        self.build: str | None = None
        self._command = [str(program.resolve()), *arguments, "-m", model, "-t", str(threads), "-r", "2", "-ngl", "0"]
        try:
            told = subprocess.run([str(program.resolve()), "-h"], capture_output=True, text=True, check=False)
        except OSError as error:
            raise SystemExit(f"--llama-bench {program}: {error.strerror}") from None
        self._help = told.stdout + told.stderr

    def can(self, test: str, size: int) -> bool:
        """Whether it knows this test."""
        return test == "prefill" or (test == "decode" and (size == 0 or self._depth_flag is not None))

    def speed(self, test: str, size: int, tokens: int) -> float:
        """Tokens a second: reading `size` at once, or writing `tokens` after `size`."""
        done = subprocess.run(
            [*self._command, *self._flags(test, size, tokens), "-o", "json"],
            capture_output=True,
            text=True,
            check=False,
        )
        wanted = {"n_prompt": size, "n_gen": 0} if test == "prefill" else {"n_gen": tokens}
        if test == "decode" and size:
            wanted["n_depth" if self._depth_flag == "-d" else "n_prompt"] = size
        row = find(done.stdout, wanted)
        if row is None:
            words = (done.stderr or done.stdout).strip().splitlines()
            raise SystemExit(f"{self.name}: gave no result of {test} {size}: {words[-1] if words else 'nothing said'}")
        self.build = row.get("build_commit")
        return float(row["samples_ts"][-1])

    @property
    def _depth_flag(self) -> str | None:
        return "-d" if "--n-depth" in self._help else "-gp" if "-gp" in self._help else None

    def _flags(self, test: str, size: int, tokens: int) -> list[str]:
        if test == "prefill":
            return ["-p", str(size), "-n", "0"]
        if not size:
            return ["-p", "0", "-n", str(tokens)]
        if self._depth_flag == "-d":
            return ["-p", "0", "-n", str(tokens), "-d", str(size)]
        return ["-p", "0", "-n", "0", "-gp", f"{size},{tokens}"]


def find(output: str, wanted: Mapping[str, int]) -> dict[str, Any] | None:
    """The row of a JSON list with these fields; a program may say other things before and behind the list."""
    start = output.find("[\n")
    while start >= 0:
        try:
            rows, _ = json.JSONDecoder().raw_decode(output, start)
        except ValueError:
            start = output.find("[\n", start + 1)
            continue
        return next((row for row in rows if all(row.get(name) == value for name, value in wanted.items())), None)
    return None

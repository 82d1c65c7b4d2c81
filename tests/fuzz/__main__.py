"""`python -m tests.fuzz`: damaged and hostile files of every format, each opened in a bounded process.

--cases N    how many        --seed S    other ones        --only FILE    one format
--case K     that one alone, in this process, with its traceback; --keep FILE writes its bytes there
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from tests.fuzz.formats import FORMATS, Format, make_good
from tests.fuzz.limits import run_cases
from tests.fuzz.mutations import mutated


class Cases:
    """The cases of one seed: a format and a damaged file each, told by a number."""

    def __init__(self, seed: int, good: Path) -> None:
        self._seed, self._good = seed, good
        self._data = [(good / row.file).read_bytes() for row in FORMATS]
        self._place = good
        for row in FORMATS:  # good ones open, and what they import is there before memory is bounded
            row.open(good)

    def prepare(self) -> None:
        """Work in a copy of the good files."""
        self._place = Path(tempfile.mkdtemp(dir=self._good.parent))
        shutil.copytree(self._good, self._place, dirs_exist_ok=True)

    def make(self, case: int) -> tuple[Format, bytes, bytes]:
        """The format, a good file, and what became of it."""
        number = case % len(FORMATS)
        return FORMATS[number], self._data[number], mutated(self._data[number], Random(f"{self._seed} {case}"))

    def run(self, case: int) -> None:
        """Open the damaged file in its folder."""
        row, good, bad = self.make(case)
        path = self._place / row.file
        path.write_bytes(bad)
        try:
            row.open(self._place)
        finally:
            path.write_bytes(good)


def main() -> int:
    """Run the cases that the command line names; 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only")
    parser.add_argument("--case", type=int)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good"
        good.mkdir()
        make_good(good)
        cases = Cases(given.seed, good)
        if given.case is not None:
            return _one(cases, given.case, given.keep)
        chosen = [case for case in range(given.cases) if given.only in (None, FORMATS[case % len(FORMATS)].file)]
        failures = run_cases(chosen, cases.run, cases.prepare)
        for failure in failures:
            print(f"case {failure.case} ({cases.make(failure.case)[0].file}): {failure.what}")
        kinds = Counter(cases.make(failure.case)[0].file for failure in failures)
        print(f"{len(chosen)} cases of {len(FORMATS)} formats, {len(failures)} failed {dict(kinds) or ''}")
    return 1 if failures else 0


def _one(cases: Cases, case: int, keep: Path | None) -> int:
    if keep is not None:
        keep.write_bytes(cases.make(case)[2])
    cases.run(case)
    return 0


if __name__ == "__main__":
    sys.exit(main())

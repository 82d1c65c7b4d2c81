"""`python -m tests.fuzz`: damaged and hostile files of every format, each opened in a bounded process.

--cases N    how many        --seed S    other ones        --only FILE    one format
--bombs      those that were made by hand instead        --seconds S    for each, of processor time
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

from tests.fuzz.bombs import BOMBS
from tests.fuzz.formats import FORMATS, Format, make_good
from tests.fuzz.limits import SECONDS, run_cases
from tests.fuzz.mutations import mutated


class Cases:
    """The cases of one seed: a format and a damaged file each, told by a number; with no seed, the bombs."""

    def __init__(self, seed: int | None, good: Path) -> None:
        self._seed, self._good, self._place = seed, good, good
        self._data = {row.file: (good / row.file).read_bytes() for row in FORMATS}
        for row in FORMATS:  # good ones open, and what they import is there before memory is bounded
            row.open(good)

    def prepare(self) -> None:
        """Work in a copy of the good files."""
        self._place = Path(tempfile.mkdtemp(dir=self._good.parent))
        shutil.copytree(self._good, self._place, dirs_exist_ok=True)

    def format(self, case: int) -> Format:
        """Which format a case is about."""
        if self._seed is not None:
            return FORMATS[case % len(FORMATS)]
        return next(row for row in FORMATS if row.file == BOMBS[case].file)

    def name(self, case: int) -> str:
        """What to call a case."""
        about = f"case {case}" if self._seed is not None else BOMBS[case].name
        return f"{about} ({self.format(case).file})"

    def write(self, case: int, path: Path) -> None:
        """Put a case's file in the place of a good one."""
        if self._seed is None:
            BOMBS[case].make(path)
        else:
            path.write_bytes(mutated(self._data[self.format(case).file], Random(f"{self._seed} {case}")))

    def run(self, case: int) -> None:
        """Open the file in its folder."""
        row = self.format(case)
        path = self._place / row.file
        try:
            self.write(case, path)
            row.open(self._place)
        finally:
            path.write_bytes(self._data[row.file])


def main() -> int:
    """Run the cases that the command line names; 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only")
    parser.add_argument("--case", type=int)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--bombs", action="store_true")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    given = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good"
        good.mkdir()
        make_good(good)
        cases = Cases(None if given.bombs else given.seed, good)
        if given.case is not None:
            return _one(cases, given.case, given.keep)
        n_cases = len(BOMBS) if given.bombs else given.cases
        chosen = [case for case in range(n_cases) if given.only in (None, cases.format(case).file)]
        failures = run_cases(chosen, cases.run, cases.prepare, given.seconds)
        for failure in failures:
            print(f"{cases.name(failure.case)}: {failure.what}")
        what = "bombs" if given.bombs else f"cases of {len(FORMATS)} formats"
        kinds = Counter(cases.format(failure.case).file for failure in failures)
        print(f"{len(chosen)} {what}, {len(failures)} failed {dict(kinds) or ''}")
    return 1 if failures else 0


def _one(cases: Cases, case: int, keep: Path | None) -> int:
    if keep is not None:
        cases.write(case, keep)
    cases.run(case)
    return 0


if __name__ == "__main__":
    sys.exit(main())

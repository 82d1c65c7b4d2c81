"""A process that evaluates answers, and is killed where one takes too long: `2003^{2002^{2001}}` shall end no run.

parent                            child (`python -m camelid.evals.scorers.math_process`)
{"kind": …, "a": …, "b": …}  →    true, false, or null where it cannot tell
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from types import TracebackType
from typing import IO, Literal

from camelid.errors import MissingError

Kind = Literal["values", "latex"]
SECONDS = 5.0
"""For one comparison (lm-eval's limit)."""
FIRST_SECONDS = 60.0
"""For the first, which waits for SymPy to load."""
MOST_BYTES = 2 << 30
_TRIES = 2


class Comparer:
    """Compares answers in a process of its own, one after the other; from several threads, in turns.

    Args:
        seconds: for one comparison.
        latex: whether SymPy's LaTeX parser is needed.

    Raises:
        MissingError: SymPy, or ANTLR's runtime that its LaTeX parser needs, is not installed.
    """

    def __init__(self, seconds: float = SECONDS, *, latex: bool = True) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        if _child_says(self._ask("latex" if latex else "values", "1", "1", FIRST_SECONDS)) is not True:
            self.close()
            raise MissingError("MATH's answers need SymPy and its LaTeX parser: pip install 'camelid[eval]'")

    def equal(self, kind: Kind, a: str, b: str) -> bool | None:
        """Whether two answers are equal; None where that cannot be told, also for want of time or memory.

        Args:
            kind: values: as `math_equal` compares them. latex: whether SymPy simplifies their difference to 0.
        """
        with self._lock:
            return _child_says(self._ask(kind, a, b, self._seconds))

    def _ask(self, kind: Kind, a: str, b: str, seconds: float) -> str | None:
        question = json.dumps({"kind": kind, "a": a, "b": b}) + "\n"
        for attempt in range(_TRIES):
            fresh = self._child is None or self._child.poll() is not None
            if fresh:
                self.close()  # of one that has died, what it left open
                self._start()
            assert self._child is not None
            assert self._child.stdin is not None
            try:
                self._child.stdin.write(question)
                self._child.stdin.flush()
                answer = self._lines.get(timeout=max(seconds, FIRST_SECONDS) if fresh else seconds)
            except queue.Empty:
                self.close()
                return None
            except OSError:  # it died before it read this
                answer = ""
            if answer or attempt:  # "": the child died; of this question, or of what came before
                return answer or None
            self.close()
        return None

    def _start(self) -> None:
        self._lines = queue.Queue()
        command = [sys.executable, "-m", __name__]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, text=True, encoding="utf-8")
        assert self._child.stdout is not None
        threading.Thread(target=_forward, args=(self._child.stdout, self._lines), daemon=True).start()

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    _close(pipe)

    def __enter__(self) -> Comparer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close(pipe: IO[str]) -> None:
    try:
        pipe.close()
    except OSError:
        return


def _forward(pipe: IO[str], lines: queue.Queue[str]) -> None:
    """Lines of the child; "" when it has ended."""
    try:
        for line in pipe:
            lines.put(line)
    except ValueError:  # closed meanwhile
        pass
    lines.put("")


def _child_says(line: str | None) -> bool | None:
    answer = json.loads(line) if line else None
    return answer if isinstance(answer, bool) else None


def main() -> None:
    """The child: questions on standard input, answers on standard output."""
    answers, sys.stdout = sys.stdout, sys.stderr
    _limit_memory()
    for line in sys.stdin:
        question = json.loads(line)
        compare = equal_latex if question["kind"] == "latex" else equal_values
        try:
            answer = compare(question["a"], question["b"])
        except (Exception, RecursionError):  # whatever SymPy raises
            answer = None
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))


def equal_values(a: str, b: str) -> bool:
    """By `math_equal`."""
    from camelid.evals.scorers.math_equal import equal
    from camelid.evals.scorers.math_latex import read

    return equal(read(a), read(b))


def equal_latex(a: str, b: str) -> bool:
    """Whether SymPy's LaTeX parser reads both, and their difference simplifies to 0 (lm-eval)."""
    import sympy
    from sympy.parsing.latex import parse_latex

    return bool(sympy.simplify(parse_latex(a) - parse_latex(b)) == 0)


if __name__ == "__main__":
    main()

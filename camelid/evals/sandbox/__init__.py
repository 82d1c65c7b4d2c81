"""A sandbox for programs that models write.

sandbox.py    what a program and its test are, how they fared; workers for many at once
worker.py     one warm interpreter, from outside
view.py       which files a program sees
limits.py     what it may use
inside/       what runs in that interpreter
"""

from __future__ import annotations

from camelid.evals.sandbox.limits import Limits
from camelid.evals.sandbox.sandbox import Check, Program, Ran, Sandbox

__all__ = ["Check", "Limits", "Program", "Ran", "Sandbox"]

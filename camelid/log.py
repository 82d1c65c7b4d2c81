"""Logging for the command line: one plain line a message on standard error. The library itself never sets handlers."""

from __future__ import annotations

import logging
import os
import sys

from camelid.errors import OptionError, one_of
from camelid.streams import printable

LEVELS = ("debug", "info", "warning", "error")


class _OneLine(logging.Formatter):
    """A message in printable characters; what is beside it, a traceback, in lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(" ".join(super().formatMessage(record).split("\n")))


def set_up() -> None:
    """Show messages of the level that $CAMELID_LOG names, `warning` if it is not set.

    Raises:
        OptionError: it names no level.
    """
    level = os.environ.get("CAMELID_LOG", "warning").lower()
    if level not in LEVELS:
        raise OptionError(f"CAMELID_LOG: unknown level {level!r}; {one_of(level, LEVELS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("camelid: %(message)s"))
    root = logging.getLogger("camelid")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False

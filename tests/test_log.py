"""Messages of the library: silent by default, one line each on standard error when a person asks."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import logging
{set_up}
logger = logging.getLogger("camelid.hub.pull")
logger.debug("a detail")
logger.warning("a warning")
"""
SET_UP = "from camelid.log import set_up; set_up()"


def said(set_up: str, level: str | None, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Standard output and error of a program that logs."""
    monkeypatch.delenv("CAMELID_LOG", raising=False)
    if level is not None:
        monkeypatch.setenv("CAMELID_LOG", level)
    code = PROGRAM.format(set_up=set_up)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("level", "lines"),
    [
        (None, ["camelid: a warning"]),
        ("debug", ["camelid: a detail", "camelid: a warning"]),
        ("INFO", ["camelid: a warning"]),
        ("error", []),
    ],
)
def test_the_level_comes_from_the_environment(level: str | None, lines: list[str], monkeypatch) -> None:
    assert said(SET_UP, level, monkeypatch) == ("", "".join(f"{line}\n" for line in lines))


def test_setting_up_twice_says_things_once(monkeypatch) -> None:
    assert said(f"{SET_UP}; set_up()", None, monkeypatch) == ("", "camelid: a warning\n")


def test_an_unknown_level_is_refused(monkeypatch) -> None:
    out, error = said(SET_UP, "debgu", monkeypatch)
    assert out == ""
    assert error.splitlines()[-1].startswith(
        "camelid.errors.OptionError: CAMELID_LOG: unknown level 'debgu'; did you mean 'debug'?"
    )


def test_the_library_itself_touches_no_handlers(monkeypatch) -> None:
    code = "import camelid, camelid.log, camelid.hub.store"
    assert said(f"{code}; assert not logging.getLogger('camelid').handlers", "debug", monkeypatch) == (
        "",
        "a warning\n",
    )

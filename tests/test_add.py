"""docs/add.md quotes the code as it is, and the verb that it invents works."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path

import pytest

from camelid.cli.flags import run_verb
from camelid.errors import OptionError

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "add.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n# (\S+)\n(.*?)^```", TEXT, re.M | re.S)
QUOTED = [(file, lines) for file, lines in BLOCKS if not file.endswith("hello.py")]
(HELLO,) = (lines for file, lines in BLOCKS if file.endswith("hello.py"))


def code_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_every_block_says_where_it_is_from() -> None:
    assert TEXT.count("```python") == len(BLOCKS)
    assert len({file for file, _ in QUOTED}) >= 7


@pytest.mark.parametrize(("file", "lines"), QUOTED, ids=[file for file, _ in QUOTED])
def test_quotations_are_what_the_code_says(file: str, lines: str) -> None:
    there = set(code_lines((ROOT / file).read_text(encoding="utf-8")))
    assert [line for line in code_lines(lines) if line not in there] == []


@pytest.fixture
def hello(monkeypatch: pytest.MonkeyPatch) -> None:
    """The invented verb, as if its file were there."""
    module = types.ModuleType("camelid.cli.verbs.hello")
    exec(compile(HELLO, "hello.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "camelid.cli.verbs.hello", module)


@pytest.mark.usefixtures("hello")
def test_the_invented_verb_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("hello", ["llama", "--loud"]) == 0
    assert capsys.readouterr().out == "hello llama!\n"
    assert run_verb("hello", ["llama", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"text": "hello llama"}
    assert run_verb("hello", ["--help"]) == 0
    shown = capsys.readouterr().out
    assert "Say hello." in shown
    assert "--loud" in shown
    with pytest.raises(OptionError, match="camelid hello --help"):
        run_verb("hello", ["llama", "--quiet"])

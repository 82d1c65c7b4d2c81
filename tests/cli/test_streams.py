"""Standard streams that are narrow, full, closed or left; every verb ends with one line and one status."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from camelid.cli import main
from camelid.errors import OptionError
from camelid.streams import literal, printable, read_text

FULL = Path("/dev/full")
VERBS = {
    "overview": [],
    "version": ["--version"],
    "help": ["generate", "--help"],
    "table": ["models"],
    "json": ["models", "--json"],
}


def camelid(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([sys.executable, "-m", "camelid", *arguments], timeout=120, check=False, **given)


def in_shell(line: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A shell's line in which `$@` is camelid with arguments."""
    command = ["sh", "-c", line, "sh", sys.executable, "-m", "camelid", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)


def is_one_line(complaint: bytes, *words: str) -> None:
    assert complaint.startswith(b"camelid: ")
    assert complaint.count(b"\n") == 1
    for word in words:
        assert word in complaint.decode()


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason=f"no {FULL}")
@pytest.mark.parametrize("arguments", VERBS.values(), ids=VERBS)
def test_a_full_standard_output_is_one_line(arguments):
    done = in_shell(f'"$@" > {FULL}', *arguments)
    is_one_line(done.stderr, "standard output", "No space left")
    assert done.returncode == 2


def test_a_closed_standard_output_is_one_line():
    done = in_shell('"$@" >&-', "models")
    is_one_line(done.stderr, "standard output", "is closed")
    assert done.returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("arguments", VERBS.values(), ids=VERBS)
def test_a_reader_that_has_left_is_no_error_for_any_verb(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = camelid(*arguments, stdout=writing)
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert done.stderr == b""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_does_not_block_gets_everything(unbuffered):
    """As programs of Node leave them; a pipe holds 64 KB."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    code = "from camelid.streams import *; open_streams(); write('ab' * 100_000)"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen([sys.executable, "-c", code], stdout=writing, env=environment) as running:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read() == b"ab" * 100_000
    assert running.returncode == 0


@pytest.mark.slow
def test_what_cannot_be_said_on_standard_error_stops_nothing(smollm2_path):
    for line in ('"$@" 2>&-', f'"$@" 2>{FULL}'):
        done = in_shell(line, "tokens", str(smollm2_path), "hi", "--json")
        assert json.loads(done.stdout)["ids"] == [6004]
        assert done.returncode == 0
        assert in_shell(line, "tokens", str(smollm2_path / "none"), "hi").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["generate", "next", "tokens", "chat", "infill"])
def test_no_standard_input_is_one_line(verb):
    done = in_shell('"$@" <&-', verb)
    is_one_line(done.stderr)
    assert done.returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_narrow_encoding_escapes_what_it_lacks(smollm2_path, encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for arguments in (["--help"], ["tokens", str(smollm2_path), "日本 €😀"]):
        done = camelid(*arguments, env=environment)
        assert done.returncode == 0, done.stderr
        done.stdout.decode(encoding)
    is_one_line(camelid("é日", env=environment).stderr)


def test_json_keeps_its_meaning_in_a_narrow_encoding(smollm2_path):
    text = "日本 é😀"
    done = camelid("tokens", str(smollm2_path), text, "--json", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    pieces = json.loads(done.stdout.decode("ascii"))["pieces"]
    assert "本" in pieces
    assert " é" in pieces


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes")
def test_a_name_that_is_not_utf8_is_printed_as_its_bytes(smollm2_path, tmp_path):
    source, target, nothing = (tmp_path / f"{name}\udce9.gguf" for name in ("lat", "out", "no"))
    source.symlink_to(smollm2_path)
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = camelid("convert", str(source), str(target), env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == os.fsencode(target) + b"\n"
    assert target.exists()
    told = camelid("convert", str(source), str(target), "--overwrite", "--json", env=environment)
    assert json.loads(told.stdout)["path"] == str(target)
    missing = camelid("info", str(nothing), env=environment)
    is_one_line(missing.stderr, r"no\udce9.gguf")


def test_a_prompt_that_is_not_text_is_one_line(smollm2_path):
    for flags in (["caf\udce9"], ["hi", "--stop", "\udce9"], ["hi", "--regex", "\udce9"]):
        done = camelid("generate", str(smollm2_path), *flags)
        is_one_line(done.stderr, "UTF-8")
        assert done.returncode == 2


def test_escapes_of_strangers_reach_no_message(tmp_path):
    done = camelid("info", str(tmp_path / "x\x1b]52;c;aGk=\x07\x9b31m.gguf"))
    is_one_line(done.stderr, r"x\x1b]52;c;aGk=\x07\x9b31m.gguf")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cleans_up_and_says_so_in_the_status(smollm2_path, tmp_path, number):
    command = [sys.executable, "-m", "camelid", "generate", str(smollm2_path), "Once upon a time"]
    with subprocess.Popen(
        [*command, "--max-tokens", "4000", "--ignore-stop"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        running.stdout.read(1)
        running.send_signal(number)
        _, complaint = running.communicate(timeout=120)
    assert running.returncode == 128 + number
    assert complaint == b""


@pytest.mark.slow
@given(st.text())
def test_printable_text_holds_no_control_but_tab_and_line_feed(text):
    shown = printable(text)
    assert not [c for c in shown if (ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0]
    assert shown == text or any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in text)
    shown.encode()


@given(st.text(st.sampled_from("\\[]/bold#@none= a:cat\x1b\x9d\r\n")), st.text(st.sampled_from("\\[]/a")))
def test_a_literal_shows_as_it_is_wherever_it_stands_in_markup(first, second):
    for form in ("{}{}", "[bold]{}[/] [dim]{}[/]", "{} y[bold]z{}[/]w"):
        markup = form.format(literal(first), literal(second))
        plain = form.replace("[bold]", "").replace("[dim]", "").replace("[/]", "")
        assert Text.from_markup(markup, emoji=False).plain == plain.format(printable(first), printable(second))


def test_there_is_one_way_to_the_terminal():
    """What is printed by another would not be made printable."""
    for path in (Path(__file__).parents[2] / "camelid").rglob("*.py"):
        if path.name in ("console.py", "streams.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "rich.markup", path
            elif isinstance(node, ast.Call):
                said = ast.unparse(node)
                plain = said.startswith("print(") and "file=sys.stderr" not in said and "__version__" not in said
                assert not plain, f"{path}: {said}"
                assert not said.startswith(("Console(", "sys.stdout.write(")), f"{path}: {said}"


def test_a_text_file_keeps_its_line_ends_and_loses_its_mark(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\rthree\n\ufeff".encode())
    assert read_text(path) == "one\r\ntwo\rthree\n\ufeff"
    path.write_bytes("one".encode("utf-16"))
    with pytest.raises(OptionError, match="is UTF-16; convert it"):
        read_text(path)
    path.write_bytes(b"caf\xe9")
    with pytest.raises(OptionError, match="not UTF-8 at byte 3"):
        read_text(path)
    with pytest.raises(OptionError, match="Is a directory"):
        read_text(tmp_path)


def test_the_command_line_can_be_called_again_in_one_process(capsys):
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            main(["models", "llama3.3", "--json"])
        assert end.value.code == 0
        assert "models" in json.loads(capsys.readouterr().out)

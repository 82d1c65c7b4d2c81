"""Forms that ask for more than there is: their own process ends, and nothing else notices."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import camelid
from camelid.chat import forms
from camelid.chat.constrain import MOST_CHARACTERS, Constrainer, Form
from camelid.cli import main
from camelid.errors import OptionError
from tests.tokens.vocabularies import small_bytes

SMALL = Form(regex="[0-9]{3}")


@pytest.fixture
def constrainer():
    tokenizer = small_bytes()
    it = Constrainer(tokenizer, (0,), tokenizer.vocab_size)
    yield it
    it.close()


def children(parent):
    """Process ids of the children of a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            if int(words[1]) == parent and words[0] != "Z":
                found.append(int(folder.name))
    return found


def processes(parent):
    """The process that prepares forms below another one, and the forms' own."""
    found = [child for child in children(parent) if b"form_process" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return max(found), children(max(found))  # the newest: those of other tests may still be there


@pytest.mark.parametrize(
    "form",
    [
        Form(regex="^(x{1000}){1000}$"),
        Form(json_schema={"type": "integer", "multipleOf": 99989}),
        Form(json_schema={"allOf": [{"type": "string", "pattern": f"a{{{n}}}"} for n in range(1, 200)]}),
    ],
    ids=["repetitions", "multiples", "intersections"],
)
def test_what_takes_too_much_is_refused_in_bounded_time(constrainer, form):
    started = time.process_time()
    with contextlib.suppress(OptionError):  # a fast machine may make it in the time that there is
        constraint = constrainer.start(form)
        for _ in range(5):
            constraint.push(int(np.flatnonzero(constraint.mask())[-1]))
            constraint.mask()
    assert time.process_time() - started < 1, "it was computed here"
    assert constrainer.start(SMALL).mask().any()


def test_a_form_that_was_refused_is_not_made_again(constrainer, monkeypatch):
    form = Form(regex="^(x{1000}){1000}$")
    with pytest.raises(OptionError, match=r"^regex: is too complex"):
        constrainer.start(form)
    monkeypatch.setattr(forms.Compiled, "compile", lambda *_: pytest.fail("made again"))
    with pytest.raises(OptionError, match=r"^regex: is too complex"):
        constrainer.start(form)


def test_one_form_is_compiled_once_and_its_texts_go_their_own_ways(constrainer):
    first, second = constrainer.start(SMALL), constrainer.start(Form(regex="[0-9]{3}"))
    assert first._compiled is second._compiled
    ids = np.flatnonzero(first.mask())
    before = second.mask()
    first.push(int(ids[0]))
    copy = first.fork()
    copy.push(int(ids[1]))
    np.testing.assert_array_equal(second.mask(), before)
    copy.push(int(ids[2]))
    assert copy.finished
    assert not first.finished


def test_forms_that_nobody_uses_are_closed(constrainer, monkeypatch):
    monkeypatch.setattr(forms, "MOST_KEPT_BYTES", 3 * forms.OWN_BYTES)
    held = constrainer.start(SMALL)
    for n in range(8):
        constrainer.start(Form(regex=f"x{{{n + 1}}}"))
    assert len(constrainer._process._forms) <= 5
    held.push(int(np.flatnonzero(held.mask())[0]))
    assert held.mask().any()


def test_a_process_that_was_killed_is_started_again(constrainer):
    held = constrainer.start(SMALL)
    process, own = processes(os.getpid())
    assert own
    for each in own:  # one more may just be coming up
        os.kill(each, signal.SIGKILL)
    held.push(int(np.flatnonzero(held.mask())[0]))
    with pytest.raises(OptionError, match="is too complex"):  # nobody can tell who has killed it
        held.mask()
    os.kill(process, signal.SIGKILL)
    assert constrainer.start(SMALL).mask().any()
    assert constrainer.start(Form(regex="[a-z]")).mask().any()


def test_closing_tells_whoever_waits(constrainer):
    constrainer.start(SMALL)
    told = []

    def wait():
        try:
            constrainer.start(Form(json_schema={"type": "integer", "multipleOf": 99989}))
        except camelid.CamelidError as error:
            told.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    constrainer.close()
    thread.join(30)
    assert not thread.is_alive()
    assert told


def test_long_forms_are_refused(constrainer):
    with pytest.raises(OptionError, match=f"^regex: has 1100000 characters, the most are {MOST_CHARACTERS}"):
        constrainer.start(Form(regex="a" * 1_100_000))


def test_the_processes_end_with_the_one_that_started_them(tmp_path):
    code = (
        "import os, sys\n"
        "from tests.tokens.vocabularies import small_bytes\n"
        "from camelid.chat.constrain import Constrainer, Form\n"
        "it = Constrainer(small_bytes(), (0,), small_bytes().vocab_size)\n"
        "text = it.start(Form(regex='[0-9]{3}'))\n"
        "print(os.getpid(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    script = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pid = int(script.stdout.readline())
    process, (own,) = processes(pid)
    script.kill()
    script.communicate()
    end = time.monotonic() + 30
    while any(is_there(number) for number in (process, own)):
        assert time.monotonic() < end, "they are still there"
        time.sleep(0.05)


def is_there(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_tokenizers_of_every_kind_can_be_sent_to_another_process():
    tokenizer = small_bytes()
    sent = pickle.loads(pickle.dumps(tokenizer))
    for text in ("", "Hello  world", "ä€😀 \n"):
        assert sent.encode(text) == tokenizer.encode(text)


def test_a_slow_form_is_known_as_such(constrainer, monkeypatch):
    constraint = constrainer.start(SMALL)
    assert not constraint.slow
    constraint._compiled.slow = True
    assert constraint.fork().slow


@pytest.mark.slow
def test_the_command_line_refuses_in_one_line(tmp_path, smollm2_path, capsys):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 100000007}}}))
    asked = ["generate", str(smollm2_path), "Hello", "--context", "64", "--json-schema", str(schema)]
    with pytest.raises(SystemExit) as ended:
        main(asked)
    assert ended.value.code == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "json_schema.properties.a.multipleOf: is not supported beyond 100000" in seen.err.replace("\n", " ")

"""Ctrl-C ends any verb with status 130 and leaves nothing half-written; a closed pipe is no error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from camelid.weights.open import open_weights


def camelid(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "camelid", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@pytest.mark.slow
def test_ctrl_c_while_writing(smollm2_path):
    running = camelid("generate", str(smollm2_path), "Once upon a time", "--max-tokens", "2000", "--ignore-stop")
    assert running.stdout is not None
    assert running.stdout.read(1)
    running.send_signal(signal.SIGINT)
    _, complaint = running.communicate(timeout=120)
    assert running.returncode == 130
    assert b"Traceback" not in complaint


@pytest.mark.slow
def test_an_interrupt_that_is_ignored_behind_a_scripts_ampersand_stays_ignored(smollm2_path):
    arguments = ("generate", str(smollm2_path), "Once upon a time", "--max-tokens", "40", "--ignore-stop")
    command = ["sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", sys.executable, "-m", "camelid", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.read(1)
        running.send_signal(signal.SIGINT)
        running.send_signal(signal.SIGHUP)
        text, complaint = running.communicate(timeout=120)
    assert running.returncode == 0
    assert text.endswith(b"\n")
    assert complaint == b""


def test_children_of_the_suite_can_be_interrupted_however_it_is_started():
    """From a script's `&` or under nohup, where these signals are ignored and a child would inherit that."""
    code = (
        "import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); import tests.conftest\n"
        "said = 'import signal; print(*(int(signal.getsignal(n)) if n == 1 else signal.getsignal(n).__name__ "
        "for n in (1, 2)))'\n"
        "print(subprocess.run([sys.executable, '-c', said], capture_output=True, text=True).stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["0", "default_int_handler"]


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.5, 1.5])
def test_ctrl_c_while_converting_leaves_nothing(smollm2_path, tmp_path, delay):
    running = camelid("convert", str(smollm2_path), str(tmp_path / "out"), "--to", "hf", "--quant", "F32")
    time.sleep(delay)
    running.send_signal(signal.SIGINT)
    _, complaint = running.communicate(timeout=120)
    if running.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert b"Traceback" not in complaint
    assert running.returncode in (130, -signal.SIGINT)  # before Python's own start is over, the signal ends it plainly
    for left in tmp_path.iterdir():  # the signal came between the last byte and the end
        assert left.name == "out"
        assert all(tensor.array().size for tensor in open_weights(left).tensors.values())


def test_a_reader_that_leaves_is_no_error(smollm2_path):
    with camelid("generate", str(smollm2_path), "Once upon a time", "--max-tokens", "200", "--ignore-stop") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.read(1)
        running.stdout.close()
        complaint = running.stderr.read()
    assert running.returncode == 0
    assert complaint == b""


def test_a_log_level_that_is_none_is_told(smollm2_path):
    environment = {**os.environ, "CAMELID_LOG": "loud"}
    running = camelid("info", str(smollm2_path), env=environment)
    _, complaint = running.communicate(timeout=120)
    assert running.returncode == 2
    assert b"loud" in complaint

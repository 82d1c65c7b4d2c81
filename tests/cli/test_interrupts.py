"""Ctrl-C ends any verb with status 130 and leaves nothing half-written; a closed pipe is no error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest


def camelid(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "camelid", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_ctrl_c_while_writing(smollm2_path):
    running = camelid("generate", str(smollm2_path), "Once upon a time", "--max-tokens", "2000", "--ignore-stop")
    assert running.stdout is not None
    assert running.stdout.read(1)
    running.send_signal(signal.SIGINT)
    _, complaint = running.communicate(timeout=30)
    assert running.returncode == 130
    assert b"Traceback" not in complaint


@pytest.mark.parametrize("delay", [0.5, 1.5])
def test_ctrl_c_while_converting_leaves_nothing(smollm2_path, tmp_path, delay):
    running = camelid("convert", str(smollm2_path), str(tmp_path / "out"), "--to", "hf", "--quant", "F32")
    time.sleep(delay)
    running.send_signal(signal.SIGINT)
    _, complaint = running.communicate(timeout=60)
    if running.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert b"Traceback" not in complaint
    assert running.returncode in (130, -signal.SIGINT)  # before Python's own start is over, the signal ends it plainly
    assert list(tmp_path.iterdir()) == []


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
    _, complaint = running.communicate(timeout=30)
    assert running.returncode == 2
    assert b"loud" in complaint

"""`camelid chat` in a terminal of its own (a pseudo-terminal): what it says when something cannot be done."""

from __future__ import annotations

import os
import re
import select
import sys
import time

import pytest

pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
PROMPT = "› "


class Talk:
    """A child in a terminal, spoken to as a person would: each message after the prompt has come."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.said = ""
        self.child, self.terminal = pty.fork()
        if not self.child:
            os.environ.update(environment, TERM="dumb", COLUMNS="200")
            os.execv(sys.executable, [sys.executable, "-m", "camelid", *arguments])

    def until(self, pattern: str, seconds: float = 120) -> str:
        """What it says up to a match; that part is used up."""
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.said)) is None:
            assert time.monotonic() < end, f"{pattern!r} did not come: {self.said}"
            if select.select([self.terminal], [], [], 1)[0]:
                data = os.read(self.terminal, 65536).decode(errors="replace")
                self.said += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", data)
        told, self.said = self.said[: found.end()], self.said[found.end() :]
        return told

    def say(self, message: str) -> None:
        self.until(PROMPT)
        os.write(self.terminal, message.encode() + b"\r")

    def status(self) -> int:
        while True:  # what it still says must be read, or it waits
            try:
                if not os.read(self.terminal, 65536):
                    break
            except OSError:
                break
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])


@pytest.mark.slow
def test_a_full_context_names_what_can_be_done_in_the_conversation(smollm2_path):
    talk = Talk("chat", str(smollm2_path), "--temperature", "0", "--context", "60", CAMELID_HOME="/proc/nowhere")
    assert "/proc/nowhere/chat_history: cannot be written" in talk.until("Enter sends")
    talk.say("Tell me a story of a dog.")
    talk.until("tokens read")
    talk.say("And then?")
    told = " ".join(talk.until("keeps them before").split())
    assert "the context is 60" in told
    assert "/undo forgets the last turn, /reset all of them" in told
    assert "--" not in told
    talk.say("/undo")
    talk.until("0 turns left")
    talk.say("word " * 80)
    talk.until("start again with a larger --context")
    talk.say("/exit")
    assert talk.status() == 0


@pytest.mark.slow
def test_a_history_that_is_a_folder_stops_nothing(smollm2_path, tmp_path):
    (tmp_path / "chat_history").mkdir()
    talk = Talk("chat", str(smollm2_path), CAMELID_HOME=str(tmp_path))
    assert "chat_history: cannot be written" in talk.until("Enter sends")
    talk.say("/help")
    talk.until("/regenerate")
    talk.say("/exit")
    assert talk.status() == 0

"""The server is killed in the middle of an answer, and started again: conversations are as they were."""

from __future__ import annotations

import itertools
import json
import time

import httpx2
import pytest

from tests.serve.test_serve_verb import read_url, start

ENDLESS = {"temperature": 1.5, "ignore_stop": True, "seed": 1}
SECONDS = 0.5  # of an answer may be lost


@pytest.mark.slow
def test_a_conversation_outlives_a_kill(tmp_path, smollm2_path):
    came: list[tuple[float, str]] = []  # when, and the note that tells how much
    with start(tmp_path, smollm2_path, "--port", 0, "--context", 1024, "--threads", 1) as process:
        api = f"{read_url(process)[0]}/api/conversations"
        id = httpx2.post(api, json={"title": "Kept", "params": ENDLESS}).json()["id"]
        with httpx2.stream("POST", f"{api}/{id}/messages", json={"content": "Tell me a story."}) as response:
            for line in response.iter_lines():
                event = json.loads(line.removeprefix("data: ")) if line else {}
                if event.get("type") == "blocks":
                    came.append((time.monotonic(), event["note"]))
                if len(came) > 1 and came[-1][0] - came[0][0] > 3:
                    break
            process.kill()
            killed = time.monotonic()
    times = [at for at, _ in came]
    pause = max(later - at for at, later in itertools.pairwise(times))  # of a machine that does other things too
    n_before = max(n_tokens(note) for at, note in came if at < killed - SECONDS - pause)
    with start(tmp_path, smollm2_path, "--port", 0, "--context", 1024, "--threads", 1) as process:
        url = read_url(process)[0]
        kept = httpx2.get(f"{url}/api/conversations/{id}").json()
        question, answer = kept["messages"]
        assert (kept["title"], kept["path"]) == ("Kept", [question["id"], answer["id"]])
        assert (question["content"], answer["state"]) == ("Tell me a story.", "stopped")
        assert answer["usage"]["completion_tokens"] >= n_before > 0
        again = f"{url}/api/conversations/{id}/messages/{answer['id']}/regenerate"
        with httpx2.stream("POST", again) as response:
            assert '"type":"start"' in next(response.iter_lines())


def n_tokens(note: str) -> int:
    return int(note.split()[0].replace(",", "")) if note else 0

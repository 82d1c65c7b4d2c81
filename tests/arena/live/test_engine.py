"""Models of camelid's own engine in a battle, and their answers written again."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text

from camelid.arena.app import arena_app
from camelid.arena.config import ArenaConfig, ArenaModel
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions
from camelid.serve.worker import Worker
from tests.arena.live.conftest import PACE, ask, begin, vote
from tests.serve.conftest import random_llama

pytestmark = pytest.mark.slow


def test_a_battle_is_written_again_bit_for_bit(smollm2_path, tmp_path):
    """Side by side with itself and a neighbour in one batch, and then alone in another process."""
    import camelid
    from camelid.engine.options import EngineOptions

    sampling = {"temperature": 0.9, "max_tokens": 24}
    model = ArenaModel(name="smol", model=str(smollm2_path), sampling=sampling, backend="cpu")
    engine = EngineOptions(threads=1, context=512)
    config = ArenaConfig(models=(model, model.with_(name="tiny", weight=0)), pace=PACE, engine=engine)
    llama = camelid.load(smollm2_path, backend="cpu", options=engine)
    models = Models([Worker("smol", llama), Worker("tiny", random_llama(smollm2_path))])
    data = tmp_path / "arena.db"
    app = arena_app(config, models, ServeOptions(data=data, shutdown_seconds=5))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        id = begin(client)
        ask(client, id, "Tell me about llamas.")
        assert vote(client, ask(client, id, "And alpacas?")[-1]["ticket"]).status_code == 200
    path = tmp_path / "arena.toml"
    path.write_text(
        f"[engine]\nthreads = 1\ncontext = 512\n[[models]]\nname = 'smol'\nmodel = '{smollm2_path}'\n"
        "backend = 'cpu'\nsampling = { temperature = 0.1 }\n"
    )
    command = [sys.executable, "-m", "camelid", "arena", "replay", id, "--config", str(path), "--data", str(data)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)["answers"]
    assert [(each["turn"], each["side"], each["outcome"]) for each in answers] == [
        (turn, side, "equal") for turn in (1, 2) for side in "ab"
    ]
    database = create_engine(f"sqlite:///{data}")
    with database.begin() as connection:
        change = "UPDATE arena_answers SET text = text || '!' WHERE number = 2 AND side = 'b'"
        connection.execute(text(change))
    database.dispose()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 2
    assert "turn 2, B, smol: differs" in done.stderr

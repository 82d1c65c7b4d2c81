"""The log in FastChat's form."""

from __future__ import annotations

import json

from camelid.arena.config import ArenaConfig
from tests.arena.live.conftest import ANSWER, MODELS, PACE, Arena, ready, vote


def test_a_line_a_vote_with_hidden_names_empty(tmp_path):
    config = ArenaConfig(models=MODELS, pace=PACE, log=tmp_path / "logs")
    with Arena(f"sqlite:///{tmp_path / 'arena.db'}", config).client() as client:
        for choice in ("A", "BOTH_BAD"):
            id, ticket = ready(client)
            vote(client, ticket, choice)
    (file,) = (tmp_path / "logs").iterdir()
    assert file.name.endswith("-conv.json")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["type"] for line in lines] == ["leftvote", "bothbad_vote"]
    assert lines[1]["models"] == ["", ""]
    assert {state["model_name"] for state in lines[1]["states"]} == {model.name for model in MODELS}
    assert [state["conv_id"] for state in lines[1]["states"]] == [id, id]
    assert lines[1]["states"][0]["messages"] == [["user", "Where do llamas live?"], ["assistant", ANSWER]]

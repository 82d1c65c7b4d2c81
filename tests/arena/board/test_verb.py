"""`camelid arena board LOG`: a published log's board, with its texts."""

from __future__ import annotations

import json

import httpx2

from camelid.arena.board.alone import board_app
from camelid.arena.board.routes import board_routers
from camelid.cli.verbs.arena.board import log_source
from camelid.serve.options import ServeOptions
from tests.arena.board.conftest import serving


def a_battle(number: int, winner: str) -> dict[str, object]:
    """As LMSYS publishes them, with conversations."""
    said = [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": f"answer {number}"}]
    names = {"question_id": f"q{number}", "model_a": "x", "model_b": f"y{number % 2}", "winner": winner}
    return {**names, "judge": "arena_user_7", "tstamp": 1.69e9 + number, "conversation_a": said, "conversation_b": said}


def test_a_published_log(tmp_path):
    log, config = tmp_path / "battles.json", tmp_path / "arena.toml"
    winners = ["model_a", "model_b", "tie", "tie (bothbad)", "model_b", "model_a"]
    log.write_text("\n".join(json.dumps(a_battle(at, winner)) for at, winner in enumerate(winners)) + "\n")
    config.write_text('[[models]]\nname = "x"\nurl = "http://127.0.0.1:9/v1"\norganisation = "Acme"\nlicence = "MIT"\n')
    source = log_source([log], config)
    assert len(source.battles) == 6
    assert source.facts()["x"].organisation == "Acme"
    options = ServeOptions(port=0, shutdown_seconds=2)
    with serving(board_app(board_routers(source), options), options) as url, httpx2.Client(base_url=url) as client:
        html = client.get("/leaderboard").text
        assert "Total #votes: <strong>6</strong>" in html
        assert "Acme" in html
        votes = client.get("/leaderboard/votes?model_a=x").text
        assert votes.count('aria-label="Battle ') == 6
        battle = client.get(votes.partition('<th scope="row"><a href="')[2].partition('"')[0]).text
        assert battle.count("answer 5") == 2
        assert "arena_user" not in html + votes + battle

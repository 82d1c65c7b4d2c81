"""Battles from question to vote: what can be done when, and what cannot."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from camelid.arena.board.live import LiveSource
from camelid.arena.config import ArenaConfig, LimitOptions
from camelid.serve.storage.database import Database
from tests.arena.live.conftest import ANSWER, MODELS, PACE, Arena, ask, begin, events, ready, rows, vote


def test_a_battle_from_question_to_names(client, arena):
    id = begin(client)
    told = ask(client, id)
    assert [told[0]["type"], *(each["type"] for each in told[-3:])] == ["start", "end", "end", "ready"]
    before = client.get(f"/arena/api/battles/{id}").json()
    assert before["models"] is None
    assert before["vote"] is None
    assert before["ticket"] == told[-1]["ticket"]
    assert before["turns"][0]["a"] == {**before["turns"][0]["b"]}
    assert before["turns"][0]["a"]["text"] == ANSWER
    named = vote(client, told[-1]["ticket"], "B").json()["models"]
    assert {named["a"]["name"], named["b"]["name"]} == {model.name for model in MODELS}
    after = client.get(f"/arena/api/battles/{id}").json()
    assert (after["vote"], after["models"], after["ticket"]) == ("B", named, None)


def test_a_vote_counts_once(client, database):
    id, ticket = ready(client)
    first, again = vote(client, ticket), vote(client, ticket)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert vote(client, ticket, "TIE").status_code == 409
    assert rows(database, "SELECT battle, winner FROM arena_votes") == [(id, 0)]


def test_tickets_of_others_and_none(client, arena):
    _, ticket = ready(client)
    cookies = dict(client.cookies)
    client.cookies.clear()
    assert vote(client, ticket).status_code == 404  # nobody
    ready(client)  # somebody else
    assert vote(client, ticket).status_code == 400
    client.cookies.clear()
    client.cookies.update(cookies)
    bent = ticket[:-1] + ("0" if ticket[-1] != "0" else "1")
    for wrong in ("", "x", bent, ticket.replace(".1.", ".2.", 1)):
        assert vote(client, wrong).status_code == 400
    assert vote(client, ticket).status_code == 200


def test_a_battle_is_nobody_elses(client):
    id, _ = ready(client)
    client.cookies.clear()
    begin(client)
    for method, path in (("GET", ""), ("POST", "/regenerate"), ("POST", "/share")):
        assert client.request(method, f"/arena/api/battles/{id}{path}").status_code == 404
    assert client.delete("/arena/api/me").json() == {"deleted": 1}


def test_turns_go_on_and_old_tickets_do_not(client, arena):
    id, first = ready(client)
    second = ask(client, id, "And where do they sleep?")[-1]["ticket"]
    assert vote(client, first).status_code == 409
    again = events(client.post(f"/arena/api/battles/{id}/regenerate"))[-1]["ticket"]
    assert vote(client, second).status_code == 409
    for fake in arena.fakes.values():
        assert [message.role for message in fake.asked[-1]] == ["user", "assistant", "user"]
        assert fake.asked[-1] == fake.asked[-2]
    assert vote(client, again).status_code == 200
    assert client.post(f"/arena/api/battles/{id}/messages", json={"text": "More"}).status_code == 409
    assert len(client.get(f"/arena/api/battles/{id}").json()["turns"]) == 2


@pytest.mark.parametrize("problem", ["upstream 500: vicuna-slow is down", "answers nothing"])
def test_a_battle_that_failed_takes_no_vote(client, arena, problem, database):
    fake = arena.fakes["vicuna-slow"]
    if problem == "answers nothing":
        fake.text = " \n"
    else:
        fake.fails = problem
    id = begin(client)
    told = ask(client, id)
    assert told[-1]["type"] == "failed"
    assert "vicuna" not in str(told)
    battle = client.get(f"/arena/api/battles/{id}").json()
    assert battle["ticket"] is None
    assert battle["turns"][0]["a"]["state"] == "failed"
    assert problem in rows(database, "SELECT reason FROM arena_turns")[0][0].replace("answered", "answers")
    fake.fails, fake.text = None, ANSWER
    assert vote(client, events(client.post(f"/arena/api/battles/{id}/regenerate"))[-1]["ticket"]).status_code == 200


def test_a_model_that_hangs(database):
    limits = LimitOptions(silent_seconds=0.1, first_seconds=0.1)
    arena = Arena(database, ArenaConfig(models=MODELS, pace=PACE, limits=limits))
    arena.fakes["vicuna-slow"].hangs = True
    with arena.client() as client:
        assert ask(client, begin(client))[-1]["type"] == "failed"
    assert "silent" in rows(database, "SELECT reason FROM arena_turns")[0][0]


def test_side_by_side_is_kept_apart(client, arena, database):
    names = ["vicuna-slow", "vicuna-slow"]
    id = begin(client, mode="side-by-side", models=names)
    ticket = ask(client, id)[-1]["ticket"]
    assert client.get(f"/arena/api/battles/{id}").json()["models"]["a"]["name"] == "vicuna-slow"
    assert vote(client, ticket).status_code == 200
    _, rated = ready(client)
    vote(client, rated)
    assert rows(database, "SELECT anony FROM arena_votes ORDER BY number") == [(0,), (1,)]
    source = LiveSource()
    held = Database(database)
    held.open()
    source.bind(held)
    assert len(source.since(0)[0]) == 1
    source.close()
    held.dispose()
    for body in ({"mode": "side-by-side"}, {"mode": "side-by-side", "models": ["x", "y"]}, {"models": names}):
        assert client.post("/arena/api/battles", json=body).status_code == 400


def test_a_restart_in_the_middle(arena, database):
    with arena.client() as client:
        id, ticket = ready(client)
        cookies = dict(client.cookies)
    with arena.client() as client:
        client.cookies.update(cookies)
        assert client.get(f"/arena/api/battles/{id}").json()["ticket"] == ticket
        assert vote(client, ticket).status_code == 200
    assert rows(database, "SELECT count(*) FROM arena_votes") == [(1,)]


def test_limits_of_a_person(database):
    limits = LimitOptions(person_hour=2, turns=3)
    arena = Arena(database, ArenaConfig(models=MODELS, pace=PACE, limits=limits))
    with arena.client() as client:
        id, _ = ready(client)
        ask(client, id)
        refused = client.post(f"/arena/api/battles/{id}/messages", json={"text": "More"})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) <= 3600
        assert len(client.get(f"/arena/api/battles/{id}").json()["turns"]) == 2
        client.cookies.clear()
        ready(client)
    assert rows(database, "SELECT n FROM arena_uses WHERE name LIKE 'person%' AND period LIKE 'h%' ORDER BY n") == [
        (1,),
        (2,),
    ]


def test_a_model_at_its_limit_is_not_drawn(database):
    models = (MODELS[0].with_(daily=1), MODELS[1], MODELS[1].with_(name="third"))
    arena = Arena(database, ArenaConfig(models=models, pace=PACE), seed=1)
    with arena.client() as client:
        for _ in range(12):
            ready(client)
    names = [name for pair in rows(database, "SELECT model_a, model_b FROM arena_battles") for name in pair]
    assert names.count("guanaco-quick") <= 1


def test_forgetting(client, database):
    id, ticket = ready(client)
    other, _ = ready(client)
    vote(client, ticket)
    assert client.delete("/arena/api/me").json() == {"deleted": 2}
    assert client.get(f"/arena/api/battles/{id}").status_code == 404
    assert rows(database, "SELECT id, person, address FROM arena_battles") == [(id, None, None)]
    assert set(rows(database, "SELECT text FROM arena_answers")) == {(None,)}
    assert rows(database, "SELECT question FROM arena_turns") == [(None,)]
    assert rows(database, "SELECT winner, person, prompt FROM arena_votes") == [(0, None, None)]
    assert other


def test_nobody_reaches_what_tells_which_model_is_busy(client, monkeypatch):
    for path in ("/metrics", "/v1/models", "/models", "/api/models", "/docs"):
        assert client.get(path).status_code == 403, path
    assert client.get("/api/conversations").json() == []
    for path in ("/battle", "/side-by-side", "/about", "/leaderboard", "/health"):
        assert client.get(path).status_code == 200, path


def test_operators_reach_everything(arena, monkeypatch):
    monkeypatch.setenv("CAMELID_ARENA_KEY", "open sesame")
    with arena.client() as client:
        assert client.get("/metrics").status_code == 403
        assert client.get("/metrics", headers={"Authorization": "Bearer open sesame"}).status_code == 200


def test_sharing(client):
    id, ticket = ready(client)
    assert client.get(f"/arena/share/{id}").status_code == 404
    address = client.post(f"/arena/api/battles/{id}/share").json()["address"]
    names = [model.name for model in MODELS]
    page = client.get(address).text
    assert "Andes" in page
    assert not any(name in page for name in names)
    vote(client, ticket)
    assert all(name in client.get(address).text for name in names)


def test_moderation(database):
    async def moderate(judged):
        return "bomb" not in judged.text

    arena = Arena(database, moderation=moderate)
    with arena.client() as client:
        id = begin(client)
        refused = client.post(f"/arena/api/battles/{id}/messages", json={"text": "a bomb"})
        assert refused.status_code == 400
        assert ask(client, id)[-1]["type"] == "ready"
        for fake in arena.fakes.values():
            fake.text = "Take a bomb."
        assert ask(client, id, "And now?")[-1]["type"] == "failed"


def test_answers_that_name_their_maker_are_marked(client, arena, database):
    arena.fakes["vicuna-slow"].text = "I am Vicuna, by Pampas & Co."
    _, ticket = ready(client)
    vote(client, ticket)
    assert rows(database, "SELECT model FROM arena_answers WHERE names_maker") == [("vicuna-slow",)]
    assert rows(database, "SELECT names_maker FROM arena_votes") == [(1,)]
    assert "lists" in str(rows(database, "SELECT style FROM arena_votes")[0][0])


def test_questions_that_cannot_be_asked(client: TestClient):
    id = begin(client)
    for text in ("", "  \n", "x" * 30_001):
        assert client.post(f"/arena/api/battles/{id}/messages", json={"text": text}).status_code == 400
    assert client.post(f"/arena/api/battles/{id}/regenerate").status_code == 409

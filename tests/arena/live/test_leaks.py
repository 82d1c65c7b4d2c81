"""What a browser receives before a vote: nothing that tells who answers."""

from __future__ import annotations

from camelid.arena.live.contenders import Record
from tests.arena.live.conftest import ANSWER, MODELS, Arena, begin, events, vote

BATTLES = 12
SECRETS = sorted(
    {
        text.casefold()
        for model in MODELS
        for text in (model.name, model.organisation, model.licence, model.link, model.cutoff, model.url)
        if len(text) > 2
    }
    | {"4321", *(name for name in vars(Record()) if name != "seconds")}  # counts that fakes give, and columns
)


def received(response) -> str:
    return f"{response.status_code} {response.headers} {response.text}".casefold()


def test_no_byte_before_the_vote(arena: Arena):
    arena.fakes["vicuna-slow"].pause = 0.001
    found = []
    with arena.client() as client:
        for battle in range(BATTLES):
            arena.fakes["guanaco-quick"].fails = "guanaco-quick at http://a/v1: 500" if battle % 4 == 3 else None
            begun = client.post("/arena/api/battles", json={})
            id = begun.json()["id"]
            asked = client.post(f"/arena/api/battles/{id}/messages", json={"text": "Where do llamas live?"})
            read = client.get(f"/arena/api/battles/{id}")
            again = client.post(f"/arena/api/battles/{id}/regenerate")
            early = vote(client, "0" * 32)
            for response in (begun, asked, read, again, early):
                found += [secret for secret in SECRETS if secret in received(response)]
            last = events(again)[-1]
            if last["type"] == "ready":
                named = received(vote(client, last["ticket"]))
                assert MODELS[0].name in named
                assert MODELS[1].name in named
    assert found == []


def test_both_sides_are_told_alike(arena: Arena):
    """Events of both sides alternate, end together, and have the same keys."""
    arena.fakes["vicuna-slow"].text = ANSWER * 3
    with arena.client() as client:
        id = begin(client)
        told = events(client.post(f"/arena/api/battles/{id}/messages", json={"text": "Hello"}))
    deltas = [each for each in told if each["type"] == "delta"]
    assert [each["side"] for each in deltas] == ["a", "b"] * (len(deltas) // 2)
    assert {tuple(each) for each in deltas} == {("type", "side", "blocks")}
    assert [each["type"] for each in told[1 + len(deltas) :]] == ["end", "end", "ready"]

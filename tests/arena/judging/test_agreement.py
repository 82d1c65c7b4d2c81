"""Agreement by hand, against evalica's alpha, and by a count of all pairs of votes."""

from __future__ import annotations

import itertools
import json

import evalica
import numpy as np
import pandas as pd
import pytest

from camelid.arena.judging import agreement
from camelid.arena.judging.agreement import blind_votes
from camelid.arena.logs.vote import Vote
from camelid.cli import main
from camelid.errors import OptionError

WINNERS = ("model_a", "model_b", "tie")


def drawn(seed: int, units: int, most: int) -> list[Vote]:
    rng = np.random.default_rng(seed)
    votes = []
    for unit in range(units):
        for _ in range(rng.integers(1, most + 1)):
            winner = WINNERS[rng.choice(3, p=np.roll([0.6, 0.25, 0.15], unit % 3))]
            votes.append(Vote("x", "y", winner, prompt=str(unit)))
    return votes


@pytest.mark.parametrize("seed", range(3))
def test_alpha_is_evalicas(seed):
    votes = drawn(seed, 40, 5)
    of_unit: dict[str, list[str]] = {}
    for vote in votes:
        of_unit.setdefault(vote.prompt, []).append(vote.winner)
    rows = [own for own in of_unit.values() if len(own) > 1]
    frame = pd.DataFrame(list(itertools.zip_longest(*rows)))
    assert agreement(votes, resamples=10).alpha.value == pytest.approx(evalica.alpha(frame).alpha, abs=1e-12)


@pytest.mark.parametrize("ties", [True, False])
def test_all_pairs_of_votes_are_counted(ties):
    people, judge = drawn(5, 20, 4), drawn(6, 20, 1)
    judge = [
        Vote("y", "x", {"model_a": "model_b", "model_b": "model_a"}.get(v.winner, v.winner), prompt=v.prompt)
        for v in judge
    ]  # the same votes, sides swapped
    turned = {"model_a": "model_b", "model_b": "model_a"}
    pairs = [
        (v.winner, turned.get(w.winner, w.winner))
        for v in people
        for w in judge
        if v.prompt == w.prompt and (ties or "tie" not in (v.winner, w.winner))
    ]
    found = agreement(people, judge, ties, resamples=50)
    equal = np.mean([a == b for a, b in pairs])
    chance = sum(np.mean([a == c for a, _ in pairs]) * np.mean([b == c for _, b in pairs]) for c in WINNERS)
    assert found.pairs == len(pairs)
    assert found.per_vote.value == pytest.approx(equal)
    assert found.kappa.value == pytest.approx((equal - chance) / (1 - chance))
    assert found.per_vote.low <= found.per_vote.value <= found.per_vote.high


def test_among_themselves_by_hand():
    votes = [Vote("x", "y", w, prompt="1") for w in ("model_a", "model_a", "model_b")]
    votes += [Vote("x", "y", "tie", prompt="2")] * 2
    found = agreement(votes, resamples=10)
    assert (found.units, found.pairs) == (2, 4)
    assert found.per_vote.value == pytest.approx(2 / 4)
    assert found.per_pair.value == pytest.approx((1 / 3 + 1) / 2)


def test_nothing_in_common_is_said():
    with pytest.raises(OptionError, match="share some"):
        agreement([Vote("x", "y", "tie", prompt="1")], [Vote("x", "z", "tie", prompt="1")])
    with pytest.raises(OptionError, match="no question"):
        agreement([Vote("x", "y", "tie")])


def test_the_verb_takes_the_votes_that_count(tmp_path, capsys, caplog):
    def log(name, *rows):
        path = tmp_path / name
        path.write_text(
            "".join(
                json.dumps({"model_a": "x", "model_b": "y", "question_id": str(k), **row}) + "\n" for k, row in rows
            )
        )
        return path

    asked = [{"role": "user", "content": "Why?"}]
    a_wins = {"winner": "model_a", "conversation_a": asked}
    people = log("people.jsonl", (1, a_wins), (2, {**a_wins, "anony": False}), (3, {**a_wins, "state": "refused"}))
    judge = log("judge.jsonl", (1, {**a_wins, "winner": "model_b"}))
    assert len(blind_votes(people)) == 1
    assert "the names were shown" in caplog.text
    assert "refused" in caplog.text
    with pytest.raises(SystemExit) as end:
        main(["arena", "agree", str(people), str(judge), "--resamples", "10", "--json"])
    assert end.value.code == 0
    found = json.loads(capsys.readouterr().out)["agreement"]
    assert [(each["setup"], each["units"], each["pairs"], each["per_vote"]["value"]) for each in found] == [
        ("S1", 1, 1, 0.0),
        ("S2", 1, 1, 0.0),
    ]

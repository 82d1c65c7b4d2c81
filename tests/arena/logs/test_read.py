"""Votes in every published form become the same columns; what is damaged is named by its line."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.arena.battles import BOTH_BAD, TIE, UNKNOWN, A, B
from camelid.arena.logs import open_battles, read_battles, read_texts, save_battles
from camelid.arena.logs.fastchat import FastChatLog, vote_row
from camelid.arena.logs.vote import BattleText, Vote, gather, votes_of
from camelid.errors import FormatError, MissingError, OptionError

TALK_A = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
TALK_B = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "**good day**"}]
LMSYS = {
    "question_id": "q1",
    "model_a": "llama-13b",
    "model_b": "vicuna",
    "winner": "tie (bothbad)",
    "judge": "arena_user_9",
    "conversation_a": TALK_A,
    "conversation_b": TALK_B,
    "turn": 1,
    "anony": True,
    "language": "English",
    "tstamp": 1682351591.5,
}


def written(path: Path, rows: list[dict], array: bool = False) -> Path:
    path.write_text(json.dumps(rows) if array else "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["b.json", "b.jsonl", "b.jsonl.gz", "b.parquet"])
def test_lmsys_battles_in_any_container(tmp_path, name):
    rows = [LMSYS, {**LMSYS, "question_id": "q2", "winner": "model_a", "judge": "arena_user_1", "language": "Czech"}]
    path = tmp_path / name
    if name.endswith("parquet"):
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith("gz"):
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    else:
        written(path, rows, array=name == "b.json")
    battles = read_battles([path])
    assert battles.models == ("llama-13b", "vicuna")
    assert battles.winner.tolist() == [BOTH_BAD, A]
    assert [battles.voters[code] for code in battles.voter] == ["arena_user_9", "arena_user_1"]
    assert [battles.languages[code] for code in battles.language] == ["English", "Czech"]
    assert battles.time[0] == 1682351591.5
    assert battles.prompt.tolist() == [0, 0]
    assert [(each.id, each.conversation_b[1]["content"]) for each in read_texts([path])] == [
        ("q1", "**good day**"),
        ("q2", "**good day**"),
    ]


def test_the_set_of_140_000(tmp_path):
    parts = [{"role": "user", "content": [{"type": "text", "text": "hello", "image": None}]}]
    parts += [{"role": "assistant", "content": [{"type": "text", "text": "hi"}]}]
    counts = {"sum_assistant_a_tokens": 7, "sum_assistant_b_tokens": 9, "bold_count_a": {"**": 1, "__": 2}}
    counts |= {"bold_count_b": {"**": 0, "__": 0}, "header_count_a": {"h1": 1}, "header_count_b": {"h1": 0}}
    row = {"id": "x", "model_a": "m", "model_b": "n", "winner": "both_bad", "conversation_a": parts}
    row |= {"conversation_b": parts, "conv_metadata": counts, "timestamp": "2025-06-01T12:00:00+00:00"}
    battles = read_battles([written(tmp_path / "b.jsonl", [row])])
    assert battles.winner.tolist() == [BOTH_BAD]
    assert battles.time.tolist() == [1748779200.0]
    assert battles.numbers["tokens"].tolist() == [[7.0, 9.0]]
    assert battles.numbers["bold"].tolist() == [[3.0, 0.0]]
    assert battles.numbers["headers"].tolist() == [[1.0, 0.0]]
    assert "lists" not in battles.numbers
    (text,) = read_texts([tmp_path / "b.jsonl"])
    assert text.conversation_a == ({"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"})


def test_the_set_of_55_000(tmp_path):
    path = tmp_path / "train.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        names = ["id", "model_a", "model_b", "prompt", "response_a", "response_b"]
        writer = csv.writer(file)
        writer.writerow([*names, "winner_model_a", "winner_model_b", "winner_tie"])
        writer.writerow([5, "m", "n", '["one","two"]', '["a",null]', '["c","d"]', 0, 1, 0])
        writer.writerow([6, "n", "m", '["one"]', '["a"]', '["c"]', 0, 0, 1])
    battles = read_battles([path])
    assert battles.winner.tolist() == [B, TIE]
    assert battles.turns.tolist() == [2, 1]
    first, _ = read_texts([path])
    assert [each["content"] for each in first.conversation_a] == ["one", "a", "two", ""]
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow([7, "n", "m", '["one"]', '["a"]', '["c"]', 1, 0, 1])
    with pytest.raises(FormatError, match=r"train\.csv:4: 2 winners"):
        read_battles([path])


def vote(number: int, winner: str = "model_a", anony: bool = True, voter: str = "10.0.0.1") -> tuple[Vote, BattleText]:
    battle = f"c{number}"
    return (
        Vote("llama", "vicuna", winner, battle, 1700000000.25 + number, voter, "hello", turns=1, anony=anony),
        BattleText(battle, "llama", "vicuna", tuple(TALK_A), tuple(TALK_B)),
    )


def test_fastchats_log_is_written_and_read(tmp_path):
    log = FastChatLog(tmp_path / "logs")
    kinds = {"leftvote": "model_a", "rightvote": "model_b", "tievote": "tie", "bothbad_vote": "tie (bothbad)"}
    for number, (kind, winner) in enumerate(kinds.items()):
        given_vote, text = vote(number, winner)
        path = log.append(vote_row(kind, given_vote, text), given_vote.time or 0)
        log.append({"type": "chat", "model": "llama", "state": {}}, given_vote.time or 0)
    assert path.name == "2023-11-14-conv.json"
    line = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert line["models"] == ["", ""]
    battles = read_battles([tmp_path / "logs"])
    assert battles.winner.tolist() == [A, B, TIE, BOTH_BAD]
    assert battles.models == ("llama", "vicuna")
    assert battles.ids.tolist() == ["c0", "c1", "c2", "c3"]
    assert [each.id for each in read_texts([tmp_path / "logs"])] == ["c0", "c1", "c2", "c3"]


def test_what_does_not_count_is_told_by_reason(tmp_path, caplog):
    rows = [vote_row("leftvote", *vote(0)), vote_row("leftvote", *vote(1, anony=False))]
    rows += [{**vote_row("leftvote", *vote(2)), "models": ["", "vicuna"]}, {**rows[1], "models": ["gpt-4", "vicuna"]}]
    assert len(read_battles([written(tmp_path / "x-conv.json", rows)])) == 1
    assert "1 votes left out: the names were shown" in caplog.text
    assert "1 votes left out: one of the names was shown" in caplog.text
    assert "1 votes left out: the names contradict each other" in caplog.text


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            '{"model_a": "a", "model_b": "b", "winner": "model_a"}\n{"model_a": "a", "mod',
            r"x\.jsonl:2: is no whole line",
        ),
        ('{"model_a": "a", "model_b": "b", "winner": "model_a"}\nnonsense\n', r"x\.jsonl:2: is not JSON"),
        ('{"model_a": "a", "model_b": "b", "winner": "C"}\n', r"x\.jsonl:1: winner 'C' is none of model_a"),
        ('{"model_a": "", "model_b": "b", "winner": "tie"}\n', r"x\.jsonl:1: model_a is empty"),
        ('{"model_a": "a", "model_b": "b", "winner": "tie", "tstamp": "noon"}\n', r"x\.jsonl:1: 'noon' is no time"),
        ('{"model_a": "a", "model_b": "b", "winner": "tie", "tstamp": 1e300}\n', r"x\.jsonl:1: '1e\+300' is no time"),
        ("[1]", r"x\.jsonl: entry 1 is no object"),
        ("", r"x\.jsonl: is empty"),
    ],
)
def test_a_damaged_log_is_one_line_that_says_where(tmp_path, lines, said):
    path = tmp_path / "x.jsonl"
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(FormatError, match=said):
        read_battles([path])


def test_no_form_that_is_known(tmp_path):
    with pytest.raises(OptionError, match="no form that is known"):
        read_battles([written(tmp_path / "x.jsonl", [{"a": 1}])])
    with pytest.raises(MissingError, match="no such file"):
        read_battles([tmp_path / "none.jsonl"])
    rows = [{**LMSYS}, {**LMSYS}]
    with pytest.raises(OptionError, match="q1 stands twice"):
        read_battles([written(tmp_path / "y.jsonl", rows)])


VOTES = st.lists(
    st.builds(
        Vote,
        st.sampled_from(["a", "b", "c-ü"]),
        st.sampled_from(["a", "b", "c-ü"]),
        st.sampled_from(["model_a", "model_b", "tie", "tie (bothbad)"]),
        time=st.none() | st.floats(0, 2e9),
        voter=st.none() | st.sampled_from(["x", "y"]),
        language=st.none() | st.sampled_from(["English", "Czech"]),
        turns=st.integers(0, 9),
        numbers=st.just({}) | st.just({"tokens": (1.0, 2.0), "hardness": 3.0}),
    ),
    min_size=1,
    max_size=30,
)


@settings(deadline=None, max_examples=60)
@given(VOTES)
def test_columns_come_back_from_a_file(tmp_path_factory, votes):
    path = tmp_path_factory.mktemp("b") / "x.battles"
    battles = gather(votes)
    save_battles(battles, path)
    again = open_battles(path)
    assert [*votes_of(again)] == [*votes_of(battles)] == votes
    assert again.models == battles.models
    assert again.a.dtype == np.int32


def test_a_damaged_column_file(tmp_path):
    path = tmp_path / "x.battles"
    save_battles(gather([vote(0)[0]]), path)
    whole = path.read_bytes()
    for damaged in (whole[:-40], whole[: len(whole) // 2], b"nothing"):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"is no whole \.battles file"):
            open_battles(path)


@pytest.mark.skipif("CAMELID_TEST_DATA" not in os.environ, reason="no folder with real data: set CAMELID_TEST_DATA")
def test_llmfao():
    folder = Path(os.environ["CAMELID_TEST_DATA"], "llmfao")
    battles = read_battles([folder / "crowd-comparisons.csv"])
    assert len(battles) == 8931
    assert np.bincount(battles.winner).tolist() == [2911, 2549, 3471]
    assert len(battles.voters) == 124
    assert UNKNOWN not in battles.voter
    texts = [*read_texts([folder / "crowd-comparisons.csv"])]
    assert [each.id for each in texts] == battles.ids.tolist()
    assert len(read_battles([folder / "gpt4-crowd-comparisons.csv"])) == 2139


@pytest.mark.parametrize(("turn", "read"), [(2, 2), (2.0, 2), ("3", 3), (None, 0)])
def test_turns_that_a_table_holds_as_numbers(tmp_path, turn, read):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"model_a": "x", "model_b": "y", "winner": "tie", "turn": turn}) + "\n")
    assert read_battles([path]).turns.tolist() == [read]


@pytest.mark.parametrize("turn", [2.5, -1, "many", "nan"])
def test_turns_that_are_none(tmp_path, turn):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"model_a": "x", "model_b": "y", "winner": "tie", "turn": turn}) + "\n")
    with pytest.raises(FormatError, match=r"a\.jsonl:1: turn"):
        read_battles([path])

"""Rows of the page: what is filtered, in which order, what moved."""

from __future__ import annotations

import json
from datetime import date

import pytest

from camelid.arena.board.snapshots import Snapshots, board_of, moves
from camelid.arena.board.source import Facts, named_size
from camelid.arena.board.table import COLUMNS, Filters, Line, ordered
from camelid.arena.ratings import Board, Row, rate
from camelid.errors import FormatError, NotFoundError
from tests.arena.board.voting import FACTS, some_battles


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llama-2-70b-chat", 70),
        ("LLaMA-2-Chat (13B)", 13),
        ("Mixtral-8x7b-Instruct-v0.1", 56),
        ("smollm2:135m-instruct", 0.135),
        ("Qwen1.5-0.5B", 0.5),
        ("SOLAR-10.7B-Instruct", 10.7),
        ("GPT 3.5 Turbo (16k)", None),
        ("Claude v1.2", None),
        ("grok3beta", None),
        ("gpt-4b-ish", 4),
    ],
)
def test_sizes_that_names_tell(name, billions):
    assert named_size(name) == pytest.approx(billions)


LINES = [
    Line("Llama-2-70b-chat", 1, 1100.0, 1090.0, 1115.0, 500, FACTS[0], figures={"mmlu": (0.63, "63.0 %", "")}),
    Line("Llama-2-7b-chat", 2, 1000.0, 985.0, 1020.0, 900, FACTS[1]),
    Line("alpaca-13b", 2, 1010.0, 980.0, 1030.0, 20, FACTS[2], figures={"mmlu": (0.4, "40.0 %", "")}),
    Line("closed-one", 4, 900.0, 800.0, 1000.0, 70, FACTS[3]),
    Line("stranger", 5, 800.0, 700.0, 900.0, 7, Facts("stranger")),
]


def names(lines: list[Line]) -> str:
    return " ".join(line.name.partition("-chat")[0].lower().removeprefix("llama-2-") for line in lines)


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (Filters(), "70b 7b alpaca-13b closed-one stranger"),
        (Filters(open_only=True), "70b 7b alpaca-13b"),
        (Filters(licence="Proprietary"), "closed-one"),
        (Filters(organisation="Meta", text="7B"), "7b"),
        (Filters(text="META community"), "70b 7b"),
        (Filters(size="3 to 10 B"), "7b"),
        (Filters(size="10 to 40 B", open_only=True), "alpaca-13b"),
        (Filters(size="over 40 B"), "70b"),
        (Filters(text="nothing such"), ""),
    ],
)
def test_filters(filters, kept):
    assert names([line for line in LINES if filters.keep(line)]) == kept


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("rank", "70b alpaca-13b 7b closed-one stranger"),
        ("-rank", "stranger closed-one 7b alpaca-13b 70b"),
        ("-score", "70b alpaca-13b 7b closed-one stranger"),
        ("votes", "stranger alpaca-13b closed-one 70b 7b"),
        ("interval", "70b 7b alpaca-13b closed-one stranger"),
        ("organisation", "closed-one 70b 7b alpaca-13b stranger"),
        ("-organisation", "alpaca-13b 70b 7b closed-one stranger"),
        ("mmlu", "alpaca-13b 70b 7b closed-one stranger"),
        ("-mmlu", "70b alpaca-13b 7b closed-one stranger"),
        ("nonsense", "70b alpaca-13b 7b closed-one stranger"),
    ],
)
def test_order(sort, order):
    """What has nothing in a column is last, up or down."""
    assert names(ordered(LINES[::-1], sort)) == order


def test_every_column_sorts():
    for name in COLUMNS:
        assert sorted(names(ordered(LINES, name)).split()) == sorted(names(LINES).split())


def test_the_interval_is_the_decks():
    assert LINES[0].interval == "+15/−10"
    assert Line("x", 1, 0.0, -float("inf"), 3.4, 1, Facts("x")).interval == "+3/−∞"


def board(**ranks: int) -> Board:
    rows = [Row(name, 1000.0 - rank, 0.0, 0.0, rank, 9) for name, rank in ranks.items()]
    return Board("bt", 9, tuple(rows))


def test_moves():
    found = moves(board(a=1, b=2, c=3, gone=4), board(b=1, a=2, c=3, new=4))
    assert [(move.name, move.rank, move.places) for move in found] == [
        ("b", (2, 1), 1),
        ("a", (1, 2), -1),
        ("new", (None, 4), 0),
        ("gone", (4, None), 0),
    ]
    assert found[0].points == 1
    assert found[2].points is None


def test_a_board_a_day(tmp_path):
    snapshots, made = Snapshots(tmp_path / "boards"), rate(some_battles(300))
    assert snapshots.days() == []
    assert snapshots.keep(made, 1_793_500_000.0)
    assert not snapshots.keep(rate(some_battles(200)), 1_793_500_060.0)
    assert snapshots.keep(rate(some_battles(200)), 1_793_600_000.0)
    assert snapshots.days() == [date(2026, 11, 2), date(2026, 11, 1)]
    kept = snapshots.open(date(2026, 11, 1)).board
    assert (kept.rows, kept.n_votes) == (made.rows, made.n_votes)
    (tmp_path / "boards" / "2026-10-01.json").write_text('{"models": [{"name": "x"}]}')
    (tmp_path / "boards" / "2026-99-01.json").write_text("{}")
    (tmp_path / "boards" / "notes.txt").write_text("{}")
    assert len(snapshots.days()) == 3
    with pytest.raises(FormatError, match=r"2026-10-01\.json: is no board"):
        snapshots.open(date(2026, 10, 1))
    with pytest.raises(NotFoundError, match="no board of that day"):
        snapshots.open(date(2020, 1, 1))
    assert board_of(json.loads(json.dumps(made.as_json()))).rows == made.rows

"""The leaderboard's pages: what is shown is what was voted, for everyone, with or without JavaScript."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from urllib.parse import unquote_plus

import pytest

from camelid.arena.board.alone import board_app
from camelid.arena.board.full import with_figures
from camelid.arena.board.routes import AT_ONCE, PLOTS, board_routers
from camelid.arena.board.snapshots import Snapshots
from camelid.arena.board.source import Facts, Text
from camelid.arena.board.table import Line
from camelid.arena.ratings import RateOptions, rate
from camelid.evals.browsing import ResultStore
from camelid.serve.options import ServeOptions
from tests.arena.board.conftest import serving
from tests.arena.board.voting import MODELS, Growing, some_battles
from tests.evals.test_browsing import WORSE, a_result, an_item

N = 700
SECRET = "arena_user_"


@pytest.fixture(scope="module")
def source() -> Growing:
    it = Growing(some_battles(N))
    question = ("user", "What is <script>alert(1)</script>?")
    it.texts["battle-3"] = Text("battle-3", "x", "y", [question, ("assistant", "A tag.")], [question])
    return it


@pytest.fixture(scope="module")
def url(source, tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("arena")
    Snapshots(folder / "boards").keep(rate(some_battles(60)), 1_780_000_000.0)
    a_result(folder / "results" / "Llama-2-7b-chat", [an_item(0, 1.0), an_item(1, 0.0)], WORSE)
    routers = board_routers(source, results=ResultStore(folder / "results"), snapshots=folder / "boards")
    options = ServeOptions(port=0, shutdown_seconds=2)
    with serving(board_app(routers, options), options) as it:
        yield it


def names(html: str) -> list[str]:
    found = re.findall(r'<th scope="row">(?:<a[^>]*>)?([^<]+)', html)
    return [unescape(name).strip() for name in found]


def test_the_board(client, source):
    answer = client.get("/leaderboard")
    board, html = rate(source.chunks[0]), answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert f"Total #models: <strong>{len(MODELS)}</strong>. Total #votes: <strong>{N}</strong>" in html
    assert "Last updated: <strong>2026-11-01 " in html
    assert names(html) == [row.name for row in board.rows]
    for row in board.rows:
        assert f"<strong>{row.rating:.0f}</strong>" in html
        assert f"+{row.upper - row.rating:.0f}/−{row.rating - row.lower:.0f}" in html
        assert f'aria-label="{row.votes:,} votes on' in html
    for words in ("Llama 2 Community", "Stanford", "2023/7", "https://ai.meta.com/llama/", "/runs/tiny/pretrain"):
        assert words in html
    assert "<b>odd" not in html
    assert "javascript:" not in html
    assert SECRET not in html
    assert html.count('aria-sort="none"') == 7
    assert 'aria-sort="ascending"' in html
    assert len(answer.content) < 30_000


def test_filters_and_order_are_in_the_address(client):
    assert len(names(client.get("/leaderboard?open=1").text)) == 3
    assert names(client.get("/leaderboard?q=llama+7b").text) == ["Llama-2-7b-chat"]
    assert names(client.get("/leaderboard?size=10+to+40+B").text) == ["alpaca-13b"]
    assert names(client.get("/leaderboard?organisation=Acme&licence=Proprietary").text) == ["closed-one"]
    up = names(client.get("/leaderboard?sort=score").text)
    assert up == names(client.get("/leaderboard?sort=-score").text)[::-1]
    html = client.get("/leaderboard?sort=-score&open=1&view=full").text
    assert 'href="?view=full&amp;open=1&amp;sort=score"' in html
    assert "No model is all of that" in client.get("/leaderboard?q=nothing").text
    assert len(names(client.get("/leaderboard?sort=%00&size=x&view=y").text)) == len(MODELS)


def test_category_and_style(client, source):
    html = client.get("/leaderboard?category=english").text
    english = int((source.chunks[0].language == 0).sum())
    assert f"#votes: {english} ({english / N:.0%})" in html
    styled = client.get("/leaderboard?style=1").text
    board = rate(source.chunks[0], RateOptions(style=True))
    for each in board.coefficients:
        assert f"{each.value:+.3f}" in styled
    answer = client.get("/leaderboard?category=nonsense")
    assert (answer.status_code, "there is no" in answer.text) == (404, True)


def test_the_full_leaderboard(client):
    html = client.get("/leaderboard?view=full").text
    assert '<a href="/benchmarks/Llama-2-7b-chat">50.0 %</a>' in html
    assert "sort=-sums" in html


def test_published_figures_lead_to_who_says_so():
    line = Line("meta-llama/Meta-Llama-3-8B-Instruct", 1, 1000.0, 990.0, 1010.0, 9, Facts("x"))
    lines, tasks = with_figures([replace(line, facts=Facts("x", results="Llama 3 8B Instruct")), line], None)
    assert lines[0].figures["mmlu"] == (0.684, "68.4 %", "https://ai.meta.com/blog/meta-llama-3/")
    assert lines[1].figures == lines[0].figures
    assert tasks[0] == "mmlu"


def test_what_moved(client):
    html = client.get("/leaderboard/moves?since=2026-05-28").text
    assert "60 votes then" in html
    assert f"{N} now" in html
    assert client.get("/leaderboard/moves?since=2001-01-01").status_code == 404
    compared = client.get("/leaderboard?since=2026-05-28").text
    assert re.search(r'<span class="muted">[+-]\d', compared)
    assert client.get("/leaderboard?since=2001-01-01").status_code == 404


def test_from_a_cell_to_votes_to_texts(client, source):
    battles = source.chunks[0]
    html = client.get("/leaderboard/plots/wins").text
    address = re.search(r'href="(/leaderboard/votes\?[^"]+model_b[^"]+)"', html)[1].replace("&amp;", "&")
    seen = []
    page = address
    while page:
        html = client.get(page).text
        seen += re.findall(r'aria-label="Battle (battle-\d+)"', html)
        behind = re.search(r'rel="next" href="\?([^"]+)"', html)
        page = behind and f"/leaderboard/votes?{behind[1].replace('&amp;', '&')}"
    chosen = dict(part.split("=") for part in address.partition("?")[2].split("&"))
    pair = {unquote_plus(each) for each in chosen.values()}
    assert len(pair) == 2
    met = [at for at in range(N) if {battles.models[battles.a[at]], battles.models[battles.b[at]]} == pair]
    assert seen == [f"battle-{at}" for at in met[::-1]]
    html = client.get("/leaderboard/battles/battle-3").text
    assert "&lt;script&gt;alert(1)" in html
    assert "A tag." in html
    assert f"{battles.models[battles.a[3]]} and {battles.models[battles.b[3]]}</h1>" in unescape(html)
    assert "not published" in client.get("/leaderboard/battles/battle-4").text
    assert client.get("/leaderboard/battles/none").status_code == 404


@pytest.mark.parametrize("outcome", ["a", "b", "tie", "bad"])
def test_votes_by_outcome(client, source, outcome):
    battles, model = source.chunks[0], "alpaca-13b"
    number = battles.models.index(model)
    code = ["a", "b", "tie", "bad"].index(outcome)
    straight = (battles.a == number) & (battles.winner == code)
    turned = (battles.b == number) & (battles.winner == (1 - code if code < 2 else code))
    html = client.get(f"/leaderboard/votes?model_a={model}&outcome={outcome}").text
    n = int((straight | turned).sum())
    assert f"1 – {min(n, AT_ONCE)} of {n}" in html
    assert SECRET not in html


def test_votes_that_are_not_there(client):
    assert client.get("/leaderboard/votes?model_a=nobody").status_code == 404
    assert client.get("/leaderboard/votes?category=nonsense").status_code == 404
    assert client.get("/leaderboard/votes?at=99999999999999").text.count("<tr>") == AT_ONCE + 1
    assert "No such vote counts" in client.get("/leaderboard/votes?at=9000").text


@pytest.mark.parametrize("name", PLOTS)
def test_each_plot_has_its_table(client, name):
    html = client.get(f"/leaderboard/plots/{name}").text
    assert "<svg" in html
    assert "As a table" in html
    assert "style=" not in html.replace("?style=", "").replace("&amp;style=", "")  # the policy forbids it
    assert client.get(f"/leaderboard/plots/{name}?category=english&style=1").status_code == 200


def test_a_plot_that_is_not_there(client):
    assert client.get("/leaderboard/plots/nonsense").status_code == 404


def test_to_take_away(client, source):
    board = rate(source.chunks[0])
    record = client.get("/leaderboard.json").json()
    assert [(each["name"], each["rating"], each["votes"]) for each in record["models"]] == [
        (row.name, row.rating, row.votes) for row in board.rows
    ]
    assert (record["method"], record["n_votes"]) == ("bt", N)
    rows = list(csv.DictReader(io.StringIO(client.get("/leaderboard.csv?open=1&sort=model").text)))
    assert [row["model"] for row in rows] == ["alpaca-13b", "Llama-2-70b-chat", "Llama-2-7b-chat"]
    assert float(rows[0]["lower"]) == next(row.lower for row in board.rows if row.name == "alpaca-13b")
    assert client.get("/leaderboard.xml").status_code == 404


def test_parquet(client):
    parquet = pytest.importorskip("pyarrow.parquet")
    answer = client.get("/leaderboard.parquet?view=full")
    table = parquet.read_table(io.BytesIO(answer.content)).to_pydict()
    assert table["model"] == [each["name"] for each in client.get("/leaderboard.json").json()["models"]]
    assert "sums" in table
    assert json.dumps(table["rank"])
    assert "attachment" in answer.headers["content-disposition"]


def test_a_new_vote_is_seen_at_once(client, source):
    before = client.get("/leaderboard").text
    source.chunks.append(some_battles(1, 9, start=N))
    try:
        after = client.get("/leaderboard").text
    finally:
        source.chunks.pop()
        source.epoch += 1
    assert f"#votes: <strong>{N}</strong>" in before
    assert f"#votes: <strong>{N + 1}</strong>" in after


def test_which_few_votes_decide(client):
    html = client.get("/leaderboard/influence").text
    assert re.search(r"Without <strong>\d+</strong> of 700 votes", html)
    assert 'href="/leaderboard/battles/battle-' in html
    assert client.get("/leaderboard/influence?category=nonsense").status_code == 404

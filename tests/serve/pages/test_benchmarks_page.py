"""The Benchmarks pages: what is on record is what is seen, item by item, for everyone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx2
import pytest
from fastapi.testclient import TestClient

from camelid.cli.verbs.serve import guests
from camelid.evals.comparing import open_result, pair_of
from camelid.evals.records import ITEMS, LOG, RESULT
from camelid.evals.run import evaluate
from camelid.serve.app import create_app
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions
from camelid.serve.worker import Worker
from tests.evals.asking import RuleModel, write_mmlu
from tests.evals.test_browsing import WORSE, a_result, an_item
from tests.serve.conftest import TINY, running
from tests.serve.pages.watched import Watched, playwright

expect = playwright.expect
FIVE, ZERO = "mmlu--rule", "mmlu--rule--0shots"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two results of one task, one with texts, one of perplexity, and three that are not whole."""
    work = tmp_path_factory.mktemp("work")
    folder = work / "results"
    data = write_mmlu(work / "mmlu.tar.gz", n_items=40)
    for shots in (5, 0):
        evaluate(RuleModel(), "mmlu", data=data, out=folder, shots=shots)
    (work / "llamas.txt").write_text("Llamas live in the Andes.\n")
    evaluate(RuleModel(), "perplexity", data=work / "llamas.txt", out=folder)
    items = [an_item(0, 1.0, question="<script>alert(1)</script>"), an_item(1, None), an_item(2, 0.0)]
    a_result(folder / "sums--a model #1?", items, WORSE)
    a_result(folder / "torn", [an_item(at, 1.0) for at in range(3)])
    whole = (folder / "torn" / ITEMS).read_bytes()
    (folder / "torn" / ITEMS).write_bytes(whole[:-40])
    (folder / "bad").mkdir()
    (folder / "bad" / RESULT).write_text('{"task": "<b>')
    (folder / "half").mkdir()
    (folder / "half" / LOG).write_text("{}\n")
    return folder


@pytest.fixture(scope="module")
def server(tiny_llama, tmp_path_factory, folder) -> Iterator[object]:
    data = tmp_path_factory.mktemp("data") / "serve.db"
    options = ServeOptions(port=0, data=data, shutdown_seconds=5, results=folder)
    with running(Models([Worker(TINY, tiny_llama)]), options, guests(options)) as it:
        yield it


@pytest.fixture(scope="module")
def client(server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=60) as it:
        yield it


def rows(html: str) -> int:
    return html.count('<th scope="row">')


def test_the_list(client, folder):
    answer = client.get("/benchmarks")
    html = answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert rows(html) == 7
    acc = open_result(folder / FIVE).metrics["acc"]
    for text in (f"{100 * acc.value:.1f} %", f"{100 * acc.low:.1f} % – {100 * acc.high:.1f} %", "5 shots", "0 shots"):
        assert text in html
    assert f'width="{200 * acc.value:.2f}"' in html
    assert f'd="M{200 * acc.low:.2f} 7H{200 * acc.high:.2f}' in html
    assert "not finished; the same command goes on" in html
    assert "<b>" not in html
    assert '<a href="/benchmarks" aria-current="page">Benchmarks</a>' in html


def test_one_task_or_model(client):
    assert rows(client.get("/benchmarks?task=mmlu").text) == 2
    assert rows(client.get("/benchmarks?task=mmlu&model=rule").text) == 2
    assert rows(client.get("/benchmarks?task=sums&model=rule").text) == 0
    assert rows(client.get("/benchmarks?task=nonsense&at=-1").text) == 7


def test_a_result(client, folder):
    result = open_result(folder / FIVE)
    html = client.get(f"/benchmarks/{FIVE}").text
    for name, figure in result.metrics.items():
        assert name in html
        assert f"{100 * figure.value:.1f} %" in html
    for group in result.groups:
        assert f"items?group={group}" in html
    for words in ("By category", "the likeliest letter", "plain text", result.conditions["data_sha256"], ZERO):
        assert words in html
    html = client.get("/benchmarks/perplexity--rule").text
    assert f"{open_result(folder / 'perplexity--rule').metrics['bits_per_byte'].value:.4g}" in html
    html = client.get("/benchmarks/sums--a%20model%20%231%3F").text
    assert "less is better" in html
    assert "/benchmarks/sums--a%20model%20%231%3F/items" in html


def test_items_a_page_at_a_time(client, folder):
    result = open_result(folder / FIVE)
    wrong = [item["id"] for item in result.items if not item["scores"]["acc"]]
    seen, address = [], f"/benchmarks/{FIVE}/items?only=wrong"
    while address:
        html = client.get(address).text
        assert rows(html) <= 50
        seen += re.findall(r'<th scope="row"><a [^>]*>([^<]+)</a>', html)
        behind = re.search(r'rel="next" href="\?([^"]+)"', html)
        address = behind and f"/benchmarks/{FIVE}/items?{behind[1].replace('&amp;', '&')}"
    assert seen == wrong
    assert len(wrong) > 50
    html = client.get(f"/benchmarks/{FIVE}/items?group=anatomy").text
    assert "1 – 40 of 40" in html
    assert "1 – 50 of 120" in client.get(f"/benchmarks/{FIVE}/items?only=x&metric=y&group=z&at=9999").text
    assert "item/1" in client.get("/benchmarks/sums--a%20model%20%231%3F/items?only=unread").text


def test_an_item(client, folder):
    item = open_result(folder / FIVE).items[3]
    html = client.get(f"/benchmarks/{FIVE}/items/3").text
    turn = item["turns"][0]
    for text in (item["fields"]["question"], turn["prompt_sha256"], "only hashes are on record", "4 of 120"):
        assert text in html
    for logprob in turn["answer"]["logprobs"]:
        assert f"{logprob:.3f}" in html
    assert html.count('class="bench-gold"') == 1
    html = client.get("/benchmarks/sums--a%20model%20%231%3F/items/0").text
    assert "It is 0." in html
    assert "&lt;script&gt;alert(1)" in html
    assert "unreadable" in client.get("/benchmarks/sums--a%20model%20%231%3F/items/1").text
    assert "nats" in client.get("/benchmarks/perplexity--rule/items/0").text


def test_two_results(client, folder):
    pair = pair_of(open_result(folder / FIVE), open_result(folder / ZERO))
    found = pair.comparisons["acc"]
    address = f"/benchmarks/compare?result={FIVE}&result={ZERO}"
    html = client.get(f"{address}&only=second").text
    for text in (f"{100 * found.difference:+.2f}", f"{found.p:.3g}", "McNemar", "Conditions differ, too", "120 items"):
        assert text in html
    assert f"<strong>{found.only_first}</strong> only the first" in html
    assert f"<strong>{found.only_second}</strong> only the second" in html
    ids = re.findall(r'<th scope="row"><a href="([^"]+)">([^<]+)</a>', html)
    assert len(ids) == found.only_second
    html = client.get(ids[1][0].replace("&amp;", "&")).text
    assert f"2 of {found.only_second}" in html
    assert f'<a href="/benchmarks/{ZERO}">' in html
    assert html.count('class="bench-gold"') == 2
    assert "different tasks" in client.get(f"/benchmarks/compare?result={FIVE}&result=perplexity--rule").text


def test_what_is_not_there_or_not_whole(client):
    for path in ("none", "none/items", "none/items/0", f"{FIVE}/items/120", f"{FIVE}/items/x", "..%2f..", "%ff"):
        assert client.get(f"/benchmarks/{path}").status_code == 404
    assert client.get(f"/benchmarks/compare?result={FIVE}").status_code == 400
    assert client.get(f"/benchmarks/compare?result={FIVE}&result=none").status_code == 404
    for path in ("bad", "half", "bad/items", "half/items/0", f"compare?result=bad&result={FIVE}"):
        answer = client.get(f"/benchmarks/{path}")
        assert answer.status_code == 200
        assert len(re.findall('class="notice error"', answer.text)) == 1
    html = client.get("/benchmarks/torn/items").text
    assert "line 3 is no item; 2 of 3 items can be read" in html
    assert rows(html) == 2


def test_a_key_is_asked_for_here_too(tiny_llama, tmp_path, folder):
    options = ServeOptions(data=tmp_path / "serve.db", api_keys=("a-long-key",), results=folder)
    app = create_app(Models([Worker(TINY, tiny_llama)]), options, guests(options))
    with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
        assert client.get("/benchmarks", headers={"Accept": "application/json"}).status_code in (303, 401)
        assert "mmlu" not in client.get(f"/benchmarks/{FIVE}/items/0").text
        keyed = {"Authorization": "Bearer a-long-key"}
        assert client.get("/benchmarks", headers=keyed).status_code == 200
        assert client.get("/benchmarks", headers={**keyed, "Host": "example.org"}).status_code == 403


def test_no_result_yet(tiny_llama, tmp_path):
    options = ServeOptions(data=tmp_path / "serve.db", results=tmp_path / "none")
    app = create_app(Models([Worker(TINY, tiny_llama)]), options, guests(options))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert "camelid eval arc-challenge" in client.get("/benchmarks").text


def test_by_keyboard_and_without_scripts(page, browser, server):
    page.goto(f"/benchmarks/{FIVE}/items/0")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/items/1")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/items/2")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**/items/1")
    page.goto("/benchmarks?task=mmlu")
    for name in (FIVE, ZERO):
        page.get_by_label(f"Compare {name}", exact=True).press("Space")
    page.get_by_role("button", name="Compare").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("mmlu, two results")
    page.get_by_role("link", name="only the first").click()
    expect(page.get_by_role("link", name="only the first")).to_have_attribute("aria-current", "true")
    plain = browser.new_context(base_url=server.url, java_script_enabled=False).new_page()
    plain.goto(f"/benchmarks/{FIVE}/items?only=wrong")
    plain.get_by_role("link", name="anatomy/").first.click()
    plain.get_by_role("link", name="Next").click()
    expect(plain.get_by_text("2 of ")).to_be_visible()
    plain.context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 390), ("light", 1280)])
def test_nothing_stands_in_anybodys_way(browser, server, scheme, width):
    watched = Watched(browser, server.url, viewport={"width": width, "height": 800}, color_scheme=scheme)
    compare = f"/benchmarks/compare?result={FIVE}&result={ZERO}&only=first"
    paths = [f"/benchmarks/{FIVE}{rest}" for rest in ("", "/items", f"/items/3?only=both&against={ZERO}")]
    for path in ("/benchmarks", *paths, compare, "/benchmarks/bad", "/benchmarks/sums--a%20model%20%231%3F/items/0"):
        watched.page.goto(path, wait_until="networkidle")
        assert watched.barriers() == []
        assert watched.page.evaluate("() => document.documentElement.scrollWidth") <= width
    watched.context.close()
    assert not watched.wrong

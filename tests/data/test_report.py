"""The report on data: counts of crafted documents, the page, and the verb."""

from __future__ import annotations

import html.parser
import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from camelid.cli import main
from camelid.data.document import Document
from camelid.data.manifest import read_manifest
from camelid.data.options import DecontaminateOptions, EvaluationFile
from camelid.data.reading.documents import write_documents
from camelid.data.report.page import bars, page, short, write_page
from camelid.data.report.report import find_data, report
from camelid.data.stage_stats import StageStats
from camelid.errors import MissingError, OptionError
from tests.data.made import make_data, some_documents

EVIL = "<script>alert(1)</script> & <b>bold</b>"
QUESTION = "how many quiet llamas walk over the green hill before the cold morning wind"


def crafted() -> list[Document]:
    texts = some_documents(20, seed=5)
    urls = ["https://a.org/1#top", "http://a.org/1", "https://www.b.co.uk/x?y", "http://8.8.8.8/z", None, "http://["]
    urls += [None] * (len(texts) - len(urls))
    made = [Document(text, f"made/{n}", "made", url) for n, (text, url) in enumerate(zip(texts, urls, strict=True))]
    made[3] = replace(made[3], text="Write to a.b@c.org or 212-555-0123. " + QUESTION, licence="MIT")
    made[4] = replace(made[4], text=made[5].text, meta={"language": "en"})
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data folder with files of documents, in two, and accounts of stages."""
    folder, made = tmp_path_factory.mktemp("run"), crafted()
    at = make_data(folder, [document.text for document in made])
    (at / "documents").mkdir()
    write_documents(at / "documents" / "made-00000.jsonl.gz", made[:7])
    write_documents(at / "documents" / "made-00001.jsonl.gz", made[7:])
    stage = StageStats("rules")
    for document in made:
        stage.keep(document)
    for _ in range(3):
        stage.drop(Document(EVIL, "made/evil", "made"), "too <b>loud</b>")
    replace(read_manifest(at), stages=(stage.as_json(),)).write(at)
    return folder


def words(text: str) -> list[str]:
    plain = ("".join(letter for letter in word.lower() if letter.isalnum()) for word in text.split())
    return [word for word in plain if word]


def test_numbers_are_those_of_plain_python(data):
    found, made = report(data / "data"), crafted()
    assert found["documents"] == 20
    assert found["bytes"] == sum(len(document.text.encode()) for document in made)
    assert found["lengths"]["words"]["total"] == sum(len(document.text.split()) for document in made)
    assert found["lengths"]["tokens"]["total"] == found["sources"][0]["tokens"]
    for grams in found["ngrams"]:
        n = grams["n"]
        true = Counter(
            " ".join(run)
            for document in made
            for run in zip(*(itertools.islice(words(document.text), at, None) for at in range(n)), strict=False)
        )
        assert grams["total"] == true.total()
        assert abs(grams["different"] - len(true)) <= 0.02 * len(true) + 1
        assert grams["error"] == 0
        assert [row["count"] for row in grams["rows"]] == [count for _, count in true.most_common(20)]
        for row in grams["rows"]:
            assert true[row["text"]] == row["count"]
    assert found["duplicates"] == {"url": {"documents": 20, "repeated": 1}, "exact": {"documents": 20, "repeated": 1}}
    assert [(row["name"], row["documents"]) for row in found["domains"]["rows"]] == [
        ("a.org", 2),
        ("8.8.8.8", 1),
        ("b.co.uk", 1),
    ]
    assert {row["name"]: row["documents"] for row in found["top_level"]["rows"]} == {"org": 2, "uk": 1, "address": 1}
    assert {row["name"] for row in found["schemes"]["rows"]} == {"http", "https"}
    assert found["personal_details"] == {"documents": 1, "kinds": {"email": 1, "phone": 1}}
    assert {row["name"]: row["documents"] for row in found["licences"]["rows"]} == {"not named": 19, "MIT": 1}
    assert found["tests"] is None


@pytest.mark.slow
def test_more_workers_find_the_same(data):
    assert report(data / "data", workers=2) == report(data / "data")


def test_items_of_tests_are_found(data, tmp_path):
    items = [{"q": QUESTION + " comes"}, {"q": "a question that nobody asks in any of these documents, not once"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, [*items, {"q": "short"}])), encoding="utf-8")
    against = DecontaminateOptions(against=(EvaluationFile(path=str(tmp_path / "t.jsonl"), fields=("q",)),))
    tests = report(data / "data", against)["tests"]
    assert tests["rows"] == [{"name": "t.jsonl", "items": 2, "too_short": 1, "found": 1, "documents": 1}]
    assert tests["examples"][0]["id"] == "made/3"


class Parser(html.parser.HTMLParser):
    """Collects tags, what they refer to, and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.refers: list[str] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.refers += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "rect", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_loads_nothing(data):
    made = page(report(data / "data"))
    parser = Parser()
    parser.feed(made)
    assert not parser.open
    assert not parser.tags["script"]
    assert not parser.tags["b"]
    assert not parser.refers
    assert EVIL in parser.text
    assert "too <b>loud</b>" in parser.text
    assert parser.tags["svg"] == 3
    assert "http-equiv" in made


@pytest.mark.slow
def test_the_page_has_no_barriers(data, tmp_path):
    watched = pytest.importorskip("tests.serve.pages.watched")
    write_page(report(data / "data"), tmp_path / "r.html")
    with watched.chromium() as browser:
        for scheme in ("light", "dark"):
            size = {"width": 400, "height": 900}
            seen = watched.Watched(browser, "file:///", color_scheme=scheme, viewport=size)
            seen.page.goto((tmp_path / "r.html").as_uri())
            seen.page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
            assert seen.barriers() == []
            assert seen.page.evaluate("document.documentElement.scrollWidth") == 400
            assert seen.wrong == []


def test_bars_are_as_high_as_their_counts():
    made = bars([[0, 0, 0], [1, 1, 2], [2, 3, 0], [4, 7, 4], [8, 15, 0]])
    assert [(bar.first, bar.last, bar.count) for bar in made] == [(1, 1, 2), (2, 3, 0), (4, 7, 4)]
    assert made[0].height * 2 == made[2].height == made[2].height + made[2].y
    assert bars([[0, 0, 0]]) == []


def test_units_of_numbers():
    assert [short(value) for value in (7, 950, 4100, 1_200_000, 7e9)] == ["7", "950", "4.1k", "1.2M", "7.0B"]


def camelid(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def test_the_verb_reports(data, tmp_path, capsys):
    assert camelid(["data", "report", str(data), "--html", str(tmp_path / "r.html")]) == 0
    out = capsys.readouterr().out
    for said in ("20 documents", "rules", "3 too <b>loud</b>", "3 words in a row", "1 email, 1 phone", "Twice: 1"):
        assert said in out
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert camelid(["data", "report", str(data / "data"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 20


def test_the_verb_shows_a_row(data, capsys):
    assert camelid(["data", "show", str(data), "--sample", "3", "--context", "64"]) == 0
    out = capsys.readouterr().out
    assert "made/" in out
    assert "64 tokens; struck out:" in out
    assert camelid(["data", "show", str(data), "--sample", "3", "--context", "64", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["ids"]) == len(told["learned"]) == 64
    begins = [number for number in range(1, 64) if told["documents"][number] != told["documents"][number - 1]]
    assert [number for number, learned in enumerate(told["learned"]) if not learned] == [0, *begins]


def test_the_verb_verifies(tmp_path, capsys):
    data = make_data(tmp_path)
    assert camelid(["data", "verify", str(tmp_path)]) == 0
    assert "1 shards and the tokenizer are as on record" in capsys.readouterr().out
    path = data / "tokens" / "made-00000.npy"
    path.write_bytes(path.read_bytes()[:-2] + b"xx")
    assert camelid(["data", "verify", str(tmp_path), "--json"]) == 2
    assert "SHA-256" in capsys.readouterr().err


def test_what_is_not_there_is_told(data, tmp_path, capsys):
    assert camelid(["data", "reprot", str(data)]) == 2
    assert "did you mean 'report'?" in capsys.readouterr().err
    with pytest.raises(MissingError, match="camelid prepare"):
        find_data(tmp_path)
    make_data(tmp_path)
    assert camelid(["data", "report", str(data), "--html", str(tmp_path / "no" / "r.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    with pytest.raises(MissingError, match="no documents"):
        report(tmp_path / "data")
    against = DecontaminateOptions(against=(EvaluationFile(path=str(tmp_path / "none.jsonl"), fields=("q",)),))
    with pytest.raises(MissingError, match="no such file"):
        report(data / "data", against)
    (tmp_path / "t.jsonl").write_text("{}", encoding="utf-8")
    against = DecontaminateOptions(against=(EvaluationFile(path=str(tmp_path / "t.jsonl"), fields=("q",)),))
    with pytest.raises(OptionError, match="no field 'q'"):
        report(data / "data", against)

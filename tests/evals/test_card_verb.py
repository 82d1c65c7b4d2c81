"""camelid card as a person calls it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from camelid.cli.flags import run_verb
from camelid.errors import NotFoundError, OptionError
from camelid.evals import evaluate
from tests.evals.asking import RuleModel, write_mmlu


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with results of two models, one of which has a name that is no HTML and no Markdown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAMELID_HOME", str(tmp_path / "home"))
    data = write_mmlu(tmp_path / "mmlu.tar.gz")
    for name in ("smollm2:135m-instruct", "<b>*bold*|"):
        model = RuleModel()
        model.name = name
        evaluate(model, "mmlu", data=data, out="results")
    return tmp_path


def run(capsys, *arguments):
    assert run_verb("card", list(arguments)) == 0
    return capsys.readouterr().out


def test_the_terminal_shows_figures_footnotes_and_commands(place, capsys):
    shown = run(capsys, "smollm2:135m-instruct")
    assert re.search(r"mmlu +5 +acc +[\d.]+ +[\d.]+ – [\d.]+ +12 +29\.3 \[\d\]", shown)
    assert "theirs: 0-shot, the likeliest text; ours: 5-shot, the likeliest letter" in shown
    assert "not stated: chat or not, micro or macro" in shown
    assert (
        "camelid eval mmlu:continuation arc-easy arc-challenge hellaswag piqa --model smollm2:135m-instruct --shots 0"
        in shown
    )


def test_models_side_by_side(place, capsys):
    shown = run(capsys)
    assert "difference: less <b>*bold*|" in shown  # the first by name
    assert re.search(r"^mmlu 5 shots, acc *\n +<b>\*bold\*\| +[\d.]+ .*\n +smollm2:135m-instruct +[\d.]+", shown, re.M)
    assert "noise" in shown


def test_json_for_programs(place, capsys):
    (card,) = json.loads(run(capsys, "smollm2:135m-instruct", "--json"))["cards"]
    assert card["model"] == "smollm2:135m-instruct"
    assert {row["task"] for row in card["rows"]} >= {"mmlu", "hellaswag"}
    assert run(capsys, "smollm2:135m-instruct", "--out", "card.json").strip() == "card.json"
    assert json.loads((place / "card.json").read_text())["cards"] == [card]


class Page(HTMLParser):
    """Tags and links of a page, and whether every tag that opens is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name in ("href", "src")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_stands_alone_and_is_told_to_a_screen_reader(place, capsys):
    run(capsys, "smollm2:135m-instruct", "<b>*bold*|", "--out", "card.html")
    text = (place / "card.html").read_text()
    page = Page(text)
    assert page.open == []
    names = {tag for tag, _ in page.tags}
    assert {"main", "caption", "th", "svg"} <= names
    assert not names & {"script", "img", "link", "b"}
    assert {link[1:] for link in page.links if link.startswith("#")} == set(page.ids)
    assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")
    assert all(attrs.get("aria-hidden") == "true" for tag, attrs in page.tags if tag == "svg")
    assert "prefers-color-scheme: dark" in text
    assert "&lt;b&gt;*bold*|" in text


def test_markdown_has_one_table(place, capsys):
    run(capsys, "smollm2:135m-instruct", "<b>*bold*|", "--out", "card.md")
    text = (place / "card.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "\\<b\\>\\*bold\\*\\|" in text


def test_other_kinds_of_files_are_refused(place):
    with pytest.raises(OptionError, match=r"no kind of card '\.pdf'"):
        run_verb("card", ["--out", "card.pdf"])


def test_a_folder_that_is_not_there_is_told(place):
    with pytest.raises(NotFoundError, match="--results: reslts: no such folder"):
        run_verb("card", ["llama3:8b", "--results", "reslts"])

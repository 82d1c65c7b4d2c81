"""Markdown: safe, and the same however a text was cut while it was written."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from camelid.serve.pages.markdown import MOST_COLOURED, MarkdownStream, to_html

ANSWER = """\
# Sorting

Two ways, *one* of them **fast**:

1. `sorted(x)` gives a new list
2. `x.sort()` sorts in place

   > and returns `None`

| call | copies |
|------|--------|
| sorted | yes |
| sort | no |

```python
def median(x: list[float]) -> float:
    return sorted(x)[len(x) // 2]  # <upper> median
```

Heading below
=============

- a

- b
***
See [the docs][1].

[1]: https://example.org/sort "Sorting"
"""

LINES = (
    *("", "", "text", "more *words*", "# head", "#", "- item", "* item", "-", "1. one", "2. two", "1.", "> quote", ">"),
    *(
        "```",
        "```python",
        "~~~",
        "    indented",
        "  - nested",
        "   para",
        "---",
        "===",
        "***",
        "| a | b |",
        "|---|---|",
    ),
    *("a | b", "--|--", "`code`", "`", "**", "<b>", "<script>", "&amp;", "\\", "\\*", "[x](http://y)", "![x](y)"),
    *("\tafter a tab", "- - deep", "> - both", "Title\\", "line  ", "\x0b", "\u2028", "\x00", "é\u0301", "🦙"),
)
DEFINITIONS = ("[a]: /url", "[a]: <b c> 'title", "title'", "[a]", "[a]:", "/url 'x'", "see [a] and [b][a]", "[A]: /two")


def texts(lines: tuple[str, ...]) -> st.SearchStrategy[str]:
    line = st.one_of(st.sampled_from(lines), st.text(max_size=8))
    ends = st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", ""])
    return st.lists(st.tuples(line, ends), max_size=24).map(lambda parts: "".join(a + b for a, b in parts))


def cut(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(edges)]


def stream(pieces: list[str]) -> tuple[dict[int, str], dict[int, str], dict[int, str]]:
    """What a page would show at the end; blocks as they were closed; blocks that finishing changed."""
    stream, shown, closed = MarkdownStream(), {}, {}
    for piece in pieces:
        for block in stream.push(piece):
            assert block.index not in closed, "a closed block was sent again"
            shown[block.index] = block.html
            if block.closed:
                closed[block.index] = block.html
        assert sorted(shown) == list(range(len(shown)))
    last = {block.index: block.html for block in stream.finish()}
    return shown | last, closed, last


@settings(max_examples=400, deadline=None)
@given(texts(LINES), st.lists(st.integers(0, 10_000), max_size=12))
@example("a\n#b", [3])
@example("a\r\nb", [2])
@example("- a\n\n\n  b\nc", [4, 6])
@example("| a |\n|---|\n    b\nc\n", [15])
def test_any_cut_gives_the_html_of_the_whole(text, places):
    shown, closed, last = stream(cut(text, places))
    assert "".join(shown[index] for index in sorted(shown)) == to_html(text)
    if "]:" not in text:  # nothing below can change a block, so those that were closed stay as they were
        assert not closed.keys() & last.keys()


@settings(max_examples=200, deadline=None)
@given(texts(LINES + DEFINITIONS), st.lists(st.integers(0, 10_000), max_size=12))
def test_definitions_below_their_use(text, places):
    shown, _, _ = stream(cut(text, places))
    assert "".join(shown[index] for index in sorted(shown)) == to_html(text)


def test_letter_by_letter():
    shown, closed, last = stream(list(ANSWER))
    assert "".join(shown.values()) == to_html(ANSWER)
    assert len(closed) >= 8
    assert [index for index in last if index in closed] == [], "the last block uses the definition; no other does"


def test_every_state_is_the_html_of_what_has_come():
    stream, shown, text = MarkdownStream(), {}, ""
    for letter in ANSWER.partition("[1]:")[0]:
        text += letter
        shown |= {block.index: block.html for block in stream.push(letter)}
        assert "".join(shown.values()) == to_html(text)


def test_only_the_open_block_is_sent_anew():
    paragraphs = [f"Paragraph {n} has some words.\n\n" for n in range(300)]
    stream = MarkdownStream()
    sent = [block for piece in paragraphs for block in stream.push(piece)]
    assert len(sent) <= 2 * len(paragraphs)
    assert sum(len(block.html) for block in sent) < 3 * len(to_html("".join(paragraphs)))


def test_a_long_block_of_code_is_left_plain():
    code = "x = 1\n" * (MOST_COLOURED // 6 + 1)
    assert "<span" not in to_html(f"```python\n{code}```").split("<pre", 1)[1]
    assert '<span class="n">x</span>' in to_html("```python\nx = 1\n```")


@pytest.mark.parametrize("language", ["", "nonsense", '"><script>', "{.python}"])
def test_unknown_languages_are_escaped(language):
    html = to_html(f"```{language}\n<b>\n```")
    assert "&lt;b&gt;" in html
    assert "<script" not in html


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


ALLOWED = {
    *("h1", "h2", "h3", "h4", "h5", "h6", "p", "em", "strong", "s", "code", "pre", "a", "ul", "ol", "li", "hr", "br"),
    *("blockquote", "table", "thead", "tbody", "tr", "th", "td", "div", "span", "button"),
}
HARMFUL = (
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))", "[x](JaVaScRiPt:x)"),
    *("[x](data:text/html,x)", "![x](https://elsewhere.example/pixel.png)", "<javascript:alert(1)>", "[x](vbscript:x)"),
    *('[x](http://y "a\\" onmouseover=\\"z")', '![" onload="x](y)', "[x](file:///etc/passwd)", "`<script>`"),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(HARMFUL), st.sampled_from(LINES)), max_size=12).map("\n".join))
@example("\n\n".join(HARMFUL))
def test_nothing_runs_and_nothing_is_fetched(text):
    tags = Tags()
    tags.feed(to_html(text))
    for tag, attributes in tags.found:
        assert tag in ALLOWED
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "style")]
        if tag == "a":
            assert not re.match(r"\s*(javascript|vbscript|file|data:(?!image/))", attributes["href"] or "", re.I)
            assert attributes["rel"] == "noreferrer"


def test_headings_stand_below_those_of_the_page():
    assert to_html("# a\n\n#### b") == "<h3>a</h3>\n<h6>b</h6>\n"


def test_cells_are_aligned_by_class():
    html = to_html("| a | b |\n|---|--:|\n| c | d |")
    assert html.startswith(
        '<div class="table" tabindex="0"><table>\n<thead>\n<tr>\n<th>a</th>\n<th class="right">b</th>'
    )


def test_a_picture_becomes_a_link():
    html = to_html("![A *llama*](https://example.org/llama.png)")
    assert html == '<p><a href="https://example.org/llama.png" rel="noreferrer" target="_blank">A llama</a></p>\n'


@settings(max_examples=200, deadline=None)
@given(texts(tuple(line for line in LINES if not re.search(r"```|~~~|    |\t|\]\(|\||#|=|---", line))))
def test_otherwise_it_is_plain_commonmark(text):
    html = to_html(text)
    if not re.search(r"<(div|a|table|h)", html):
        assert html == MarkdownIt("js-default").render(text)

"""Markdown becomes HTML, at once or while it is being written.

Raw HTML is shown as text and links that could run something are refused (markdown-it's `js-default`). Pictures become
links, since a page asks nobody but this server. Code is coloured by classes of Pygments. Headings begin at `h3`, below
those of the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

MOST_COLOURED = 30_000  # characters of a block of code; a longer one stays plain, so that it is quick


@dataclass(frozen=True)
class Block:
    """A piece of a text that is being written: its place, its HTML, and whether it is final."""

    index: int
    html: str
    closed: bool


def to_html(text: str) -> str:
    """A whole text as HTML."""
    return "".join(_blocks(text, {}))


class MarkdownStream:
    """A text's HTML in blocks, while the text arrives in pieces cut anywhere.

    A block is closed once a complete line has begun the next one: in Markdown, later lines cannot change it any more.
    What follows the closed blocks is one open block, rendered again with each piece. The exception are definitions of
    links, which may stand below their use: blocks that use them are given anew when the text ends.
    """

    def __init__(self) -> None:
        self._text = ""
        self._held = ""  # a carriage return, which a line feed may follow
        self._closed: list[str] = []  # HTML of blocks that are final
        self._tail = 0  # where the open block begins in the text
        self._complete = 0  # how much of the text, in whole lines, was looked through for closed blocks
        self._env: dict[str, Any] = {}  # definitions of links above the tail

    def push(self, text: str) -> list[Block]:
        """Take a piece; gives the blocks that it closes, and the open one."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        self._text += text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n")
        first = len(self._closed)
        self._close()
        closed = [Block(index, self._closed[index], True) for index in range(first, len(self._closed))]
        env = {"references": dict(self._env.get("references", {}))}
        return [*closed, Block(len(self._closed), "".join(_blocks(self._text[self._tail :], env)), False)]

    def finish(self) -> list[Block]:
        """Close what is open; gives it, and the blocks that a definition below them has changed.

        All blocks in a row are then `to_html` of the whole text.
        """
        self._text += "\n" if self._held else ""
        html = list(_blocks(self._text, {}))
        changed = [
            Block(index, one, True) for index, one in enumerate(html) if self._closed[index : index + 1] != [one]
        ]
        gone = [Block(index, "", True) for index in range(len(html), len(self._closed) + 1)]
        return changed + gone

    def _close(self) -> None:
        """Close the blocks behind which a complete line has begun another one."""
        end = self._text.rfind("\n") + 1
        if end <= max(self._tail, self._complete):
            return
        self._complete = end
        whole_lines = self._text[self._tail : end]
        groups = _parse(whole_lines, {})
        if len(groups) < 2:
            return
        n_lines = (groups[-1][0].map or [0])[0]
        start = self._tail + sum(len(line) + 1 for line in whole_lines.split("\n")[:n_lines])
        self._closed += _blocks(self._text[self._tail : start], self._env)
        self._tail = start


def _blocks(text: str, env: dict[str, Any]) -> Iterator[str]:
    """HTML of each block that stands in no other; `env` takes and gives definitions of links."""
    markdown = _markdown()
    for group in _parse(text, env):
        yield markdown.renderer.render(group, markdown.options, env)


def _parse(text: str, env: dict[str, Any]) -> list[list[Token]]:
    """The tokens of each block that stands in no other."""
    groups: list[list[Token]] = []
    depth = 0
    for token in _markdown().parse(text, env):
        if depth == 0:
            groups.append([])
        groups[-1].append(token)
        depth += token.nesting
    return groups


@cache
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("js-default")
    rules = {
        "fence": _code,
        "code_block": _code,
        "heading_open": _heading,
        "heading_close": _heading,
        "image": _picture,
        "link_open": _link,
        "th_open": _cell,
        "td_open": _cell,
        "table_open": lambda *_: '<div class="table" tabindex="0"><table>\n',
        "table_close": lambda *_: "</table></div>\n",
    }
    for name, rule in rules.items():
        markdown.add_render_rule(name, rule)
    return markdown


def _code(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    language = (token.info.split() or [""])[0]
    return (
        f'<div class="code"><div class="code-head"><span>{escapeHtml(language)}</span>'
        '<button type="button" data-action="copy-code">Copy</button></div>'
        f'<pre tabindex="0"><code>{_coloured(token.content, language)}</code></pre></div>\n'
    )


def _heading(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    tokens[index].tag = f"h{min(int(tokens[index].tag[1]) + 2, 6)}"
    return self.renderToken(tokens, index, options, env)


def _picture(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    address = str(token.attrs["src"])
    name = self.renderInlineAsText(token.children or [], options, env) or address
    return f'<a href="{escapeHtml(address)}" rel="noreferrer" target="_blank">{escapeHtml(name)}</a>'


def _link(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    tokens[index].attrs.update(rel="noreferrer", target="_blank")
    return self.renderToken(tokens, index, options, env)


def _cell(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    style = str(tokens[index].attrs.pop("style", ""))  # which the pages' security policy forbids
    if style:
        tokens[index].attrs["class"] = style.removeprefix("text-align:")
    return self.renderToken(tokens, index, options, env)


def _coloured(code: str, language: str) -> str:
    lexer = _lexer(language) if len(code) <= MOST_COLOURED else None
    if lexer is None:
        return escapeHtml(code)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))


@lru_cache(256)
def _lexer(language: str) -> Lexer | None:
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False) if language else None
    except ClassNotFound:
        return None

"""The tag `{% generation %}` of transformers: it prints what it holds, the assistant's words, for a training's mask."""

from __future__ import annotations

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Macro


class GenerationTag(Extension):
    """Prints its body, between two marks if `environment.generation_marks` holds them."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        """The nodes between the tag and its end, which are a scope of their own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("marked"), [], [], body).set_lineno(line)

    def marked(self, caller: Macro) -> str:
        """What the body prints, and the marks around it."""
        opened, closed = self.environment.generation_marks  # type: ignore[attr-defined]  # of LimitedEnvironment
        return f"{opened}{caller()}{closed}"


def has_generation(template: nodes.Template) -> bool:
    """Whether a parsed template has the tag."""
    return any(node.identifier == GenerationTag.identifier for node in template.find_all(nodes.ExtensionAttribute))

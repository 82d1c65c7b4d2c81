"""A model's own chat template, as transformers would run it, but where it can do no harm (see `jinja_limits`)."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from camelid.errors import FormatError, OptionError

if TYPE_CHECKING:
    from camelid.tokens.jinja_limits import LimitedEnvironment

LONGEST = 1_000_000  # characters of a template
_INSTEAD = "name a chat format instead"


class Template:
    """A compiled chat template.

    Attributes:
        source: its text.
        variables: names that it looks up, such as `messages` or `tools`.

    Raises:
        FormatError: it is not a template, or uses something that is not allowed.
    """

    def __init__(self, source: str) -> None:
        import jinja2
        from jinja2.meta import find_undeclared_variables

        from camelid.tokens.jinja_limits import Account, TooMuchError

        self.source = source
        if len(source) > LONGEST:
            raise FormatError(f"chat template: {len(source):,} characters are too many; {_INSTEAD}")
        try:
            with Account():  # constant parts are computed now
                self._template = _environment().from_string(source)
                self.variables = frozenset(find_undeclared_variables(_environment().parse(source)))
        except jinja2.TemplateSyntaxError as error:
            raise FormatError(f"chat template: line {error.lineno}: {_one_line(error)}; {_INSTEAD}") from None
        except (jinja2.TemplateError, RecursionError, MemoryError, SyntaxError, ValueError) as error:
            raise FormatError(f"chat template: {_one_line(error)}; {_INSTEAD}") from None
        except TooMuchError as error:
            raise FormatError(f"chat template: {error}; {_INSTEAD}") from None

    def render(self, messages: Sequence[dict[str, Any]], **names: Any) -> str:
        """The conversation as text, up to the opening of the assistant's turn.

        Args:
            messages: with `role` and `content`.
            names: more that the template may use, such as `tools` or `bos_token`.

        Raises:
            OptionError: the template refuses the conversation, in its own words, or breaks on it.
            FormatError: it runs too long or makes too much text.
        """
        from camelid.tokens.jinja_limits import SIZE, Deadline, TooMuchError

        values = {"messages": list(messages), "add_generation_prompt": True, "tools": None, "documents": None, **names}
        parts, size = [], 0
        try:
            with Deadline():
                for part in self._template.generate(values):
                    size += len(part)
                    if size > SIZE:
                        raise TooMuchError(f"makes more than {SIZE:,} characters")
                    parts.append(part)
        except TooMuchError as error:
            raise FormatError(f"chat template: {error}; {_INSTEAD}") from None
        except RecursionError:
            raise FormatError(f"chat template: calls itself for ever; {_INSTEAD}") from None
        except MemoryError:
            raise FormatError(f"chat template: asks for too much memory; {_INSTEAD}") from None
        except Exception as error:  # whatever a template can raise is its own fault, never ours
            raise OptionError(f"chat template: {_one_line(error)}") from None
        return "".join(parts)


@functools.cache
def _environment() -> LimitedEnvironment:
    from jinja2.ext import loopcontrols

    from camelid.tokens.jinja_limits import LimitedEnvironment
    from camelid.tokens.jinja_tags import GenerationTag

    environment = LimitedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag])
    environment.add_filter("tojson", _to_json)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as chat templates expect it: not escaped for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise OptionError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

"""A model's own chat template, run where it can do no harm: sandboxed, with limits on time and size.

Templates are programs that come with downloaded files. They run in jinja2's immutable sandbox; a tracer stops one that
runs too long, wherever it loops, and what could build a huge text in one operation is checked first.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from camelid.errors import FormatError, OptionError

SECONDS = 2.0
SIZE = 10_000_000  # characters, of the rendered text and of any text on the way
WIDTH = re.compile(r"%[^a-zA-Z%]*?(\d{5,}|\*)")  # a printf width that could fill memory


class _TooMuchError(Exception):
    """A limit was reached."""


class Template:
    """A compiled chat template.

    Raises:
        FormatError: it is not a template.
    """

    def __init__(self, source: str) -> None:
        import jinja2

        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise FormatError(f"chat template: {_one_line(error)}; use a chat format by name instead") from None
        names = self._template.root_render_func.__globals__
        for join in ("str_join", "markup_join"):
            if join in names:
                names[join] = _guarded(names[join])

    def render(self, messages: list[dict[str, str]], **names: Any) -> str:
        """The conversation as text, ready for the assistant's turn.

        Raises:
            OptionError: the template refuses the conversation, with its own words, or breaks on it.
            FormatError: it runs too long or makes too much text.
        """
        parts, size = [], 0
        try:
            with _Deadline(SECONDS):
                for part in self._template.generate(messages=messages, add_generation_prompt=True, **names):
                    size += len(part)
                    if size > SIZE:
                        raise _TooMuchError(f"makes more than {SIZE:,} characters")
                    parts.append(part)
        except _TooMuchError as error:
            raise FormatError(f"chat template: {error}; use a chat format by name instead") from None
        except RecursionError:
            raise FormatError("chat template: calls itself for ever; use a chat format by name instead") from None
        except Exception as error:  # whatever a template can raise is its own, never ours
            raise OptionError(f"chat template: {_one_line(error)}") from None
        return "".join(parts)


class _Deadline:
    """Within it, template code is traced and stopped when its time is over. Works in any thread, and nests."""

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds
        self._before: Any = None

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if time.perf_counter() > self._end:
            raise _TooMuchError(f"runs longer than {SECONDS:g} seconds")
        # Lines are watched in the template's own code; elsewhere a look at each call is enough.
        return self._trace if frame.f_code.co_filename == "<template>" else None


@functools.cache
def _environment() -> Any:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("+", "*", "**", "%"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_operation(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, function: Any, /, *arguments: Any, **named: Any) -> Any:
            own = getattr(function, "__self__", None)
            before = (own,) if isinstance(own, str | list | tuple) else ()
            _check_sizes(getattr(function, "__name__", ""), (*before, *arguments, *named.values()))
            return super().call(context, function, *arguments, **named)

    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    for name, function in environment.filters.items():
        environment.filters[name] = _guarded(function)
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _raise_exception(message: str) -> None:
    raise OptionError(message)


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, refused when its arguments could make a huge text."""

    @functools.wraps(function)
    def guarded(*arguments: Any, **named: Any) -> Any:
        _check_sizes(function.__name__, (*arguments, *named.values()))
        return function(*arguments, **named)

    return guarded


def _check_sizes(name: str, arguments: tuple[Any, ...]) -> None:
    lengths = [len(one) for one in arguments if isinstance(one, str)]
    lengths += [_joined(one) for one in arguments if isinstance(one, list | tuple)]
    if any(isinstance(one, int) and abs(one) > SIZE for one in arguments):
        raise _TooMuchError(f"asks {name or 'a function'} for more than {SIZE:,} characters")
    product = "replace" in name or name == "join"
    total = (max(lengths[:1], default=0) + 1) * max(lengths[1:], default=0) if product else sum(lengths)
    if total > SIZE:
        raise _TooMuchError(f"makes more than {SIZE:,} characters with {name or 'a function'}")


def _joined(items: Any) -> int:
    return len(items) + sum(len(one) for one in items if isinstance(one, str))


def _check_operation(operator: str, left: Any, right: Any) -> None:
    texts = [one for one in (left, right) if isinstance(one, str | list | tuple)]
    numbers = [one for one in (left, right) if isinstance(one, int)]
    if operator == "+" and len(texts) == 2 and len(left) + len(right) > SIZE:
        raise _TooMuchError(f"makes more than {SIZE:,} characters")
    if operator == "*" and texts and numbers and len(texts[0]) * abs(numbers[0]) > SIZE:
        raise _TooMuchError(f"makes more than {SIZE:,} characters")
    if operator == "%" and isinstance(left, str) and WIDTH.search(left):
        raise _TooMuchError("formats with a width that is too large")
    if operator in ("*", "**") and len(numbers) == 2:
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if bits > 10_000:
            raise _TooMuchError("computes with numbers that are too large")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

"""The sandbox that chat templates run in: jinja2's immutable one, with counted limits.

A template is a program that came with a file. Jinja2's sandbox keeps it from objects that are not its business, but
lets it loop for ever or ask for a petabyte. The process that it runs in is bounded in time and memory (`jinja_worker`);
what is counted here refuses the common cases at once, in words, and on systems that bound no memory:

- an operation that makes something large in one step is refused before it starts: products, powers, formats, joins;
- lists in lists are counted when they are made, because comparing or printing them could take for ever;
- all that is made is added up, so that many medium things are refused as well.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment

SIZE = 10_000_000  # characters, of the rendered text and of any text on the way
TOTAL = 10 * SIZE  # characters that may be made on the way, all together
NODES = 300_000  # items of lists and dictionaries, those inside them included
BITS = 10_000  # of a whole number
DEPTH = 50  # calls inside each other; each takes several of Python's own
_WIDTH = re.compile(r"\d{5,}|%[^a-zA-Z%]*\*")  # a width in a format that could fill memory


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TEXT_METHODS = _words(
    "capitalize casefold center count endswith find format index isalnum isalpha isascii isdecimal isdigit isidentifier"
    " islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip partition removeprefix removesuffix"
    " replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title upper"
    " zfill"
)
_LIST_METHODS = _words("count index copy")
_DICT_METHODS = _words("copy get items keys values")
_METHODS: dict[type, frozenset[str]] = {
    str: _TEXT_METHODS,
    list: _LIST_METHODS,
    tuple: _LIST_METHODS,
    dict: _DICT_METHODS,
    bytes: frozenset(),
    int: frozenset(),
    float: frozenset(),
}
_FILTERS = _words(
    "abs batch capitalize center count d default dictsort e escape first float format groupby indent int items join"
    " last length list lower map max min reject rejectattr replace reverse round safe select selectattr slice sort"
    " string sum title trim truncate unique upper wordcount"
)
_GLOBALS = ("range", "dict", "namespace", "cycler", "joiner")


class TooMuchError(BaseException):
    """A limit was reached. Not an `Exception`, so that nothing on the way takes it for an ordinary failure."""


_spent = threading.local()  # of this thread's template: .characters made so far, .depth of calls


class Account:
    """Within it, what a template makes is added up anew. It nests."""

    def __enter__(self) -> None:
        self._before = (getattr(_spent, "characters", 0), getattr(_spent, "depth", 0))
        _spent.characters = _spent.depth = 0

    def __exit__(self, *error: object) -> None:
        _spent.characters, _spent.depth = self._before


class _Generator(CodeGenerator):
    """Has lists, tuples, dictionaries and joined texts checked where the template makes them."""

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._checked(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._checked(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._checked(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _checked(self, visit: Callable[..., None], node: nodes.Expr, frame: Frame) -> None:
        self.write("environment.checked(")
        visit(node, frame)
        self.write(")")


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja2's immutable sandbox in which every operation has limits.

    Attributes:
        generation_marks: what is put before and after the body of a `{% generation %}` tag.
    """

    code_generator_class = _Generator
    intercepted_binops = frozenset(("+", "-", "*", "**", "%", "//", "/"))

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=self._printed, **options)
        self.generation_marks = ("", "")
        self.filters = {name: _guarded(self.filters[name]) for name in _FILTERS}
        tests: dict[str, Any] = self.tests
        self.tests = {name: _guarded(test) for name, test in tests.items()}
        self.globals = {name: self.globals[name] for name in _GLOBALS}

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """One filter more, with the same limits."""
        self.filters[name] = _guarded(function)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may read this attribute: of plain values, only methods that are known to be harmless."""
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def call(self, context: Any, function: Any, /, *arguments: Any, **named: Any) -> Any:
        """Call a method, macro or global function, if its arguments are not too much."""
        own = getattr(getattr(function, "__wrapped__", function), "__self__", None)  # jinja2 wraps str.format
        before = (own,) if isinstance(own, str | list | tuple | dict) else ()
        _check_call(getattr(function, "__name__", ""), (*before, *arguments), named)
        _spent.depth = getattr(_spent, "depth", 0) + 1
        try:
            if _spent.depth > DEPTH:
                raise TooMuchError("calls itself too often")
            return _counted(super().call(context, function, *arguments, **named))
        finally:
            _spent.depth -= 1

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute, if the result is not too much."""
        _check_operation(operator, left, right)
        return _counted(super().call_binop(context, operator, left, right))

    def checked(self, made: Any) -> Any:
        """A list, tuple or dictionary that the template has made."""
        _measure(made)
        return made

    def joined(self, parts: tuple[Any, ...]) -> str:
        """Parts joined by `~`."""
        _limit(sum(map(_measure, parts)))
        return str(_counted(str_join(parts)))

    def _printed(self, value: Any) -> Any:
        _measure(value)
        return value


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same filter or test, refused when its arguments are too much."""
    name = function.__name__.removeprefix("do_").removeprefix("sync_do_")

    @functools.wraps(function)
    def guarded(*arguments: Any, **named: Any) -> Any:
        _check_call(name, arguments, named)
        return _counted(function(*arguments, **named))

    return guarded


def _check_call(name: str, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    values = [value for value in (*arguments, *named.values()) if not _is_machinery(value)]
    numbers = [abs(value) for value in values if isinstance(value, int)]
    sizes = [_measure(value) for value in values if not isinstance(value, int)]
    _limit(sum(sizes) + max(numbers, default=0))
    texts = [value for value in values if isinstance(value, str)]
    if name == "replace" and len(texts) > 2:
        _limit(len(texts[0]) + (len(texts[0]) + 1) * len(texts[2]))
    elif name == "_to_json" and values:  # an escape, or what the other arguments are, for each of its characters
        others = sum(_measure(value) for value in values[1:] if not isinstance(value, int))
        _limit(_measure(values[0]) * (6 + others + max(numbers, default=0)))
    elif name in ("join", "indent"):
        _limit(_items(values) * max(map(len, texts), default=0) + max(numbers, default=0) * sum(sizes))
    elif name == "format" and texts:
        _check_format(texts[0], sizes[1:], numbers)
    elif name in ("batch", "slice"):
        _limit(max(numbers, default=0) * 100)


def _is_machinery(value: Any) -> bool:
    """Jinja2's own objects, which some filters are given first."""
    return type(value).__module__.startswith("jinja2")


def _items(values: list[Any]) -> int:
    return max((len(value) for value in values if isinstance(value, str | list | tuple | dict)), default=0)


def _check_format(pattern: str, sizes: list[int], numbers: list[int]) -> None:
    if _WIDTH.search(pattern):
        raise TooMuchError("formats with a width that is too large")
    places = pattern.count("%") + pattern.count("{")
    _limit(len(pattern) + places * (max(sizes, default=0) + max(numbers, default=0) + 10_000 * (len(pattern) > 1000)))


def _check_operation(operator: str, left: Any, right: Any) -> None:
    number = isinstance(left, int), isinstance(right, int)
    if all(number):
        bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
        if bits > BITS:
            raise TooMuchError("computes with numbers that are too large")
    elif operator == "*" and any(number):
        times, repeated = (left, right) if number[0] else (right, left)
        length = len(repeated) if isinstance(repeated, str | bytes | list | tuple) else 0
        _limit(max(times, 0) * (length if isinstance(repeated, str | bytes) else length * SIZE // NODES))
    elif operator == "%" and isinstance(left, str):
        arguments = right if isinstance(right, tuple) else (right,)
        _check_format(left, [_measure(one) for one in arguments], [])
    elif operator == "+":
        _limit(_measure(left) + _measure(right))


def _measure(value: Any) -> int:
    """Characters that a value has when printed, about; lists in lists are counted as often as they would be."""
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, list | tuple | dict):
        return 20
    total, left, found = 0, [value], 0
    while left:
        inner = left.pop()
        parts = [*inner, *inner.values()] if isinstance(inner, dict) else inner
        found += len(parts)
        if found > NODES:
            raise TooMuchError(f"makes lists of more than {NODES:,} items")
        for part in parts:
            if isinstance(part, list | tuple | dict):
                left.append(part)
            else:
                total += len(part) + 4 if isinstance(part, str) else 20
    return total


def _limit(characters: int) -> None:
    if characters > SIZE:
        raise TooMuchError(f"makes more than {SIZE:,} characters")


def _counted(made: Any) -> Any:
    """Add what was made to the template's account."""
    if isinstance(made, str | bytes):
        size = len(made)
    elif isinstance(made, list | tuple | dict):
        size = len(made) * 8
    else:
        return made
    _spent.characters = getattr(_spent, "characters", 0) + size
    if _spent.characters > TOTAL:
        raise TooMuchError(f"makes more than {TOTAL:,} characters on the way")
    return made

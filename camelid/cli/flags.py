"""From a verb's function to its flags: typer reads the parameters, and options classes become parameters."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from camelid.errors import OptionError
from camelid.options import Options
from camelid.streams import check_text


def run_verb(verb: str, arguments: list[str]) -> int:
    """Run one verb, of one word or two, as `arena rate`; returns the exit status.

    Raises:
        CamelidError: what the verb raises; OptionError for a flag that is wrong.
    """
    module = importlib.import_module(".".join(("camelid.cli.verbs", *verb.split())))
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    app.command(help=f"{module.__doc__}\n\n{module.run.__doc__}")(module.run)
    command = typer.main.get_command(app)
    try:
        with command.make_context(f"camelid {verb}", list(arguments)) as context:
            command.invoke(context)
    except typer.TyperException as error:  # an unknown flag, a missing argument, a value of the wrong kind
        message: str = error.format_message() if hasattr(error, "format_message") else str(error)
        hint = f"see: camelid {verb} --help"
        if type(error).__name__ == "NoSuchOption":  # of click, which newer versions of typer hold themselves
            hint += f"; put -- before a text that begins with -, as in: camelid {verb} -- '- one'"
        raise OptionError(f"{message.strip().rstrip('.')}; {hint}") from None
    except typer.Exit as end:  # after --help
        return int(end.exit_code)
    except typer.Abort:
        raise KeyboardInterrupt from None
    return 0


# Texts in which what a shell cannot easily give is read from escapes.
_ESCAPED = ("stop",)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def takes(parameter: str, kind: type[Options], without: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """Make the fields of `kind` flags of a verb; its `parameter` gets the options made from them.

    A flag that is not given keeps the field's default, so a default has one home. Fields in `without` get no flag.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        names = [name for name in kind.model_fields if name not in without]
        flags = [_flag(kind, name) for name in names]
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != parameter]

        @functools.wraps(function)
        def verb(**values: Any) -> Any:
            given = {name: values.pop(name) for name in names}
            options = kind(**{name: _value(kind, name, value) for name, value in given.items() if value is not None})
            return function(**values, **{parameter: options})

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + flags
        signature = inspect.Signature(parameters)
        verb.__signature__ = signature  # type: ignore[attr-defined]
        verb.__annotations__ = {p.name: p.annotation for p in parameters}
        return verb

    return decorate


def _flag(kind: type[Options], name: str) -> inspect.Parameter:
    field = kind.model_fields[name]
    annotation = _plain(field.annotation)
    default = field.get_default(call_default_factory=True)
    shown: Any = str(default) if default not in (None, (), {}) else False
    many = get_origin(annotation) is list or isinstance(default, tuple)
    panel = (kind.__doc__ or "").partition("\n")[0]
    help_text = (field.description or "") + (r" \n, \t, \r and \\ are escapes." if name in _ESCAPED else "")
    option = typer.Option(help=help_text, show_default=shown, rich_help_panel=panel)
    if isinstance(default, dict):
        annotation = list[str]
        option.metavar = "ID=VALUE"
    elif many:
        annotation = list[str]
    parameter_type: Any = Annotated[annotation | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=parameter_type)


def _plain(annotation: Any) -> Any:
    """A field's type without None and without pydantic's constraints."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        return _plain(rest[0]) if len(rest) == 1 else str  # the options say which texts are numbers
    if get_origin(annotation) is Literal or isinstance(annotation, type):
        return annotation
    return str


def _value(kind: type[Options], name: str, value: Any) -> Any:
    default = kind.model_fields[name].get_default(call_default_factory=True)
    if isinstance(default, dict):
        pairs = [str(item).partition("=") for item in value]
        if not all(mark for _, mark, _ in pairs):
            raise OptionError(f"--{name.replace('_', '-')}: needs ID=VALUE, got {value[0]!r}")
        return {key: number for key, _, number in pairs}
    if name in _ESCAPED:
        value = [_unescaped(name, text) for text in value]
    return tuple(value) if isinstance(value, list) else value


def _unescaped(name: str, text: str) -> str:
    check_text([text], f"--{name}")

    def unescape(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            raise OptionError(
                f"--{name}: unknown escape {match[0]}; choose \\n, \\t, \\r, or \\\\ for a backslash itself"
            )
        return _ESCAPES[match[1]]

    return re.sub(r"\\(.?)", unescape, text, flags=re.DOTALL)

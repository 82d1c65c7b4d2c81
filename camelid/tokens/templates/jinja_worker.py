"""The process that runs chat templates: it gets a template and values, gives back text, and may be ended at any time.

`jinja_process` starts it and speaks with it. A request is JSON: `key` of a template, its `source` where it is not known
here yet, `seconds`, the `values` to render with, and the `marks` to put around what `{% generation %}` holds; without
values the template is only compiled. An answer is one letter and a text (`jinja_pipe`).
"""

from __future__ import annotations

import datetime
import json
import signal
import sys
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.meta import find_undeclared_variables

from camelid.tokens.templates.jinja_pipe import read_message, write_message
from camelid.tokens.templates.jinja_tags import GenerationTag, has_generation
from camelid.tokens.templates.sandbox import SIZE, Account, LimitedEnvironment, TooMuchError

DONE, REFUSED, WRONG, UNKNOWN = "=", "r", "f", "?"  # the conversation is refused; the template is wrong, or not known
MEMORY = 256 << 20  # bytes beyond what the process has when it starts
_MOST_TEMPLATES = 8


class _RefusedError(Exception):
    """What a template says with `raise_exception`."""


class Templates:
    """Compiled templates by their keys, the latest used last."""

    def __init__(self) -> None:
        self._environment = _environment()
        self._compiled: OrderedDict[str, tuple[jinja2.Template, str]] = OrderedDict()

    def answer(self, request: dict[str, Any]) -> tuple[str, str]:
        """The letter and the text that answer a request."""
        try:
            compiled = self._compiled.get(request["key"]) or self._compile(request.get("source"))
            if compiled is None:
                return UNKNOWN, ""
            self._compiled[request["key"]] = compiled
            self._compiled.move_to_end(request["key"])
            if len(self._compiled) > _MOST_TEMPLATES:
                self._compiled.popitem(last=False)
            if "values" not in request:
                return DONE, compiled[1]
            self._environment.generation_marks = request.get("marks", ("", ""))
            with Account():
                return DONE, _rendered(compiled[0], request["values"])
        except TooMuchError as error:
            return WRONG, str(error)
        except jinja2.TemplateSyntaxError as error:
            return WRONG, f"line {error.lineno}: {_one_line(error)}"
        except RecursionError:
            return WRONG, "calls itself for ever, or is nested too deep"
        except MemoryError:
            return WRONG, "asks for too much memory"
        except Exception as error:  # whatever a template can raise is its own fault, never ours
            return REFUSED if "values" in request else WRONG, _one_line(error)

    def _compile(self, source: str | None) -> tuple[jinja2.Template, str] | None:
        """A template, and what `jinja_template` wants to know about it, as JSON."""
        if source is None:
            return None
        with Account():  # constant parts are computed now
            template, parsed = self._environment.from_string(source), self._environment.parse(source)
            return template, json.dumps([sorted(find_undeclared_variables(parsed)), has_generation(parsed)])


def _rendered(template: jinja2.Template, values: dict[str, Any]) -> str:
    parts, size = [], 0
    for part in template.generate(values):
        size += len(part)
        if size > SIZE:
            raise TooMuchError(f"makes more than {SIZE:,} characters")
        parts.append(part)
    return "".join(parts)


def _environment() -> LimitedEnvironment:
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
    raise _RefusedError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _bound_memory() -> None:
    with suppress(ImportError, ValueError, OSError):  # not every system can
        import resource

        now = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Answer requests until standard input ends."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, in the middle of any operation
    templates = Templates()
    _bound_memory()
    while (body := read_message(stdin)) is not None:
        request = json.loads(body)
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        letter, text = templates.answer(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        write_message(stdout, (letter + text).encode("utf-8", "surrogatepass"))

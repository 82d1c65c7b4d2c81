"""The test's side: it runs in a process of its own, and calls the program in another, with plain data only.

The program never sees the test, what it compares with, or where verdicts are written. An object of the program is a
number here; what it is equal to, or says of itself, is not asked. So nothing that a program defines, patches or returns
decides an assertion but the data that its functions give.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator
from typing import Any

from camelid.evals.sandbox.inside import channel, plain


class ProgramEndedError(Exception):
    """The program is gone, or sends what is no answer."""


class Calls:
    """Asks the program over its channel."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def names(self) -> list[str]:
        """Waits until the program's file has run; the names that it has defined."""
        found = self._receive()
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise ProgramEndedError
        return found

    def ask(self, what: str, target: object, *arguments: Any, **named: Any) -> Any:
        """`what` is get (a name of the program), call, attribute, set, item, length or items.

        Lists, dicts and sets among the arguments are changed as the program changed its own.

        Raises:
            ProgramEndedError: no answer.
            Exception: what the program raised: of the same kind, where it is one of Python's own.
        """
        request = plain.dumps((what, target, arguments, named), self._number)
        try:
            channel.send(self.fd, request)
        except channel.EndedError:
            raise ProgramEndedError from None
        kind, value, changed = self._answer()
        for place, now in changed:
            _overwrite(arguments[place], now)
        if kind == "raised":
            name, message = value
            raise _exception(name)(message)
        return value

    def _answer(self) -> tuple[str, Any, list[Any]]:
        answer = self._receive()
        if not isinstance(answer, tuple) or len(answer) != 3 or answer[0] not in ("value", "raised"):
            raise ProgramEndedError
        kind, value, changed = answer
        if kind == "raised" and not (isinstance(value, tuple) and [type(part) for part in value] == [str, str]):
            raise ProgramEndedError
        return str(kind), value, changed

    def _receive(self) -> Any:
        try:
            return plain.loads(channel.receive(self.fd, plain.MOST_BYTES), self._object)
        except Exception:  # whatever it sends, it is no answer
            raise ProgramEndedError from None

    def _object(self, number: object) -> ProgramObject:
        if type(number) is not int:
            raise ValueError("number of an object")
        return ProgramObject(self, number)

    def _number(self, value: object) -> dict[str, int]:
        if isinstance(value, ProgramObject):
            return {"o": value._number}
        raise TypeError(f"the test passes {type(value).__name__}, which cannot cross to the program")


class ProgramObject:
    """Something of the program's that is no plain data: a function, a class, an instance, an iterator.

    Equal to nothing but itself, and neither true nor false.
    """

    _calls: Calls
    _number: int

    def __init__(self, calls: Calls, number: int) -> None:
        vars(self).update(_calls=calls, _number=number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it there."""
        return self._calls.ask("call", self, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._calls.ask("attribute", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._calls.ask("set", self, name, value)

    def __getitem__(self, place: Any) -> Any:
        return self._calls.ask("item", self, place)

    def __len__(self) -> int:
        length = self._calls.ask("length", self)
        if type(length) is not int:
            raise TypeError("length of the program's object")
        return length

    def __iter__(self) -> Iterator[Any]:
        items = self._calls.ask("items", self)
        if type(items) is not list:
            raise TypeError("items of the program's object")
        return iter(items)

    def __bool__(self) -> bool:
        raise TypeError("an object of the program's is neither true nor false here; it must give plain data")


def _overwrite(old: Any, new: Any) -> None:
    if type(old) is not type(new):
        return
    if isinstance(old, list):
        old[:] = new
    elif isinstance(old, dict | set):
        old.clear()
        old.update(new)


def _exception(name: str) -> type[Exception]:
    found = getattr(__import__("builtins"), name, None)
    simple = isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, UnicodeError)
    return found if simple and found is not None else type(name, (Exception,), {})


def run(job: dict[str, Any], calls_fd: int, verdict_fd: int) -> None:
    """Run the test of `job` and write how it went: kind (passed, program, name, or an exception's), the test's line, a
    message."""
    try:
        words = _went(job, Calls(calls_fd))
    except BaseException as error:  # a test may raise anything
        words = {"kind": type(error).__name__, "line": 0, "message": ""}
    os.write(verdict_fd, json.dumps(words).encode())


def _went(job: dict[str, Any], calls: Calls) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "test"}
    try:
        code = compile(job["test"], "<test>", "exec")
        names = set(calls.names())
        exec(compile(job["setup"], "<setup>", "exec"), namespace)
        for name in job["calls"]:
            if name not in names:
                return {"kind": "name", "line": 0, "message": name}
            namespace[name] = calls.ask("get", name)
        exec(code, namespace)
        if job["entry_point"]:
            namespace["check"](namespace[job["entry_point"]])
    except ProgramEndedError:
        return {"kind": "program", "line": 0, "message": ""}
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<test>"]
        message = "" if isinstance(error, AssertionError) else " ".join(str(error).split())[:200]
        return {"kind": type(error).__name__, "line": lines[-1] if lines else 0, "message": message}
    return {"kind": "passed", "line": 0, "message": ""}

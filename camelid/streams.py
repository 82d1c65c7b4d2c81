"""Standard input, output and error as camelid uses them, and text of others made safe for a terminal.

Results go to standard output: what cannot be written there ends the command. Messages go to standard error: what
cannot be said there is dropped, because no result depends on it.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import re
import select
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from camelid.errors import OptionError, ResourceError

_ERRORS = "camelid-escape"
# Controls but tab and line feed, the second set of controls (C1), and halves of surrogate pairs.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_MARKUP = re.compile(r"(\\*)(\[|\Z)")
_NOTHING = "[none][/none]"  # a pair of tags that changes nothing, to keep apart what would be read as one


class ReaderLeftError(BrokenPipeError):
    """Whoever read our standard output has closed it: no error, there is only nobody to tell more."""


class _Output(io.FileIO):
    """Standard output that tells in one line why it cannot be written."""

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        try:
            while rest:
                if (count := super().write(rest)) is None:  # a pipe that another program made non-blocking, and is full
                    select.select([], [self], [])
                rest = rest[count or 0 :]
            return len(data)
        except BrokenPipeError as error:
            raise ReaderLeftError(*error.args) from None
        except OSError as error:
            why = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise ResourceError(f"standard output: cannot be written ({why}); send it where there is room") from None


class _Messages(io.FileIO):
    """Standard error, which no command fails for."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def open_streams() -> None:
    """Make the three streams safe to use, once, before anything is said.

    A closed one is opened, so that no file of ours gets its number; text that the encoding lacks is escaped; an error
    in writing is one line.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        _fill(number, mode)
    codecs.register_error(_ERRORS, _escape)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _wrapped(sys.stdout, _Output, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _wrapped(sys.stderr, _Messages, 2)


def _fill(number: int, mode: int) -> None:
    """Open the null device under a closed number: reading 0 and writing 1 go on failing, writing 2 says nothing."""
    try:
        os.fstat(number)
    except OSError:
        handle = os.open(os.devnull, mode)
        os.dup2(handle, number)  # even if it has this number already: children inherit it then
        if handle != number:
            os.close(handle)


def _wrapped(stream: TextIO | None, kind: type[io.FileIO], number: int) -> TextIO:
    buffer = getattr(stream, "buffer", None)
    unbuffered = type(buffer) is io.FileIO  # python -u
    if stream is not None:
        if not unbuffered and type(getattr(buffer, "raw", None)) is not io.FileIO:
            return stream  # a console of Windows, or somebody's own
        stream.flush()
    errors = _ERRORS if number == 1 else "backslashreplace"
    raw: Any = kind(number, "w", closefd=False)
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors=errors,
        line_buffering=number == 2 or getattr(stream, "line_buffering", False),
        write_through=getattr(stream, "write_through", False),
    )


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """What an encoding lacks, as an escape; bytes of a file's name that are not UTF-8 as those bytes."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    if error.encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        try:
            return text.encode("utf-8", "surrogateescape"), error.end
        except UnicodeEncodeError:
            pass
    return text.encode("ascii", "backslashreplace").decode(), error.end


def give_up_output() -> None:
    """Send the rest of standard output nowhere, so that Python does not fail once more when it leaves."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def stdin_is_terminal() -> bool:
    """Whether a person can answer."""
    return sys.stdin is not None and sys.stdin.isatty()


def read_stdin() -> str:
    """All of standard input as text, its line ends as they are.

    Raises:
        OptionError: it is closed, cannot be read, or is not UTF-8.
    """
    if sys.stdin is None:
        raise OptionError("standard input: is closed; pipe a text in")
    try:
        data = sys.stdin.buffer.read()
    except OSError as error:
        raise OptionError(f"standard input: cannot be read ({error.strerror}); pipe a text in") from None
    return _decoded(data, "standard input")


def read_text(path: Path) -> str:
    """A user's text file, its line ends as they are, without a byte-order mark.

    Raises:
        OptionError: it cannot be read, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise OptionError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return _decoded(data, str(path))


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        marks = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
        kind = next((kind for mark, kind in marks.items() if data.startswith(mark)), None)
        problem = f"is {kind}" if kind else f"is not UTF-8 at byte {error.start}"
        raise OptionError(f"{name}: {problem}; convert it, for example with iconv -t UTF-8") from None


def check_text(texts: Iterable[str | None], name: str) -> None:
    """Refuse text from the command line that is not in the terminal's encoding: it has no letters to be made tokens.

    Raises:
        OptionError: some is not.
    """
    for text in texts:
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            encoding = sys.getfilesystemencoding().upper()
            raise OptionError(f"{name}: is not {encoding}, as this terminal says; convert it, or set LANG") from None


def printable(text: str) -> str:
    r"""Text that no terminal takes for a command: control characters as escapes (`\x1b`), line ends as \n."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def literal(text: str) -> str:
    """Text of others as a part of rich's markup that shows as it is: no tag, no escape sequence."""

    def escape(match: re.Match[str]) -> str:
        backslashes = 2 * match[1] + _NOTHING if match[1] else ""
        return backslashes + (f"[{_NOTHING}" if match[2] else "")

    return _MARKUP.sub(escape, printable(text))


def write(text: str) -> None:
    """Put a result on standard output at once: every byte to a file or pipe, printable text to a terminal."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def write_json(value: Any) -> None:
    """One JSON object, on one line, in the letters that standard output has; the others as JSON's own escapes."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
    write(re.sub("[\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")

"""The process that compiles forms and computes their masks: one child for each form, with its own limits.

What a form needs cannot be told before: a few bytes may ask for millions of states. So each is compiled in a child of
this process, which the kernel ends when it takes too much processor time or memory; whoever waits for it sees the
connection close. Children share the prepared vocabulary with their parent.

Messages, on a socket for each form: first the form (JSON), then orders: `N`, `F`, `P` and `D` are a new text, a copy of
a text, an id for a text, the end of a text. The form and each `P` are answered, in order: by the state, and a mask of
one bit for each id, or what is wrong.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import llguidance

from camelid.chat.forms import COMPILE_SECONDS, MASK_SECONDS, MOST_BYTES, ORDER, REPLY, SLOW_SECONDS
from camelid.chat.json_schema import SchemaError, checked_schema
from camelid.errors import OptionError
from camelid.tokens.tokenizer import Tokenizer

NICE = 10

# One way to write white space: with free white space a weak model may write blanks for ever.
COMPACT = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": '"\\bfnrt',  # `\u0061` would be another spelling of a property that is named already
}


def main(descriptor: int) -> None:
    """Take a tokenizer from standard input, then a socket for each form from the socket `descriptor`, until it closes.

    Python's own pickle is read here, from the process that started this one.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children vanish by themselves
    control = socket.socket(fileno=descriptor)
    tokenizer = _prepare(*pickle.load(sys.stdin.buffer))
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            return
        if os.fork() == 0:
            control.close()
            _serve(Connection(descriptors[0]), tokenizer)
        os.close(descriptors[0])


def _prepare(tokenizer: Tokenizer, stop_ids: tuple[int, ...]) -> llguidance.LLTokenizer:
    wrapper = llguidance.TokenizerWrapper(_Vocabulary(tokenizer, stop_ids))
    return llguidance.LLTokenizer(wrapper, n_vocab=tokenizer.vocab_size, eos_token=list(stop_ids))


class _Vocabulary:
    """A tokenizer in the shape that llguidance asks for."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: tuple[int, ...]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = stop_ids[0], tokenizer.bos_id
        special = {id: text.encode() for text, id in tokenizer.special_ids.items() if not tokenizer.token_bytes(id)}
        self.special_token_ids = sorted({*special, *stop_ids})
        self.tokens = [special.get(id) or tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode_segment(text)


def _serve(connection: Connection, tokenizer: llguidance.LLTokenizer) -> NoReturn:
    """What a child does until its connection closes."""
    with suppress(EOFError, OSError):
        base = _memory()
        _limit_memory()
        _limit_time(COMPILE_SECONDS)
        form = json.loads(connection.recv_bytes())
        made = _run_behind(lambda: _compile(form, tokenizer))
        _limit_time(0)
        if isinstance(made, OptionError):
            refusal = json.dumps([str(made), made.param], ensure_ascii=False)
            connection.send_bytes(REPLY.pack(b"E", 0, False) + refusal.encode("utf-8", "replace"))
        else:
            _answer(connection, made, base)
    os._exit(0)


def _compile(form: dict[str, Any], tokenizer: llguidance.LLTokenizer) -> llguidance.LLMatcher | OptionError:
    """A matcher at the beginning of a text, its first mask computed once; or what is wrong with the form."""
    place = form["place"]
    try:
        grammar = _grammar(form)
    except SchemaError as error:
        return error
    except ValueError as error:  # such as half a character of UTF-16
        return OptionError(f"{place}: {error}", param=place)
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
    matcher.compute_bitmask()
    return OptionError(f"{place}: {matcher.get_error()}", param=place) if matcher.is_error() else matcher


def _grammar(form: dict[str, Any]) -> str:
    text, place = form["text"], form["place"]
    if form["kind"] == "json_schema":
        schema = checked_schema(text, place)
        return llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=COMPACT)
    if form["kind"] == "regex":
        return llguidance.LLMatcher.grammar_from_regex(text)
    for name, (inner, where) in form["schemas"].items():
        schema = {**checked_schema(inner, where), "x-guidance": COMPACT}
        text += f"\n{name}: %json {json.dumps(schema)}"
    return llguidance.LLMatcher.grammar_from_lark(text)


def _answer(connection: Connection, first: llguidance.LLMatcher, base: int) -> None:
    """Carry out orders."""
    connection.send_bytes(_reply(first, base, slow=False))
    texts: dict[int, llguidance.LLMatcher] = {}
    slow = False
    while True:
        order, number, value = ORDER.unpack(connection.recv_bytes())
        if order == b"D":
            del texts[number]
        elif order == b"N":
            texts[number] = first.deep_copy()
        elif order == b"F":
            texts[number] = texts[value].deep_copy()
        else:
            started = time.process_time()
            _limit_time(MASK_SECONDS)
            texts[number].consume_token(value)
            reply = _reply(texts[number], base, slow)
            _limit_time(0)
            connection.send_bytes(reply)
            if not slow and time.process_time() - started > SLOW_SECONDS:
                slow = True
                os.nice(NICE)


def _reply(matcher: llguidance.LLMatcher, base: int, slow: bool) -> bytes:
    state = b"S" if matcher.is_stopped() else b"G"
    content = matcher.compute_bitmask()
    if matcher.is_error():
        state, content = b"E", matcher.get_error().encode("utf-8", "replace")
    return REPLY.pack(state, max(0, _memory() - base), slow) + content


def _run_behind(work: Callable[[], Any]) -> Any:
    """Run `work` in a thread that gives way to others; its result."""
    results: list[Any] = []

    def run() -> None:
        with suppress(OSError):  # a thread has its own priority on Linux only
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        results.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


def _limit_time(seconds: float) -> None:
    """End this process if it computes for longer from now on; 0: no limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):  # no /proc, no limit
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
        most = pages * resource.getpagesize() + MOST_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _memory() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

"""Forms at work: what asks the process of `form_process.py`, keeps what it has compiled, and hands out constraints.

Nothing here computes: a form that would take all the time and memory there is takes its own process's share, and ends.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict, deque
from contextlib import suppress
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from camelid.errors import OptionError, ResourceError
from camelid.tokens.tokenizer import Tokenizer

COMPILE_SECONDS = 2.0  # of the processor, for making a form
MASK_SECONDS = 0.5  # for taking an id and computing the next mask
SLOW_SECONDS = 0.02  # a form whose masks take longer runs behind everything else
MOST_BYTES = 64 << 20  # of memory, beyond what is shared
AT_ONCE = 2  # forms that are compiled at the same time
OWN_BYTES = 6 << 20  # of a process without a form; what it has beside is measured
MOST_KEPT_BYTES = 64 << 20  # compiled forms that no text has, kept for the next one
MOST_TOTAL_BYTES = 192 << 20  # of all compiled forms
MOST_REFUSED = 256  # forms known to be wrong
PATIENCE = 60.0  # seconds of the clock, on a machine that is busy with other things
ORDER = struct.Struct("<cIi")  # N, F, P or D; the text's number; its id, or the text it is copied from
REPLY = struct.Struct("<cQ?")  # G: goes on, S: nothing may follow, E: an error; bytes of memory; whether it is slow
_TOO_MUCH = (
    f"is too complex: its automaton takes more than {COMPILE_SECONDS:g} s or {MOST_BYTES >> 20} MB to make, "
    f"or {MASK_SECONDS:g} s for a token; make numbers, lengths, repetitions or choices in it fewer or smaller"
)


class Compiled:
    """One compiled form in its process, with the texts that are written after it. For several threads.

    Attributes:
        place: what the form is called in messages.
        size: bytes of memory that it takes, beyond what all forms share.
        slow: computing its masks takes long.
    """

    def __init__(self, connection: Connection, place: str) -> None:
        self.place, self.size, self.slow = place, OWN_BYTES, False
        self.first: tuple[bytes, bytes] = (b"", b"")  # state and mask of an empty text
        self._connection = connection
        self._lock = threading.Lock()
        self._asked: deque[Constraint] = deque()  # in the order in which they are answered
        self._ended: deque[int] = deque()  # texts that nobody has any more
        self._live: set[int] = set()
        self._n_texts = 0
        self._closed = False

    def compile(self, form: str, stopping: threading.Event) -> OptionError | None:
        """Send the form and wait; what is wrong with it, if anything.

        Raises:
            EOFError, OSError: the process has ended, most likely at a limit.
            ResourceError: there is no time.
        """
        self._connection.send_bytes(form.encode("utf-8", "surrogatepass"))
        end = time.monotonic() + PATIENCE
        while not self._connection.poll(0.1):
            if stopping.is_set() or time.monotonic() > end:
                raise ResourceError(f"{self.place}: there was no time to prepare it; try again later")
        self.first = state, content = self._take()
        if state != b"E":
            return None
        message, param = json.loads(content)
        return OptionError(one_line(message), param=param)

    def start(self, size: int) -> Constraint:
        """A new text, with masks of `size` ids."""
        return Constraint(self, self._new(b"N", 0), size, *self.first)

    def copy(self, number: int) -> int:
        """The number of a copy of a text."""
        return self._new(b"F", number)

    def push(self, constraint: Constraint, number: int, id: int) -> None:
        """Send an id; the answer is given to `constraint` by `wait`."""
        with self._lock:
            self._asked.append(constraint)
            self._send(b"P", number, id)

    def wait(self, constraint: Constraint, seconds: float) -> bool:
        """Whether `constraint` has its answer, at the latest after so long."""
        end = time.monotonic() + seconds
        while not constraint.answered:
            left = max(0.0, end - time.monotonic())
            if not self._lock.acquire(timeout=left):
                return constraint.answered
            try:
                if not constraint.answered and self._connection.poll(min(left, 0.001)):
                    answer = self._take()
                    self._asked.popleft().take(*answer)
            except (EOFError, OSError):
                self._fail()
            finally:
                self._lock.release()
            if left == 0:
                return constraint.answered
        return True

    def forget(self, number: int) -> None:
        """A text is done with; called from anywhere, since garbage is collected anywhere."""
        self._ended.append(number)

    @property
    def is_idle(self) -> bool:
        """Whether no text is written after it."""
        return len(self._live) == len(self._ended)

    @property
    def is_broken(self) -> bool:
        """Whether its process has ended."""
        return self._closed

    def close(self) -> None:
        """End its process."""
        with self._lock:
            self._fail()

    def _new(self, order: bytes, value: int) -> int:
        with self._lock:
            while self._ended:
                number = self._ended.popleft()
                self._live.discard(number)
                self._send(b"D", number, 0)
            self._n_texts += 1
            self._live.add(self._n_texts)
            self._send(order, self._n_texts, value)
            return self._n_texts

    def _send(self, order: bytes, number: int, value: int) -> None:
        try:
            self._connection.send_bytes(ORDER.pack(order, number, value))
        except OSError:
            self._fail()

    def _take(self) -> tuple[bytes, bytes]:
        data = self._connection.recv_bytes()
        state, size, self.slow = REPLY.unpack_from(data)
        self.size = OWN_BYTES + size
        return state, data[REPLY.size :]

    def _fail(self) -> None:
        self._closed = True
        self._connection.close()
        while self._asked:
            self._asked.popleft().take(b"E", _TOO_MUCH.encode())


class Constraint:
    """The automaton of one running request, as the engine uses it."""

    def __init__(self, compiled: Compiled, number: int, size: int, state: bytes, content: bytes) -> None:
        self._compiled, self._number, self._size = compiled, number, size
        self._state, self._content = state, content
        self.answered = True

    def __del__(self) -> None:
        self._compiled.forget(self._number)

    @property
    def slow(self) -> bool:
        """Whether its masks take long, so that nobody should wait for more of them than needed."""
        return self._compiled.slow

    @property
    def finished(self) -> bool:
        """Is the text complete, with nothing that could follow?"""
        self._wait()
        return self._state == b"S"

    def ready(self, seconds: float = 0.0) -> bool:
        """Whether what follows the last id is known, at the latest after so long."""
        return self._compiled.wait(self, seconds)

    def mask(self) -> NDArray[np.bool_]:
        """Which ids may come next, (V,)."""
        self._wait()
        mask = np.zeros(self._size, np.bool_)
        allowed = np.unpackbits(np.frombuffer(self._content, np.uint8), bitorder="little")[: self._size]
        mask[: len(allowed)] = allowed
        return mask

    def push(self, id: int) -> None:
        """Take the id that was chosen."""
        self._wait()
        self.answered = False
        self._compiled.push(self, self._number, id)

    def fork(self) -> Constraint:
        """A copy that goes its own way, for another sample of the same request."""
        self._wait()
        return Constraint(self._compiled, self._compiled.copy(self._number), self._size, self._state, self._content)

    def take(self, state: bytes, content: bytes) -> None:
        """The answer to the last id."""
        self._state, self._content, self.answered = state, content, True

    def _wait(self) -> None:
        if not self.ready(PATIENCE):
            raise ResourceError(f"{self._compiled.place}: there was no time to go on with it; try again later")
        if self._state == b"E":
            reason = one_line(self._content.decode("utf-8", "replace"))
            raise OptionError(f"{self._compiled.place}: {reason}", param=self._compiled.place)


class FormProcess:
    """The process for the forms of one vocabulary; started when the first form is asked for. For several threads.

    Args:
        tokenizer: whose ids are masked.
        stop_ids: ids that end a text.
    """

    def __init__(self, tokenizer: Tokenizer, stop_ids: tuple[int, ...]) -> None:
        self._prepared = tokenizer, stop_ids
        self._lock = threading.Lock()
        self._compiling = threading.BoundedSemaphore(AT_ONCE)
        self._forms: OrderedDict[bytes, Compiled] = OrderedDict()  # longest unused first
        self._refused: OrderedDict[bytes, OptionError] = OrderedDict()
        self._control: socket.socket | None = None
        self._stopping = threading.Event()

    def compiled(self, place: str, form: dict[str, object]) -> Compiled:
        """The compiled form, made now if it is not known.

        Raises:
            OptionError: it is wrong, not supported, or too complex.
            ResourceError: forms at work take all the memory they may, or the process cannot be started.
        """
        text = json.dumps({**form, "place": place})
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        known = self._known(key)
        if known is not None:
            return known
        with self._compiling:
            known = self._known(key)  # somebody else may have made it meanwhile
            if known is not None:
                return known
            self._make_room(place)
            compiled, refusal = self._make(place, text)
            with self._lock:
                if refusal is not None:
                    compiled.close()
                    self._refused[key] = refusal
                    if len(self._refused) > MOST_REFUSED:
                        self._refused.popitem(last=False)
                else:
                    self._forms[key] = compiled
        if refusal is not None:
            raise refusal
        return compiled

    def close(self) -> None:
        """End the process and all of its children; who waits is told so."""
        self._stopping.set()
        with self._lock:
            for compiled in self._forms.values():
                compiled.close()
            self._forms.clear()
            if self._control is not None:
                self._control.close()

    def _known(self, key: bytes) -> Compiled | None:
        with self._lock:
            if key in self._refused:
                raise copy.copy(self._refused[key])
            compiled = self._forms.get(key)
            if compiled is not None and compiled.is_broken:
                del self._forms[key]
                return None
            if compiled is not None:
                self._forms.move_to_end(key)
            return compiled

    def _make(self, place: str, text: str) -> tuple[Compiled, OptionError | None]:
        """The compiled form, and what is wrong with it."""
        for _ in range(2):
            compiled = Compiled(self._connect(place), place)
            try:
                return compiled, compiled.compile(text, self._stopping)
            except (EOFError, OSError):
                compiled.close()
                if not self._is_gone():
                    break
        return compiled, OptionError(f"{place}: {_TOO_MUCH}"[:300], param=place)

    def _is_gone(self) -> bool:
        """Whether somebody has ended the process from which the forms' own are made."""
        time.sleep(0.05)  # its sockets close one after the other
        with self._lock:
            if self._control is None:
                return True
            try:
                return self._control.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
            except BlockingIOError:  # nothing has come, and it is open
                return False
            except OSError:
                return True

    def _make_room(self, place: str) -> None:
        """Close what nobody uses, longest unused first, and wait for others to end if that is not enough."""
        end = time.monotonic() + PATIENCE
        while not self._has_room():
            if self._stopping.is_set() or time.monotonic() > end:
                raise ResourceError(f"{place}: other forms take all the memory that forms may take; try again later")
            time.sleep(0.05)

    def _has_room(self) -> bool:
        with self._lock:
            idle = sum(compiled.size for compiled in self._forms.values() if compiled.is_idle)
            for key, compiled in list(self._forms.items()):
                if compiled.is_idle and idle > MOST_KEPT_BYTES:
                    idle -= compiled.size
                    compiled.close()
                if compiled.is_broken:
                    del self._forms[key]
            return sum(compiled.size for compiled in self._forms.values()) <= MOST_TOTAL_BYTES

    def _connect(self, place: str) -> Connection:
        """A connection to a new child."""
        ours, theirs = socket.socketpair()
        with ours, theirs, self._lock:
            for _ in range(2):  # the process may have been ended by somebody
                if self._control is None:
                    self._control = self._start()
                try:
                    socket.send_fds(self._control, [b"f"], [theirs.fileno()])
                except OSError:
                    self._control.close()
                    self._control = None
                else:
                    return Connection(ours.detach())
        raise ResourceError(f"{place}: the process that prepares forms does not start; is there enough memory?")

    def _start(self) -> socket.socket:
        if self._stopping.is_set():
            raise ResourceError("form: the model is being closed")
        ours, theirs = socket.socketpair()
        code = (
            "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
            "from camelid.chat.form_process import main; main(int(sys.argv[1]))"
        )
        arguments = [sys.executable, "-c", code, str(theirs.fileno()), json.dumps(sys.path)]
        with theirs:
            try:
                process = subprocess.Popen(
                    arguments,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is for us
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                )
            except OSError as error:
                raise ResourceError(f"form: the process that prepares forms does not start: {error}") from None
        weakref.finalize(self, _end, process, ours)
        with suppress(OSError), process.stdin as stream:  # type: ignore[union-attr]
            pickle.dump(self._prepared, stream)
        return ours


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def one_line(message: str) -> str:
    """A message of llguidance, without the state and the lines of a grammar that it quotes."""
    reason, _, _ = message.partition("<state>")
    reason = reason.replace("Enable 'coerce_one_of' option to approximate oneOf with anyOf", "Use anyOf")
    lines = (line.strip() for line in reason.splitlines())
    return " ".join(line for line in lines if not line.partition(" |")[0].isdigit())[:300]

"""The pickle in a file of torch.save, run by a small machine of our own.

A pickle is a program. This machine knows the instructions that make dictionaries, lists and tuples of texts, numbers
and tensors, and the few functions that rebuild a tensor, each replaced by our own; anything else is refused before it
can run. Python's unpickler would hash and compare what a program made: tuples of tuples that share their parts, sixty
deep, keep it busy for ever. Here keys are texts or numbers, and nothing is walked through.
Source of the instructions: Python's pickletools.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from camelid.errors import FormatError

# torch's storage classes → dtype as safetensors writes it, bytes of an item.
STORAGES = {
    "FloatStorage": ("F32", 4),
    "HalfStorage": ("F16", 2),
    "BFloat16Storage": ("BF16", 2),
    "DoubleStorage": ("F64", 8),
    "LongStorage": ("I64", 8),
    "IntStorage": ("I32", 4),
    "ShortStorage": ("I16", 2),
    "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1),
}
MAX_BYTES = 1 << 24  # of a program; that of Llama 3.1 405B has 200,000
_MAX_STEPS = 500_000  # instructions; a tensor takes about forty
_MAX_DIMS = 8
_MAX_ARGUMENTS = 16
_MAKES_CODE_RUN = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BUFFER", "NEXT_BUFFER"}
# Python's own modules through which a pickle could do something; nobody's model is made of them.
_RUN_PROGRAMS = frozenset(
    """builtins __builtin__ os posix nt subprocess sys shutil socket runpy importlib ctypes pty code codeop pickle
    _pickle operator webbrowser tempfile multiprocessing threading signal asyncio timeit pdb bdb pip
    setuptools""".split()  # noqa: SIM905
)
_ONLY_DATA = frozenset(("set", "frozenset", "slice", "range", "complex", "bytearray", "object"))  # of `builtins`
_DTYPES = frozenset(("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"))
_AGAIN = "fetch or convert it again"


class Storage(NamedTuple):
    """A storage named by the pickle: which member of the zip, and what its items are."""

    key: str
    dtype: str
    item: int
    n_items: int


class View(NamedTuple):
    """A tensor named by the pickle: a strided view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Mark:
    """On the stack: where the parts of the next thing begin."""


class _StorageClass(NamedTuple):
    """On the stack: one of torch's classes of storages."""

    name: str


def run_program(path: Path, program: bytes) -> Any:
    """What the pickle of the file `path` makes; tensors are `View`s.

    Raises:
        FormatError: damaged, or it asks for anything but tensors.
    """
    if len(program) > MAX_BYTES:
        raise FormatError(f"{path}: a pickle of {len(program)} bytes is not a list of tensors; {_AGAIN}")
    try:
        return _Machine(path).run(program)
    except FormatError:
        raise
    except Exception as error:  # a damaged pickle may fail in any way
        raise FormatError(f"{path}: damaged pickle ({type(error).__name__}: {str(error)[:80]}); {_AGAIN}") from None


class _Machine:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """Step through the instructions; the last thing made."""
        for name, argument in self._instructions(program):
            if name == "STOP":
                return self._stack.pop()
            if name in _PUSHES:
                self._push(argument)
            elif name in _MAKES:
                take, make = _MAKES[name]
                parts = self._pop_to_mark() if take is None else self._pop(take)
                self._stack.append(make(parts))
            elif name not in _NOTHING:
                self._step(name, argument)
        raise ValueError("no end")

    def _instructions(self, program: bytes) -> list[tuple[str, Any]]:
        """All of them, before the first is run: refused if there is one that makes objects of other classes."""
        steps: list[tuple[str, Any]] = []
        named: list[str] = []  # what it has called by name so far
        for opcode, argument, _ in pickletools.genops(program):
            name, argument = opcode.name, cast("Any", argument)
            if len(steps) > _MAX_STEPS:
                raise FormatError(f"{self._path}: a pickle of so many instructions is not a list of tensors; {_AGAIN}")
            if name in ("GLOBAL", "INST"):
                named.append(str(argument).replace(" ", "."))
            if name in _MAKES_CODE_RUN:
                raise not_tensors(self._path, [*named, name])
            if name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > 2 * len(steps) + 1000:
                raise FormatError(f"{self._path}: damaged pickle (memo number {argument}); {_AGAIN}")
            steps.append((name, argument))
        return steps

    def _push(self, value: Any) -> None:
        if type(value) is int and value.bit_length() > 64:
            raise ValueError(f"a whole number of {value.bit_length()} bits")
        self._stack.append(value)

    def _step(self, name: str, argument: Any) -> None:
        """The instructions that do more than push or gather."""
        stack, memo = self._stack, self._memo
        if name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name.endswith("PUT"):
            memo[argument] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(self._find(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(self._find(*self._pop(2)))
        elif name == "REDUCE":
            function, arguments = self._pop(2)
            known = any(function is other for other in _KNOWN.values())
            if not known or type(arguments) is not tuple or len(arguments) > _MAX_ARGUMENTS:
                raise ValueError("calls something that is not a function")
            stack.append(function(*arguments))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "BUILD":  # a state_dict has a list of versions, of no use here
            stack.pop()
            if type(stack[-1]) is not dict:
                raise ValueError("changes an object after making it")
        elif name in _FILLS:
            take, fill = _FILLS[name]
            parts = self._pop_to_mark() if take is None else self._pop(take)
            fill(stack[-1], parts)
        elif name in ("POP", "POP_MARK"):
            self._pop_to_mark() if name == "POP_MARK" else stack.pop()
        else:
            raise FormatError(f"{self._path}: {name} in the pickle belongs to no tensor; {_AGAIN}")

    def _pop(self, count: int) -> list[Any]:
        start = len(self._stack) - count
        if start < 0:
            raise ValueError("takes more than there is")
        parts = self._stack[start:]
        del self._stack[start:]
        return parts

    def _pop_to_mark(self) -> list[Any]:
        parts = []
        while (part := self._stack.pop()) is not _Mark:
            parts.append(part)
        return parts[::-1]

    def _find(self, module: Any, name: Any) -> Any:
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name that is not a text")
        known = _stand_in(module, name)
        if known is None:
            raise not_tensors(self._path, [f"{module}.{name}"])
        return known

    def _storage(self, pid: Any) -> Storage:
        kind, storage, key, _location, count = pid
        known = kind == "storage" and isinstance(storage, _StorageClass)
        if not known or type(key) is not str or type(count) is not int:
            said = kind[:60] if type(kind) is str else type(kind).__name__
            raise FormatError(f"{self._path}: names a storage of an unknown kind ({said}); {_AGAIN}")
        dtype, item = STORAGES[storage.name]
        return Storage(key, dtype, item, count)


def not_tensors(path: Path, named: list[str]) -> FormatError:
    """What to say of a file that asks for `named`, functions and classes, in the order in which it does."""
    unknown = [name for name in named if _stand_in(*name.rpartition(".")[::2]) is None]
    parts = [(name, name.partition(".")[0], name.rpartition(".")[2]) for name in unknown]
    evil = next((name for name, root, own in parts if root in _RUN_PROGRAMS and own not in _ONLY_DATA), None)
    if evil is not None:
        return FormatError(
            f"{path}: the file tries to run code ({evil[:80]}); do not open it with torch either: "
            "fetch the model from a source you trust, as safetensors if there is one"
        )
    what = next((name for name in unknown if "." in name), unknown[-1])
    return FormatError(
        f"{path}: holds a Python object ({what[:80]}), not tensors alone; such objects are not opened, as that would "
        "run their code; save the tensors: torch.save(model.state_dict(), FILE)"
    )


def _stand_in(module: str, name: str) -> Any:
    """What a pickle gets for a name that it may call; None for every other name."""
    if module in ("torch", "torch.storage") and name in STORAGES:
        return _StorageClass(name)
    if module == "torch" and name in _DTYPES:
        return name
    return _KNOWN.get((module, name))


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> View:
    """Stands in for torch._utils._rebuild_tensor_v2; gradients and hooks that follow are of no use here."""
    if type(shape) is not tuple or type(strides) is not tuple or not len(shape) == len(strides) <= _MAX_DIMS:
        raise ValueError("a tensor whose shape and strides do not fit each other")
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or any(type(value) is not int or value < 0 for value in numbers):
        raise ValueError("a tensor with negative or odd sizes")
    return View(storage, offset, shape, strides)


def _dict(parts: Sequence[Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    _set(made, parts)
    return made


def _set(target: Any, parts: Sequence[Any]) -> None:
    """Put keys and values, one after the other, into a dictionary."""
    if type(target) is not dict or len(parts) % 2:
        raise ValueError("fills something that is not a dictionary")
    for key, value in zip(parts[::2], parts[1::2], strict=True):
        if type(key) not in (str, int, float, bool, type(None)):
            raise ValueError(f"a key that is a {type(key).__name__}")
        target[key] = value


def _append(target: Any, parts: Sequence[Any]) -> None:
    if type(target) is not list:
        raise ValueError("fills something that is not a list")
    target.extend(parts)


def _size(parts: Any) -> tuple[Any, ...]:
    if type(parts) is not tuple:
        raise ValueError("a size that is not a tuple")
    return parts


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): lambda: {},
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
}
_NOTHING = {"PROTO", "FRAME"}
# fmt: off
_PUSHES = {
    "INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8",
}
# fmt: on
# Instruction → how many parts it takes from the stack (None: all from the mark on), and what it makes of them.
_MAKES: dict[str, tuple[int | None, Callable[[list[Any]], Any]]] = {
    "MARK": (0, lambda parts: _Mark),
    "NONE": (0, lambda parts: None),
    "NEWTRUE": (0, lambda parts: True),
    "NEWFALSE": (0, lambda parts: False),
    "EMPTY_TUPLE": (0, tuple),
    "TUPLE1": (1, tuple),
    "TUPLE2": (2, tuple),
    "TUPLE3": (3, tuple),
    "TUPLE": (None, tuple),
    "EMPTY_LIST": (0, list),
    "LIST": (None, list),
    "EMPTY_DICT": (0, _dict),
    "DICT": (None, _dict),
}
# Instruction → the same, and what it does to the thing below.
_FILLS: dict[str, tuple[int | None, Callable[[Any, list[Any]], None]]] = {
    "APPEND": (1, _append),
    "APPENDS": (None, _append),
    "SETITEM": (2, _set),
    "SETITEMS": (None, _set),
}

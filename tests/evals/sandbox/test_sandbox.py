"""What a sandbox gives and keeps away: verdicts, limits, levels, refusals, packages, many at once."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

if not sys.platform.startswith("linux"):
    pytest.skip("the sandbox runs on Linux", allow_module_level=True)

from camelid.errors import MissingError, OptionError, UnsupportedError
from camelid.evals.sandbox import Check, Limits, Program, Sandbox
from camelid.evals.sandbox.calls import defined, find_calls, imports_of, modules_for, parsed, used
from camelid.evals.sandbox.inside import plain, seccomp
from tests.evals.sandbox.test_hostile import processes_below


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    try:
        box = Sandbox(workers=1)
    except UnsupportedError as error:
        pytest.skip(str(error))
    with box:
        yield box


def check(source: str, *calls: str, setup: str = "") -> Check:
    return Check(source, calls or ("f",), setup=setup)


# --- plain data ---

keys = st.one_of(st.integers(), st.text(), st.booleans(), st.none(), st.binary(), st.fractions())
values = st.recursive(
    st.one_of(keys, st.floats(allow_nan=False), st.complex_numbers(allow_nan=False), st.decimals(allow_nan=False)),
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.sets(keys), st.frozensets(keys), st.dictionaries(keys, inner)
    ),
)


@given(values)
def test_plain_data_crosses_as_it_is(value):
    back = plain.loads(plain.dumps(value, refuse), refuse)
    assert back == value
    assert repr(back) == repr(value) or isinstance(value, set | frozenset | dict | list | tuple)
    assert type(back) is type(value)


def refuse(value: object) -> object:
    raise AssertionError(value)


def test_what_derives_from_plain_data_crosses_as_what_it_derives_from():
    class Evil(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    class Row(tuple):
        __slots__ = ()

    back = plain.loads(plain.dumps([Evil(3), Row((1, 2)), math.nan], refuse), refuse)
    assert [type(one) for one in back] == [int, tuple, float]
    assert back[0] == 3
    assert back[0] != 4
    assert math.isnan(back[2])
    assert plain.loads(plain.dumps([Fraction(1, 3), Decimal("1.10")], refuse), refuse) == [
        Fraction(1, 3),
        Decimal("1.1"),
    ]


# --- verdicts ---


def test_a_test_asks_the_program(sandbox):
    program = "import math\ndef f(x): return math.floor(x) + 1\nclass P:\n    def __init__(self, a): self.a = a\nN = 3"
    assert sandbox.run(program, check("assert f(1.5) == 2")).passed
    ran = sandbox.run(program, check("\nassert f(1) == 2\nassert f(2) == 4"))
    assert (ran.passed, ran.reason) == (False, "assertion failed: assert f(2) == 4")
    assert sandbox.run(program, check("p = P(7)\np.b = [1]\nassert [p.a, p.b, N] == [7, [1], 3]", "P", "N")).passed
    assert sandbox.run(program, check("assert f(1) == g(1)", setup="def g(x): return x + 1")).passed
    assert sandbox.run(program, check("f", "h")).reason == "h: not defined by the program"
    assert "function, which cannot cross" in sandbox.run(program, check("f(lambda: 1)")).reason


def test_arguments_change_as_the_program_changes_them(sandbox):
    program = "def f(a, b, c):\n    a.append(1)\n    b['x'] = 2\n    c.discard(3)\n    return len(a)"
    assert sandbox.run(
        program, check("a, b, c = [], {}, {3}\nassert f(a, b, c) == 1\nassert (a, b, c) == ([1], {'x': 2}, set())")
    )
    assert sandbox.run(program, check("a = [5]\nf(a, {}, set())\nassert a == [5]")).reason.startswith(
        "assertion failed"
    )


def test_exceptions_of_the_program_reach_the_test(sandbox):
    program = "class Own(Exception): pass\ndef f(x):\n    if x: raise ValueError('no')\n    raise Own"
    source = "try:\n    f(1)\nexcept ValueError as e:\n    assert str(e) == 'no'\nelse:\n    assert False\n"
    assert sandbox.run(program, check(source)).passed
    assert sandbox.run(program, check("f(0)")).reason == "Own:  (at: f(0))"


def test_iterators_and_lengths_are_asked_for(sandbox):
    program = "def f(n):\n    return (i for i in range(n))\ndef g(): return range(5)"
    assert sandbox.run(program, check("assert list(f(3)) == [0, 1, 2]\nassert sum(f(3)) == 3")).passed
    assert sandbox.run(program, check("assert len(g()) == 5\nassert g()[2] == 2", "g")).passed
    assert "neither true nor false" in sandbox.run(program, check("assert f(1)")).reason


def test_alone_it_passes_at_its_end(sandbox):
    ran = sandbox.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\nif __name__ == '__main__': print(2)")
    assert (ran.passed, ran.stdout, ran.stderr) == (True, "out\n2\n", "err\n")
    assert sandbox.run("1/0").reason == "ZeroDivisionError: division by zero"
    assert "SyntaxError" in sandbox.run("def").reason
    assert sandbox.run("import sys; sys.exit(3)").reason == "ended early, with status 3"
    assert sandbox.run("import threading\nthreading.Thread(target=print, args=('late',)).start()").stdout == "late\n"
    assert sandbox.run("import atexit\natexit.register(print, 'last')").stdout == "last\n"
    assert sandbox.run("\0").passed is False
    assert sandbox.run("# é\nprint('ü', end='')").stdout == "ü"


def test_its_scratch_folder_is_its_own(sandbox):
    program = "import os, tempfile\nassert os.listdir('.') == []\nopen('a', 'w').write('x')\nopen('/tmp/b', 'w')\n"
    program += "tempfile.NamedTemporaryFile()\nos.mkdir('c')\nprint(sorted(os.listdir('.')))"
    for _ in range(2):
        ran = sandbox.run(program)
        assert ran.stdout == "['a', 'b', 'c']\n", ran


def test_the_standard_library_is_there(sandbox):
    ran = sandbox.run("import ctypes, sqlite3, ssl, asyncio, zoneinfo\nprint(asyncio.run(asyncio.sleep(0, 5)))")
    assert ran.stdout == "5\n", ran
    ran = sandbox.run(
        "import os\npid = os.fork()\nif pid == 0: os._exit(7)\nprint(os.waitstatus_to_exitcode(os.wait()[1]))"
    )
    assert ran.stdout == "7\n", ran


def test_numbers_are_the_same_at_every_run(sandbox):
    programs = [Program("import random\nprint(random.random(), hash('x'))")] * 3
    assert len({ran.stdout for ran in sandbox.run_all(programs)}) == 1


def test_a_test_that_is_large_and_one_that_is_no_python(sandbox):
    assert sandbox.run("def f(x): return x", check(f"assert f(1) == 1\n# {'x' * (1 << 21)}")).passed
    assert sandbox.run("def f(x): return x", check("assert f(")).reason.startswith("SyntaxError")
    assert sandbox.run("def f(x): return x", check("assert f('" + "y" * 100000 + "')")).passed


@pytest.mark.parametrize(
    ("limits", "program", "limit"),
    [
        ({"seconds": 0.3}, "import time\ntime.sleep(9)", "time"),
        pytest.param({"cpu_seconds": 1}, "while True: pass", "processor time", marks=pytest.mark.slow),
        ({"memory_mb": 32}, "x = bytearray(64 << 20)", "memory"),
        ({"output_kb": 1}, "print('x' * 4096)", "output"),
    ],
)
def test_limits(sandbox, limits, program, limit):
    with Sandbox(limits=Limits(**limits), workers=1) as box:
        ran = box.run(program)
        assert (ran.passed, ran.limit, ran.reason) == (False, limit, f"{limit} limit")
        assert ran.seconds < 5
        assert box.run("print('next')").passed


# --- levels ---


def test_each_level_says_what_it_enforces(sandbox):
    words = " ".join(sandbox.enforced)
    assert "network: none" in words
    assert "read-only" in words
    with pytest.raises(OptionError, match="--i-accept-running-generated-code"):
        Sandbox("basic")
    with pytest.raises(OptionError, match="choose strict or basic"):
        Sandbox("lax")  # type: ignore[arg-type]
    with Sandbox("basic", workers=1, accept_generated_code=True) as basic:
        assert "namespace" not in " ".join(basic.enforced)
        assert basic.run("print(1)").passed


def test_elsewhere_it_refuses(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UnsupportedError, match="Linux only"):
        Sandbox()


FORBIDDEN = """
import ctypes, struct
# unshare and clone with CLONE_NEWUSER fail, as in many containers: seccomp.
rows = [(0x20, 0, 0, 0), (0x15, 0, 1, {number}), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *row) for row in rows))
c = ctypes.CDLL(None)
c.prctl(38, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
c.prctl(22, ctypes.c_ulong(2), ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 4, ctypes.addressof(code))))
from camelid.evals.sandbox import Sandbox
try:
    Sandbox(workers=1)
except Exception as error:
    print(type(error).__name__, error)
with Sandbox("basic", workers=1, accept_generated_code=True) as basic:
    print(basic.run("import socket\\nsocket.socket()").reason)
    print(basic.run("open('/etc/passwd')").reason)
    print(basic.run("print(1)").reason)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the call's number")
def test_where_namespaces_are_forbidden_strict_names_what_lacks():
    done = subprocess.run(
        [sys.executable, "-c", FORBIDDEN.format(number=272)], capture_output=True, text=True, check=False
    )
    first, *rest = done.stdout.splitlines()
    assert first.startswith("UnsupportedError sandbox: strict needs"), done
    assert "user namespace: Operation not permitted" in first
    assert "--sandbox basic --i-accept-running-generated-code" in first
    socket, passwd, honest = rest
    assert "Operation not permitted" in socket
    assert "Permission denied" in passwd
    assert honest == "passed"


@pytest.mark.slow
def test_packages_that_are_named_can_be_imported(sandbox):
    assert "No module named" in sandbox.run("import yaml_that_nobody_has").reason
    with pytest.raises(MissingError, match="not installed"):
        Sandbox(imports=("no_such_package",))
    assert "No module named 'hypothesis'" in sandbox.run("import hypothesis").reason
    with Sandbox(imports=("pydantic",), workers=1) as box:
        program = "import pydantic\nclass A(pydantic.BaseModel):\n    x: int\nprint(A(x='3').x)\n"
        assert box.run(program).stdout == "3\n", box.run(program)
        assert "No module named 'pytest'" in box.run("import pytest").reason


def test_the_filter_says_no_by_default():
    rows = seccomp._filter(alone=True, signals=True)
    assert len(rows) < 4096
    assert rows[0][0] == 0x20
    for place, (code, yes, no, _) in enumerate(rows):
        if code in (0x15, 0x35, 0x45):
            assert place + 1 + max(yes, no) < len(rows)


# --- many ---


def test_many_at_once_in_order():
    with Sandbox(workers=2) as box:
        programs = [Program(f"print({n})" if n % 3 else "1/0") for n in range(20)]
        ran = list(box.run_all(programs))
    assert [one.stdout for one in ran] == [f"{n}\n" if n % 3 else "" for n in range(20)]
    assert [one.passed for one in ran] == [bool(n % 3) for n in range(20)]


def test_an_interpreter_that_is_killed_is_replaced(sandbox):
    worker = sandbox._idle.get()
    sandbox._idle.put(worker)
    os.kill(worker._process.pid, signal.SIGKILL)
    assert not sandbox.run("print(1)").passed
    assert sandbox.run("print(1)").passed


@pytest.mark.slow
def test_nothing_is_left_when_camelid_is_killed():
    code = "import os, threading\nfrom camelid.evals.sandbox import Sandbox\nbox = Sandbox(workers=1)\n"
    code += "threading.Thread(target=box.run, args=('import time; time.sleep(100)',)).start()\n"
    code += "import time; time.sleep(.5)\nprint(flush=True); time.sleep(100)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    below = processes_below(process.pid)
    assert len(below) >= 3
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in below) and time.monotonic() < deadline:  # noqa: PTH110
        time.sleep(0.05)
    assert not [pid for pid in below if os.path.exists(f"/proc/{pid}")]  # noqa: PTH110


# --- which names a test calls ---


def test_calls_are_what_a_test_uses_and_a_program_defines():
    program = "import math\nx = 1\ndef sum(a, b): return a\nclass P: pass\nfor i in []: pass"
    assert defined(parsed(program)) == {"x", "sum", "P", "i"}
    test = "import re\ny = 2\nassert sum(1, y) == P(math.pi, len('a'), re.X)\n"
    assert used(parsed(test)) == {"sum", "P", "math", "len"}  # of which `len` is Python's own
    assert imports_of(modules_for(parsed(test))) == "import math\n"
    found = find_calls(test, program)
    assert found.calls == ("P", "sum")
    assert found.setup == "import math\n"
    assert find_calls(test, "def").calls == ("P",)


# --- the verb ---


def camelid(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "camelid", "sandbox", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_verb(sandbox, tmp_path):
    program, test = tmp_path / "program.py", tmp_path / "test.py"
    program.write_text("def double(x): return 2 * x\nprint('hello')")
    test.write_text("assert double(4) == 8\n")
    done = camelid(program, "--json")
    shown = json.loads(done.stdout)
    assert done.returncode == 0
    assert {"passed", "reason", "enforced", "seconds"} <= set(shown)
    assert shown["passed"] is True
    assert shown["stdout"] == "hello\n"
    assert json.loads(camelid(program, "--test", test, "--json").stdout)["passed"] is True
    test.write_text("assert double(4) == 9\n")
    done = camelid(program, "--test", test)
    assert done.returncode == 0
    assert done.stdout == "hello\n"
    assert "assertion failed: assert double(4) == 9" in done.stderr
    done = camelid(program, "--sandbox", "basic")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert camelid(tmp_path / "absent.py").returncode == 2
    assert camelid(program, "--seconds", "0").returncode == 2

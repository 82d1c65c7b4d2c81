"""Programs whose `f` should add one to a number, does not, and that try to pass their test all the same."""

from __future__ import annotations

TEST = """
def check(candidate):
    assert candidate(1) == 2
    assert candidate(41) == 42
    assert candidate(-1) == 0
"""

_EVIL = """
class Evil{base}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    def __hash__(self): return 2
    __lt__ = __gt__ = __le__ = __ge__ = __req__ = __eq__
"""
_SENDS = "import os, struct\ndef send(data):\n    os.write(3, struct.pack('>I', len(data)) + data)\n"

QUICK = {
    "equal_to_all": _EVIL.format(base="") + "def f(x): return Evil()",
    "number_equal_to_all": _EVIL.format(base="(int)") + "def f(x): return Evil(7)",
    "text_equal_to_all": _EVIL.format(base="(str)") + "def f(x): return Evil('7')",
    "list_equal_to_all": _EVIL.format(base="(list)") + "def f(x): return Evil([7])",
    "float_equal_to_all": _EVIL.format(base="(float)") + "def f(x): return Evil(7)",
    "metaclass": "class M(type):\n    def __eq__(c, o): return True\n    __hash__ = None\n"
    "class A(metaclass=M): pass\ndef f(x): return A",
    "mock": "from unittest.mock import ANY\ndef f(x): return ANY",
    "true": "def f(x): return True",
    "not_a_number": "def f(x): return float('nan')",
    "nothing": "def f(x): pass",
    "not_there": "g = 1",
    "not_callable": "f = 2",
    "unpicklable": "def f(x): return lambda: x + 1",
    "generator": "def f(x): yield x + 1",
    "circle": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "deep": "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
    "large": "def f(x): return 'x' * (32 << 20)",
    "exits": "import sys\ndef f(x): sys.exit(0)",
    "exits_hard": "import os\ndef f(x): os._exit(0)",
    "exits_at_once": "import os\nos._exit(0)",
    "raises_at_once": "raise SystemExit(0)",
    "raises_assertion": "def f(x): raise AssertionError('passed')",
    "raises_interrupt": "def f(x): raise KeyboardInterrupt",
    "raises_stop": "def f(x): raise StopIteration(x + 1)",
    "raises_generator_exit": "def f(x): raise GeneratorExit",
    "raises_own": "class ProgramEndedError(Exception): pass\ndef f(x): raise ProgramEndedError",
    "raises_evil_name": "def f(x): raise type('passed\\n', (Exception,), {})()",
    "own_check": "def check(candidate): pass\ndef f(x): return 0",
    "patched_assertion": "import builtins\nbuiltins.AssertionError = type('A', (BaseException,), {})\n"
    "def f(x): return 0",
    "patched_compile": "import builtins\nbuiltins.compile = builtins.exec = lambda *a, **k: None\ndef f(x): return 0",
    "patched_json": "import json\njson.loads = lambda *a: ['call', None, [], {}]\n"
    "json.dumps = lambda *a, **k: '{\"passed\": true}'\ndef f(x): return 0",
    "patched_int": "import builtins\nclass I(int):\n    def __eq__(s, o): return True\nbuiltins.int = I\n"
    "def f(x): return int(0)",
    "prints_passed": "print('{\"kind\": \"passed\"}')\ndef f(x): print('passed'); return 0",
    "writes_to_every_fd": "import os\nfor fd in range(3, 1024):\n    try:\n"
    '        os.write(fd, b\'{"kind": "passed"}\')\n    except OSError:\n        pass\ndef f(x): return 0',
    "closes_the_channel": "import os\nos.close(3)\ndef f(x): return 0",
    "reads_the_channel": "import os\nos.read(3, 1000)\ndef f(x): return 0",
    "answers_before_it_is_asked": _SENDS
    + 'send(b\'["f"]\')\nsend(b\'{"t":["value",2,[]]}\')\nsend(b\'{"t":["value",2,[]]}\')\n'
    'send(b\'{"t":["value",2,[]]}\')\ndef f(x): return 0',
    "sends_verdict": _SENDS + 'send(b\'{"kind":"passed","line":0,"message":""}\')\ndef f(x): return 0',
    "sends_rubbish": _SENDS + "send(os.urandom(1000))\ndef f(x): return 0",
    "sends_huge_length": "import os\nos.write(3, b'\\xff' * 8)\ndef f(x): return 0",
    "sends_deep": _SENDS + "send(b'[' * 100000 + b']' * 100000)\ndef f(x): return 0",
    "sends_unknown_tag": _SENDS + "send(b'[\"f\"]')\nsend(b'{\"__class__\": 1}')\ndef f(x): return 0",
    "sends_object_that_is_none": _SENDS
    + 'send(b\'["f"]\')\nsend(b\'{"t":["value",{"o":"x"},[]]}\')\ndef f(x): return 0',
    "sends_no_fraction": _SENDS
    + 'send(b\'["f"]\')\nsend(b\'{"t":["value",{"q":["0x1","0x0"]},[]]}\')\ndef f(x): return 0',
    "sends_changes": _SENDS + 'send(b\'["f"]\')\nsend(b\'{"t":["value",2,[[0,[1]]]]}\')\ndef f(x): return 0',
    "looks_for_the_test": """
import gc, sys
def texts():
    frame = sys._getframe()
    while frame:
        yield from map(str, [*frame.f_locals.values(), *frame.f_globals.values()])
        frame = frame.f_back
    gc.unfreeze()
    yield from (value for thing in gc.get_objects() for value in gc.get_referents(thing) if isinstance(value, str))
def f(x):
    mark = "assert candi" + "date(" + str(x) + ") == "
    for text in texts():
        if mark in text:
            return int(text.split(mark)[1].split()[0])
    return 0
""",
    "looks_for_the_request": "import os\ndef f(x):\n    for fd in range(3, 64):\n        try:\n"
    "            os.set_blocking(fd, False)\n"
    "            data = os.read(fd, 1 << 16)\n            return int(data.split(b'== ')[1].split()[0])\n"
    "        except (OSError, ValueError, IndexError):\n            pass\n    return 0",
    "kills_the_test": "import os\ndef f(x):\n    for pid in range(2, 400):\n        try:\n            os.kill(pid, 9)\n"
    "        except OSError:\n            pass\n    return 0",
    "changes_its_argument": "def f(x):\n    x += 1",
    "right_once": "n = 0\ndef f(x):\n    global n\n    n += 1\n    return x + 1 if n < 3 else 5",
    "forks_to_answer": "import os\ndef f(x):\n    os.fork()\n    return 0",
    "class_with_call": _EVIL.format(base="") + "class F(Evil):\n    def __call__(self, x): return Evil()\nf = F()",
    "property_of_a_result": "class A:\n    value = 2\n    def __getattr__(self, n): return 2\ndef f(x): return A()",
}

SLOW = {
    "loops_at_once": "while True: pass",
    "loops": "def f(x):\n    while True: pass",
    "sleeps_at_the_end": "import time\ndef f(x):\n    if x < 0: time.sleep(1000)\n    return x + 1",
    "endless_items": "import itertools\ndef f(x): return itertools.count(x)\nf.__iter__ = None\nwhile True: pass",
    "answers_slowly": "import os, time\ndef f(x):\n    os.write(3, b'\\0\\1\\0\\0')\n    while True:\n"
    "        os.write(3, b'1')\n        time.sleep(.1)",
}

"""Programs that would pass, leave something behind or run for ever, if the sandbox let them. Each ends without an
exception only if what it tries works."""

from __future__ import annotations

# Name → program. QUICK ones need no limit to end them.
QUICK = {
    # --- the end is claimed, not reached ---
    "sys_exit": "import sys\nsys.exit(0)\nassert False",
    "exit_builtin": "exit(0)",
    "system_exit": "raise SystemExit",
    "os_exit": "import os\nos._exit(0)",
    "exit_in_atexit": "import atexit, os\natexit.register(os._exit, 0)",
    "exit_in_thread": "import os, threading, time\nthreading.Thread(target=os._exit, args=(0,)).start()\ntime.sleep(5)",
    "exit_in_finalizer": "import os\nclass A:\n    def __del__(self): os._exit(0)\na = A()\ndel a",
    "prints_verdict": 'print(\'{"passed": true, "reason": "passed"}\')\nassert False',
    "prints_passed_and_exits": "import os\nprint('passed', flush=True)\nos._exit(0)",
    "excepthook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\nassert False",
    "patched_exec": "import builtins\nbuiltins.exec = builtins.compile = lambda *a, **k: None\nassert False",
    "patched_exceptions": "import builtins\nbuiltins.BaseException = builtins.AssertionError = ValueError\n"
    "assert False",
    "patched_os": "import os\nos._exit = os.write = lambda *a: None\nassert False",
    "patched_traceback": "import sys, os\nclass M:\n    def __getattr__(self, n): os._exit(0)\n"
    "sys.modules['traceback'] = M()\nassert False",
    "patched_stderr": "import sys, os\nclass F:\n    write = flush = lambda *a: os._exit(0)\nsys.stderr = F()\n"
    "assert False",
    "modules_cleared": "import sys\nsys.modules.clear()\nassert False",
    "writes_to_every_fd": "import os\nfor fd in range(3, 1024):\n    try:\n        os.write(fd, b'passed' * 9)\n"
    "    except OSError:\n        pass\nos._exit(0)",
    "guesses_the_token": "import os\nos.write(3, os.urandom(32))\nos._exit(0)",
    "echoes_the_channel": "import os\nos.set_blocking(3, False)\nos.write(3, os.read(3, 32))",
    "closes_the_channel": "import os\nos.close(3)",
    "replaces_the_channel": "import os\nos.dup2(1, 3)",
    "token_in_frames": """
import os, sys
frame = sys._getframe()
while frame:
    for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
        if isinstance(value, bytes) and len(value) == 32:
            os.write(3, value)
        if type(value).__name__ == "partial":
            value()
    frame = frame.f_back
os._exit(0)
""",
    "token_in_current_frames": """
import os, sys, gc
for frame in sys._current_frames().values():
    while frame:
        for value in gc.get_referents(frame):
            if type(value).__name__ == "partial":
                value()
            if isinstance(value, bytes) and len(value) == 32:
                os.write(3, value)
        frame = frame.f_back
os._exit(0)
""",
    "asks_for_the_token_again": """
import os, sys
os.set_blocking(3, False)
frame = sys._getframe()
while frame:
    for value in list(frame.f_locals.values()):
        if type(value).__name__ == "_TokenAndEnd":
            os.write(3, value[0])
    frame = frame.f_back
os._exit(0)
""",
    "ends_again": """
import os, sys
frame = sys._getframe()
while frame:
    for value in list(frame.f_locals.values()):
        if type(value).__name__ == "_TokenAndEnd":
            value.source = ""
            os.writev(3, [b"", value[1]])
    frame = frame.f_back
os._exit(0)
""",
    "token_in_objects": """
import gc, os
for value in gc.get_objects():
    if type(value).__name__ == "partial" and value.func is os.write:
        value()
os._exit(0)
""",
    "token_in_objects_unfrozen": """
import gc, os
gc.unfreeze()
objects = gc.get_objects()
for value in objects:
    if type(value).__name__ == "partial":
        value()
    for inner in gc.get_referents(value):
        if isinstance(inner, bytes) and len(inner) == 32:
            os.write(3, inner)
os._exit(0)
""",
    "token_in_traceback": """
import os
try:
    1 / 0
except Exception as error:
    frame = error.__traceback__.tb_frame
    while frame:
        for value in frame.f_locals.values():
            if callable(value) and "write" in repr(value):
                value()
        frame = frame.f_back
os._exit(0)
""",
    "end_in_a_fork": "import os\nif os.fork():\n    os.wait()\n    os._exit(0)",
    "skips_lines": "import sys\ndef t(f, e, a):\n    return t\nsys.settrace(t)\nsys._getframe().f_trace = t\n"
    "assert False",
    # --- files ---
    "passwd": "open('/etc/passwd').read()",
    "shadow": "open('/etc/shadow').read()",
    "home": "import os\nassert os.listdir(os.path.expanduser('~root')) and open(os.path.expanduser('~root/.bashrc'))",
    "this_file": "open('/THIS/FILE').read()",
    "proc_self": "open('/proc/self/environ').read()",
    "proc_parent": "open('/proc/1/maps').read()",
    "proc_memory": "open('/proc/self/mem', 'r+b')",
    "sys_folder": "import os\nos.listdir('/sys/kernel')",
    "disk": "open('/dev/vda', 'rb')",
    "kernel_log": "open('/dev/kmsg')",
    "terminal": "open('/dev/tty', 'w').write('passed')",
    "write_root": "open('/x', 'w')",
    "write_library": "import os\nopen(os.__file__, 'a')",
    "write_beside_library": "import os\nopen(os.path.dirname(os.__file__) + '/evil.py', 'w')",
    "remove_library": "import os\nos.remove(os.__file__)",
    "chmod_library": "import os\nos.chmod(os.__file__, 0o777)",
    "link_library": "import os\nos.link(os.__file__, '/tmp/os.py')",
    "symlink_out": "import os\nos.symlink('/etc/passwd', 'a')\nopen('a').read()",
    "symlink_up": "import os\nos.symlink('/../../../../root', 'a')\nassert len(os.listdir('a')) > 1",
    "climbs": "open('../../../../../../etc/hostname').read()",
    "device": "import os, stat\nos.mknod('a', 0o600 | stat.S_IFBLK, os.makedev(254, 0))",
    "pipe": "import os\nos.mkfifo('a')\nopen('a').read()",
    "set_user_id": "import os\nopen('a', 'w')\nos.chown('a', 0, 0)\nos.chmod('a', 0o4755)",
    "packages": "import pytest",
    "camelid_itself": "import camelid",
    "warm_modules": "import sys\nassert any(name.startswith('camelid') for name in sys.modules)",
    "environment": "import os\nassert set(os.environ) - {'HOME', 'TMPDIR', 'LANG', 'LC_CTYPE'} - "
    "{'PYTHONUTF8', 'PYTHONHASHSEED'} - "
    "{'MALLOC_ARENA_MAX', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'}",
    "arguments": "import sys\nassert len(sys.argv) != 1 or len(sys.orig_argv) > 20",
    "standard_input": "assert input()",
    "core_dump": "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))",
    # --- network ---
    "tcp": "import socket\nsocket.create_connection(('127.0.0.1', 22), 1)",
    "udp": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))",
    "dns": "import socket\nsocket.getaddrinfo('example.com', 80)",
    "listen": "import socket\nsocket.create_server(('', 0))",
    "unix_socket": "import socket\nsocket.socket(socket.AF_UNIX).bind('a')",
    "abstract_socket": "import socket\nsocket.socket(socket.AF_UNIX).bind('\\0camelid')",
    "netlink": "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "http": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:1/', timeout=1)",
    # --- other programs, other processes, the kernel ---
    "subprocess": "import subprocess\nsubprocess.run(['/bin/true'], check=True)",
    "system": "import os\nassert os.system('true') == 0",
    "exec": "import os, sys\nos.execv(sys.executable, ['python', '-c', ''])",
    "kill_parent": "import os\nos.kill(os.getppid() or 99999, 9)",
    "kill_all": "import os\nos.kill(-1, 9)\nraise OSError",
    "kill_group": "import os\nos.killpg(0, 9)\nraise OSError",
    "kill_itself": "import os\nos.kill(os.getpid(), 9)\nraise OSError",
    "abort": "import os\nos.abort()",
    "become_root": "import os\nos.setuid(0)",
    "nice": "import os\nos.nice(-5)",
    "chroot": "import os\nos.chroot('/tmp')",
    "raise_limit": "import resource as r\nr.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY, r.RLIM_INFINITY))",
    "limit_of_another": "import resource as r\nr.prlimit(2, r.RLIMIT_CPU, (1, 1))",
    "affinity": "import os\nos.sched_setaffinity(0, {0})",
    "hostname": "import socket\nsocket.sethostname('x')",
    "clock": "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)",
    "native_code": "import ctypes\nctypes.string_at(0)",
    "recursion": "def f(): f()\nf()",
    "deep_recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1) + 1\n"
    "class A:\n    def __repr__(self): return repr([self])\nrepr(A())",
    "memory": "x = []\nwhile True:\n    x.append(bytearray(1 << 24))",
    "one_big_object": "x = bytearray(1 << 40)",
    "mapped_memory": "import mmap\nmmap.mmap(-1, 1 << 32)",
    "shared_memory": "from multiprocessing import shared_memory\nshared_memory.SharedMemory('x', True, 1 << 30)",
    "huge_file": "f = open('a', 'wb')\nf.truncate(1 << 40)",
    "long_file": "f = open('a', 'wb')\nfor _ in range(64):\n    f.write(bytes(1 << 20))\n    f.flush()",
    "many_files": "for n in range(100000):\n    open(f'{n}', 'w').close()",
    "many_large_files": "for n in range(64):\n    open(f'{n}', 'wb').write(bytes(8 << 20))",
    "open_files": "x = [open('a', 'w') for _ in range(2000)]",
    "fork_bomb": "import os\nwhile True:\n    os.fork()",
    "thread_bomb": "import threading, time\nfor _ in range(1000):\n"
    "    threading.Thread(target=time.sleep, args=(9,)).start()",
}

# Calls by number, as native code makes them: x86_64, aarch64. Each must fail.
_CALLS = {
    "socket": ((41, 198), "2, 1, 0"),
    "ptrace": ((101, 117), "16, 1, 0, 0"),
    "mount": ((165, 40), "b'tmpfs', b'/tmp', b'tmpfs', 0, 0"),
    "unshare": ((272, 97), "0x10000000"),
    "setns": ((308, 268), "0, 0"),
    "clone_into_namespace": ((56, 220), "0x10000011, 0, 0, 0, 0"),
    "execve": ((59, 221), "b'/bin/true', 0, 0"),
    "memfd": ((319, 279), "b'x', 0"),
    "shmget": ((29, 194), "0, 4096, 0o1600"),
    "process_vm_readv": ((310, 270), "1, 0, 0, 0, 0, 0"),
    "bpf": ((321, 280), "0, 0, 0"),
    "io_uring": ((425, 425), "1, 0"),
    "userfaultfd": ((323, 282), "0"),
    "perf_event_open": ((298, 241), "0, 0, -1, -1, 0"),
    "keyctl": ((250, 219), "0, -3, 0"),
    "pivot_root": ((155, 41), "b'/', b'/'"),
    "reboot": ((169, 142), "0xfee1dead, 672274793, 0x89abcdef, 0"),
    "unknown": ((9999, 9999), "0"),
}
_BY_NUMBER = """
import ctypes, platform
number = {numbers}[platform.machine() == "aarch64"]
assert ctypes.CDLL(None).syscall(number, {arguments}) >= 0
"""
QUICK |= {
    f"call_{name}": _BY_NUMBER.format(numbers=numbers, arguments=arguments)
    for name, (numbers, arguments) in _CALLS.items()
}

# Ended by a limit.
SLOW = {
    "loop": "while True: pass",
    "sleep": "import time\ntime.sleep(1000)",
    "ignores_signals": "import signal\nfor s in range(1, 32):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n"
    "    except (OSError, ValueError):\n        pass\nwhile True: pass",
    "catches_everything": "while True:\n    try:\n        while True: pass\n    except BaseException:\n        pass",
    "regex": "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
    "big_number": "x = 10 ** 10 ** 9",
    "big_digits": "import sys\nsys.set_int_max_str_digits(0)\nstr(7 ** 5_000_000)",
    "thread_outlives": "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()",
    "atexit_outlives": "import atexit\ndef f():\n    while True: pass\natexit.register(f)",
    "deadlock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "children_outlive": "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n"
    "        while True: pass\ntime.sleep(1000)",
    "daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(1000)\n"
    "    os._exit(0)\ntime.sleep(1000)",
    "output": "while True: print('x' * 1000)",
    "error_output": "import sys\nwhile True: sys.stderr.write('x' * 1000)",
    "output_of_children": "import os\nos.fork()\nos.fork()\nwhile True: os.write(1, b'x' * 1000)",
    "memory_of_children": "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n"
    "        x = bytearray(200 << 20)\n"
    "        for n in range(0, len(x), 4096): x[n] = 1\n        time.sleep(1000)\ntime.sleep(1000)",
    "daemon_and_exit": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    for fd in range(10):\n        try:\n"
    "            os.close(fd)\n        except OSError:\n            pass\n    time.sleep(1000)\nos._exit(0)",
}

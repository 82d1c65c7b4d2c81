"""Which system calls a program has: a list of what Python needs, and an error for all else (seccomp, mode 2).

Not among them: sockets of any kind but pairs, ptrace and other processes' memory, mounts, namespaces, other programs
(execve), memory that no limit counts (memfd, System V), keys, BPF, io_uring, clocks, modules.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

from camelid.evals.sandbox.inside import kernel

# name:number on x86_64:number on aarch64
_ALLOWED = """
access:21:- alarm:37:- arch_prctl:158:- brk:12:214 chdir:80:49 clock_getres:229:114 clock_gettime:228:113
clock_nanosleep:230:115 close:3:57 close_range:436:436 copy_file_range:326:285 creat:85:- dup2:33:- dup3:292:24
dup:32:23 epoll_create1:291:20 epoll_create:213:- epoll_ctl:233:21 epoll_pwait2:441:441 epoll_pwait:281:22
epoll_wait:232:- eventfd2:290:19 eventfd:284:- exit:60:93 exit_group:231:94 faccessat2:439:439 faccessat:269:48
fadvise64:221:223 fallocate:285:47 fchdir:81:50 fdatasync:75:83 flock:73:32 fstat:5:80 fstatat:-:79 fstatfs:138:44
fsync:74:82 ftruncate:77:46 futex:202:98 futex_waitv:449:449 get_robust_list:274:100 getcpu:309:168 getcwd:79:17
getdents64:217:61 getdents:78:- getegid:108:177 geteuid:107:175 getgid:104:176 getgroups:115:158 getitimer:36:102
getpeername:52:205 getpgid:121:155 getpgrp:111:- getpid:39:172 getppid:110:173 getpriority:140:141 getrandom:318:278
getresgid:120:150 getresuid:118:148 getrlimit:97:163 getrusage:98:165 getsid:124:156 getsockname:51:204
getsockopt:55:209 gettid:186:178 gettimeofday:96:169 getuid:102:174 link:86:- linkat:265:37 lseek:8:62 lstat:6:-
madvise:28:233 membarrier:324:283 mincore:27:232 mkdir:83:- mkdirat:258:34 mmap:9:222 mprotect:10:226 mremap:25:216
msync:26:227 munmap:11:215 nanosleep:35:101 newfstatat:262:- open:2:- openat2:437:437 openat:257:56 pause:34:-
pidfd_open:434:434 pipe2:293:59 pipe:22:- poll:7:- ppoll:271:73 prctl:157:167 pread64:17:67 preadv2:327:286
preadv:295:69 pselect6:270:72 pwrite64:18:68 pwritev2:328:287 pwritev:296:70 read:0:63 readahead:187:213 readlink:89:-
readlinkat:267:78 readv:19:65 recvfrom:45:207 recvmsg:47:212 rename:82:- renameat2:316:276 renameat:264:38
restart_syscall:219:128 rmdir:84:- rseq:334:293 rt_sigaction:13:134 rt_sigpending:127:136 rt_sigprocmask:14:135
rt_sigreturn:15:139 rt_sigsuspend:130:133 rt_sigtimedwait:128:137 sched_get_priority_max:146:125
sched_get_priority_min:147:126 sched_getaffinity:204:123 sched_getparam:143:121 sched_getscheduler:145:120
sched_yield:24:124 select:23:- sendfile:40:71 sendmsg:46:211 sendto:44:206 set_robust_list:273:99
set_tid_address:218:96 setitimer:38:103 setsockopt:54:208 shutdown:48:210 sigaltstack:131:132 signalfd4:289:74
signalfd:282:- socketpair:53:199 splice:275:76 stat:4:- statfs:137:43 statx:332:291 symlink:88:- symlinkat:266:36
sync_file_range:277:84 sysinfo:99:179 tee:276:77 time:201:- timer_create:222:107 timer_delete:226:111
timer_getoverrun:225:109 timer_gettime:224:108 timer_settime:223:110 timerfd_create:283:85 timerfd_gettime:287:87
timerfd_settime:286:86 times:100:153 truncate:76:45 umask:95:166 uname:63:160 unlink:87:- unlinkat:263:35 wait4:61:260
waitid:247:95 write:1:64 writev:20:66
"""
# Where a process could reach others of the same user: allowed in a namespace of its own only.
_SIGNALS = "kill:62:129 tkill:200:130 tgkill:234:131 rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240 "
_SIGNALS += "pidfd_send_signal:424:424"
_GROUPS = "setpgid:109:154 setsid:112:157"
# Who may do what with a file, and its times: Landlock does not keep these from files that may be read.
_METADATA = "chmod:90:- fchmod:91:52 fchmodat:268:53 chown:92:- lchown:94:- fchown:93:55 fchownat:260:54 utime:132:- "
_METADATA += "utimes:235:- utimensat:280:88"
_CLONE, _CLONE3, _IOCTL, _FORKS = (56, 220), (435, 435), (16, 29), ((57, -1), (58, -1))
_FCNTL, _PRLIMIT = (72, 25), (302, 261)
_ARCHITECTURES = (0xC000003E, 0xC00000B7)
_X32 = 0x40000000  # calls of x32 are those of x86_64 with this bit

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data
_NAMESPACES = 0x7E020000  # every CLONE_NEW… flag
_THREAD = 0x00010000
_NO_IOCTLS = (0x5412, 0x541C, 0x8901, 0x8902)  # write what a terminal takes for typed; choose whom a file signals
_NO_FCNTLS = (8, 15)  # F_SETOWN, F_SETOWN_EX: the same

_Instruction = tuple[int, int, int, int]


def _numbers(table: str, machine: int) -> list[int]:
    rows = (row.split(":")[1:] for row in table.split())
    return sorted({int(row[machine]) for row in rows if row[machine] != "-"})


def _when(number: int, then: list[_Instruction]) -> list[_Instruction]:
    """`then`, which returns, if the call has this number."""
    return [(_EQUAL, 0, len(then), number), *then]


def _filter(*, alone: bool, signals: bool) -> list[_Instruction]:
    machine = kernel.MACHINES.index(platform.machine())
    allow, error = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERROR | errno.EPERM)
    absent = (_RETURN, 0, 0, _ERROR | errno.ENOSYS)
    load = (_LOAD, 0, 0, _NUMBER)
    rows = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL), load]
    rows += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    flags: list[_Instruction] = [(_LOAD, 0, 0, _FIRST), (_ANY_BIT, 0, 1, _NAMESPACES), error]
    flags += [allow] if alone else [(_ANY_BIT, 1, 0, _THREAD), error, allow]
    rows += _when(_CLONE[machine], flags)
    rows += _when(_CLONE3[machine], [absent])  # its flags lie where a filter cannot look; the C library then uses clone
    for number, refused in ((_IOCTL, _NO_IOCTLS), (_FCNTL, _NO_FCNTLS)):
        second = [row for code in refused for row in ((_EQUAL, 0, 1, code), error)]
        rows += _when(number[machine], [(_LOAD, 0, 0, _SECOND), *second, allow])
    own: list[_Instruction] = [(_LOAD, 0, 0, _FIRST), (_EQUAL, 0, 1, 0), allow, error]
    rows += _when(_PRLIMIT[machine], own)  # 0: of itself, and of nobody else
    allowed = _numbers(_ALLOWED, machine)
    allowed += _numbers(_SIGNALS, machine) if signals else []
    if alone:
        allowed += _numbers(_GROUPS, machine) + _numbers(_METADATA, machine)
        allowed += [pair[machine] for pair in _FORKS if pair[machine] >= 0]
    return rows + _search(sorted(set(allowed)), allow, error)


def _search(numbers: list[int], allow: _Instruction, error: _Instruction) -> list[_Instruction]:
    """A binary search: every call of a program walks through here."""
    if len(numbers) <= 4:
        return [row for number in numbers for row in _when(number, [allow])] + [error]
    middle = len(numbers) // 2
    below, above = _search(numbers[:middle], allow, error), _search(numbers[middle:], allow, error)
    if len(below) <= 255:
        return [(_AT_LEAST, len(below), 0, numbers[middle]), *below, *above]
    return [(_AT_LEAST, 0, 1, numbers[middle]), (0x05, 0, 0, len(below)), *below, *above]  # 0x05: a far jump


def available() -> bool:
    """Whether the kernel filters, on a machine whose numbers are known."""
    if platform.machine() not in kernel.MACHINES:
        return False
    null = ctypes.c_void_p(None)  # no filter at all: EFAULT says that there would be one
    result = kernel.libc().prctl(kernel.PR_SET_SECCOMP, ctypes.c_ulong(kernel.SECCOMP_MODE_FILTER), null)
    return bool(result == -1 and ctypes.get_errno() == errno.EFAULT)


def restrict(*, alone: bool, signals: bool) -> None:
    """From now on this process and its children have the calls of this file alone.

    Args:
        alone: it has namespaces of its own, so it may make processes, and not threads only, leave its group, and
            change who may do what with files.
        signals: it may signal others.

    Raises:
        OSError: the kernel refuses the filter.
    """
    rows = _filter(alone=alone, signals=signals)
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *row) for row in rows))
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(rows), ctypes.addressof(code)))
    result = kernel.libc().prctl(kernel.PR_SET_SECCOMP, ctypes.c_ulong(kernel.SECCOMP_MODE_FILTER), program)
    kernel.check(result, "seccomp")

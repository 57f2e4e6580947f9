"""Confinement: what a process gives up before it decodes untrusted bytes. None of it can be taken back.

The resource limits work everywhere. Another user id needs root, the filter of system calls needs Linux on x86-64 or ARM64. Whatever is
missing is left out: `confine` returns the protections that are on, and docs/SECURITY.md says what each one is for.
"""

import ctypes
import errno
import os
import platform
import resource
import sys
from contextlib import suppress

USER = "another user id"
CALLS = "a filter of system calls"

UNUSED_ID = 65533  # belongs to no user, and exists in containers, too. 65534 is nobody, who may own files on network disks
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38
SECCOMP_SET_MODE_FILTER, ALL_THREADS = 1, 1

# Instructions of the kernel's filter language (BPF): load a word of the call, compare it, return a verdict.
LOAD, IF_EQUAL, IF_BITS, RETURN = 0x20, 0x15, 0x45, 0x06
ARCHITECTURE, NUMBER, ARGUMENT = 4, 0, 16  # offsets in the data about a call: its number, and the low word of its first argument
ALLOW, REFUSE, UNKNOWN = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
CLONE_THREAD = 0x10000

# The filter's value for a machine, and the numbers of the calls that a decoder needs once all files are open: memory, time, signals,
# threads, its one connection. Without threads AVIF and HEIC can't be decoded. Everything else is refused.
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
ALLOWED = {
    **{"read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "poll": (7, 73)},
    **{"mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216), "madvise": (28, 233)},
    **{"rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132)},
    **{"setitimer": (38, 103), "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "restart_syscall": (219, 128)},
    **{"gettimeofday": (96, 169), "clock_gettime": (228, 113), "clock_getres": (229, 114), "getrusage": (98, 165), "sysinfo": (99, 179)},
    **{"getpid": (39, 172), "gettid": (186, 178), "getrandom": (318, 278), "exit": (60, 93), "exit_group": (231, 94)},
    **{"futex": (202, 98), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "set_robust_list": (273, 99), "rseq": (334, 293)},
}
CLONE, CLONE3, TGKILL, SECCOMP = (56, 220), (435, 435), (234, 131), (317, 277)


class Instruction(ctypes.Structure):
    """One instruction of the filter: if a comparison fails, `otherwise` instructions are skipped."""

    _fields_ = [("code", ctypes.c_uint16), ("then", ctypes.c_uint8), ("otherwise", ctypes.c_uint8), ("value", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(Instruction))]


def confine(memory: int) -> list[str]:
    """Give up what a decoder does not need, except for `memory` bytes. Import every module before. Returns USER and CALLS, if they are on.

    Open files stay open. Threads may be started, processes not.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))  # no file beyond those that are open
    on = [name for name, act in ((USER, change_user), (CALLS, filter_calls)) if act()]
    if CALLS not in on:  # which knows threads from processes; this limit does not
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    return on


def change_user() -> bool:
    """Become a user who owns nothing. Returns whether this process may: it must be root's."""
    if os.geteuid() != 0:
        return False
    with suppress(OSError):  # a container may take away even root's right to do so, or lack the id
        os.setgroups([])
        os.setresgid(UNUSED_ID, UNUSED_ID, UNUSED_ID)
        os.setresuid(UNUSED_ID, UNUSED_ID, UNUSED_ID)
        return True
    return False


def filter_calls() -> bool:
    """Let the kernel refuse all system calls but those in ALLOWED. Returns whether it does."""
    if sys.platform != "linux" or platform.machine() not in MACHINES or sys.maxsize < 2**32:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # nobody but root may look into this process
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    code = _program(*MACHINES[platform.machine()])
    program = Program(len(code), (Instruction * len(code))(*(Instruction(*each) for each in code)))
    seccomp = SECCOMP[MACHINES[platform.machine()][1]]
    return libc.syscall(seccomp, SECCOMP_SET_MODE_FILTER, ALL_THREADS, ctypes.byref(program)) == 0


def _program(architecture: int, column: int) -> list[tuple[int, int, int, int]]:
    """Return the filter for a machine, as instructions (code, then, otherwise, value)."""

    def checked(number: int, test: int, value: int) -> list[tuple[int, int, int, int]]:
        """Allow a call if its first argument passes a test."""
        return [(IF_EQUAL, 0, 4, number), (LOAD, 0, 0, ARGUMENT), (test, 0, 1, value), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]

    code = [(LOAD, 0, 0, ARCHITECTURE), (IF_EQUAL, 1, 0, architecture), (RETURN, 0, 0, REFUSE), (LOAD, 0, 0, NUMBER)]
    for numbers in ALLOWED.values():
        code += [(IF_EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, ALLOW)]
    code += checked(CLONE[column], IF_BITS, CLONE_THREAD)
    code += checked(TGKILL[column], IF_EQUAL, os.getpid())  # abort() signals itself
    code += [(IF_EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, UNKNOWN)]  # its flags can't be seen: libc then uses clone
    return [*code, (RETURN, 0, 0, REFUSE)]

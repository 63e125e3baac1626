"""How the C library hands out memory, set for training: what was freed is kept for what comes next.

An update allocates and frees the same large blocks again and again. By default glibc gives each
back to the system and asks for it anew, and the kernel zeroes every page at its first touch: up to
a fifth of the time of an update on a CPU.
"""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h
_NEVER = 2**31 - 1
_GROW_BYTES = 64 * 2**20


def keep_memory() -> bool:
    """Let this process keep the memory that it frees.

    Returns whether the C library was told: glibc alone knows how, and a user may forbid it with
    `HAIRPIN_KEEP_MEMORY=0`. Blocks that are in use already stay as they are.
    """
    if os.environ.get("HAIRPIN_KEEP_MEMORY") == "0" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    asked = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROW_BYTES))
    answers = [mallopt(option, value) for option, value in asked]
    return all(answers)

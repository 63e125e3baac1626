"""Settings of the C library's memory allocator for training: freed memory is kept for later use.

An update allocates and frees the same large blocks repeatedly. By default glibc returns each to the
system and requests it again, and the kernel zeroes every page at its first touch: this takes up to
a fifth of the time of an update on a CPU.
"""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h
_NEVER = 2**31 - 1
_GROW_BYTES = 64 * 2**20


def keep_memory() -> bool:
    """Make this process keep the memory that it frees.

    Returns True if the C library accepted the settings: only glibc has them, and a user may forbid
    them with `HAIRPIN_KEEP_MEMORY=0`. Blocks that are in use already are not affected.
    """
    if os.environ.get("HAIRPIN_KEEP_MEMORY") == "0" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    asked = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROW_BYTES))
    answers = [mallopt(option, value) for option, value in asked]
    return all(answers)

"""What keeping freed memory does: no page is touched anew by an allocation like the last."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from hairpin.system.allocator import keep_memory
keeps = keep_memory()
print(keeps)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(64_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults()
if keeps:
    print(sum(faults() for _ in range(5)) / 5 < 0.1 * 64_000_000 / resource.getpagesize())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
@pytest.mark.parametrize(("keep", "printed"), [("1", ["True", "True"]), ("0", ["False"])])
def test_freed_blocks_are_used_again(keep: str, printed: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env={"HAIRPIN_KEEP_MEMORY": keep},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == printed

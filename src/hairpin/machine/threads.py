"""Compute threads: all that PyTorch would use, or one.

On a machine with other work, threads wait at the end of every product for the one that has lost its
core; there, and for very small models, a single thread is faster. The choice
changes the last bits of sums, so a run keeps the one it began with.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hairpin.config.settings import Config
from hairpin.system.spinning import threads_are_decided


def may_use_one_thread(device: str) -> bool:
    """Return True if using one thread makes a difference here, and the user's environment does not
    fix the number.
    """
    return device == "cpu" and torch.get_num_threads() > 1 and not threads_are_decided()


def threads_of(config: Config) -> int:
    """Return the number of threads a run computes with in this process."""
    return 1 if config.execution.threads == "one" else torch.get_num_threads()


@contextmanager
def computing_with(threads: str) -> Iterator[None]:
    """Compute with one thread inside the block, or with all.

    The number is always set, never left as it is: setting it also makes MKL keep it, and two
    processes that do the same run must do the same sums.

    Args:
        threads: "one", or "all" that this process has.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if threads == "one" else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""A row of the rig: one kind of fault, tried many times."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Row:
    """One kind of fault.

    Args:
        name: a word or two, as typed on the command line.
        count: of cases in a full run.
        run: (number of the case, its random numbers, a folder that does not exist yet) → what was
            wrong, a line each.
        passes_when: in words.
    """

    name: str
    count: int
    run: Callable[[int, Random, Path], list[str]]
    passes_when: str

"""Runs rows, case by case."""

import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from faults.row import Row


@dataclass
class Result:
    """What came of a row: how many cases ran, and the problems of those that failed."""

    row: Row
    seed: int
    cases: int = 0
    seconds: float = 0.0
    problems: dict[int, list[str]] = field(default_factory=dict)

    @property
    def passed(self) -> int:
        """Cases without a problem."""
        return self.cases - len(self.problems)


def run_case(row: Row, number: int, seed: int, folder: Path) -> list[str]:
    """The problems of one case; the same numbers give the same faults.

    Args:
        row: whose case it is.
        number: of the case.
        seed: of the whole row.
        folder: for the case's own folder, which stays where there was a problem.
    """
    own = folder / row.name.replace(" ", "-") / f"{seed}-{number}"
    own.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(own, ignore_errors=True)
    try:
        problems = row.run(number, Random(f"{row.name} {seed} {number}"), own)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        problems = [f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"]
    if not problems:
        shutil.rmtree(own, ignore_errors=True)
    return problems


def run_row(
    row: Row, folder: Path, *, seed: int, share: float, on_case: Callable[[Result], None]
) -> Result:
    """Run a share of a row's cases, spread evenly over them.

    Args:
        row: what to run.
        folder: for the cases.
        seed: of the row's random numbers.
        share: of its cases; at least one is run.
        on_case: told after each.
    """
    result, start_time = Result(row, seed), time.monotonic()
    wanted = max(1, round(row.count * share))
    for number in sorted({each * row.count // wanted for each in range(wanted)}):
        problems = run_case(row, number, seed, folder)
        result.cases += 1
        result.seconds = time.monotonic() - start_time
        if problems:
            result.problems[number] = problems
        on_case(result)
    return result

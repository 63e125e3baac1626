"""Faults on purpose: kills, full disks, damaged files, hostile input, and what hairpin makes of it.

    python -m faults [ROW ...] [--seed N] [--share 0.1] [--out FILE]
    python -m faults mutants

The second form plants bugs in hairpin, one by one, and says which rows catch each.
Exit code 1 when anything failed.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from faults.mutation import CAUGHT_BY, catch
from faults.page import failure_lines, write_page
from faults.rig import Rig
from faults.runner import Result, run_row
from faults.table import ROWS

_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 when something failed."""
    asked = _parser().parse_args(arguments)
    seed = asked.seed if asked.seed is not None else time.time_ns() % 1_000_000
    root = Path(tempfile.mkdtemp(prefix="hairpin-faults-"))
    console = Console(stderr=True)
    run = _mutants if asked.rows == ["mutants"] else _rows
    with Progress(*_COLUMNS, TimeRemainingColumn(), console=console) as bars:
        failed = run(asked, seed, root, bars)
    if failed:
        print(f"the folders of what failed are in {root}")
        return 1
    shutil.rmtree(root)
    return 0


def _rows(asked: argparse.Namespace, seed: int, root: Path, bars: Progress) -> bool:
    rig = Rig(root / "rig")
    unknown = [name for name in asked.rows if name not in ROWS]
    if unknown:
        raise SystemExit(f"no row {unknown[0]!r}; there are: {', '.join(ROWS)}, mutants")
    chosen = [ROWS[name](rig) for name in asked.rows or ROWS]
    shares = [max(1, round(row.count * asked.share)) for row in chosen]
    task = bars.add_task("faults", total=sum(shares))
    results = []
    for row in chosen:

        def on_case(result: Result, name: str = row.name) -> None:
            failures = f", {len(result.problems)} failed" if result.problems else ""
            bars.update(task, advance=1, description=f"{name}{failures}")

        result = run_row(row, root, seed=seed, share=asked.share, on_case=on_case)
        results.append(result)
        bars.console.print(
            f"{row.name}: {result.passed} of {result.cases} passed, seed {seed}, "
            f"{result.seconds:.0f} s",
            highlight=False,
        )
        for line in failure_lines([result]):
            bars.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    if asked.out:
        write_page(asked.out, results, asked.share)
    return any(result.problems for result in results)


def _mutants(asked: argparse.Namespace, seed: int, root: Path, bars: Progress) -> bool:
    task = bars.add_task("mutants", total=len(CAUGHT_BY))
    caught = 0
    for number, mutant in enumerate(CAUGHT_BY):
        how = catch(mutant, root / str(number), seed)
        caught += how is not None
        bars.console.print(f"{'caught' if how else 'MISSED'}: {mutant}", highlight=False)
        if how:
            bars.console.print(f"  by {how}", highlight=False, markup=False, soft_wrap=True)
        bars.update(task, advance=1)
    bars.console.print(f"{caught} of {len(CAUGHT_BY)} planted bugs caught, seed {seed}")
    return caught < len(CAUGHT_BY)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names of rows (all), or: mutants")
    parser.add_argument("--seed", type=int, help="of all that is random (another each time)")
    parser.add_argument("--share", type=float, default=1.0, help="of each row's cases (1)")
    parser.add_argument("--out", type=Path, help="a Markdown file for the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())

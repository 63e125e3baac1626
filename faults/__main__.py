"""Faults on purpose: kills, full disks, damaged files, hostile input, and what hairpin makes of it.

    python -m faults [ROW ...] [--seed N] [--share 0.1] [--out FILE]

The last row, `mutants`, plants bugs in hairpin, one by one, and says which of the other rows
catches each. Exit code 1 when anything failed.
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

_MUTANTS = "mutants"
_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 when something failed."""
    asked = _parser().parse_args(arguments)
    seed = asked.seed if asked.seed is not None else time.time_ns() % 1_000_000
    root = Path(tempfile.mkdtemp(prefix="hairpin-faults-"))
    console = Console(stderr=True)
    unknown = [name for name in asked.rows if name not in (*ROWS, _MUTANTS)]
    if unknown:
        raise SystemExit(f"no row {unknown[0]!r}; there are: {', '.join(ROWS)}, {_MUTANTS}")
    rows = asked.rows or [*ROWS, _MUTANTS]
    with Progress(*_COLUMNS, TimeRemainingColumn(), console=console) as bars:
        results = _run_rows([row for row in rows if row != _MUTANTS], asked.share, seed, root, bars)
        caught = _catch_mutants(root, seed, bars) if _MUTANTS in rows else {}
    if asked.out:
        write_page(asked.out, results, asked.share, caught)
    failed = any(result.problems for result in results) or not all(caught.values())
    if failed:
        print(f"the folders of what failed are in {root}")
        return 1
    shutil.rmtree(root)
    return 0


def _run_rows(
    names: Sequence[str], share: float, seed: int, root: Path, bars: Progress
) -> list[Result]:
    rig = Rig(root / "rig")
    chosen = [ROWS[name](rig) for name in names]
    task = bars.add_task("faults", total=sum(max(1, round(row.count * share)) for row in chosen))
    results = []
    for row in chosen:

        def on_case(result: Result, name: str = row.name) -> None:
            failures = f", {len(result.problems)} failed" if result.problems else ""
            bars.update(task, advance=1, description=f"{name}{failures}")

        result = run_row(row, root, seed=seed, share=share, on_case=on_case)
        results.append(result)
        bars.console.print(
            f"{row.name}: {result.passed} of {result.cases} passed, seed {seed}, "
            f"{result.seconds:.0f} s",
            highlight=False,
        )
        for line in failure_lines([result]):
            bars.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    return results


def _catch_mutants(root: Path, seed: int, bars: Progress) -> dict[str, str | None]:
    """Planted bug → how it was caught; None: it was not."""
    task, caught = bars.add_task(_MUTANTS, total=len(CAUGHT_BY)), dict[str, str | None]()
    for number, mutant in enumerate(CAUGHT_BY):
        caught[mutant] = how = catch(mutant, root / str(number), seed)
        bars.console.print(f"{'caught' if how else 'MISSED'}: {mutant}", highlight=False)
        if how:
            bars.console.print(f"  by {how}", highlight=False, markup=False, soft_wrap=True)
        bars.update(task, advance=1)
    found = sum(how is not None for how in caught.values())
    bars.console.print(f"{found} of {len(caught)} planted bugs caught, seed {seed}")
    return caught


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names of rows, or mutants (all)")
    parser.add_argument("--seed", type=int, help="of all that is random (another each time)")
    parser.add_argument("--share", type=float, default=1.0, help="of each row's cases (1)")
    parser.add_argument("--out", type=Path, help="a Markdown file for the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())

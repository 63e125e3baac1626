"""hairpin's update against the peers', each in its own environment and a fresh process.

    python -m benchmarks.speed [--quick] [--workloads book,small,tiny,long] [--out PAGE]

Same weights, tokens, AdamW, learning rate and clipping; first it is shown that the losses are the
same. Then arms take turns, forwards and backwards; the first update of each process is thrown away.
In the same run the products of the model's own shapes are timed alone: the ceiling.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks.speed.page import agreement_lines, machine, page
from benchmarks.speed.peers import ARMS, CHECKED, Arm, environment, in_turn
from benchmarks.speed.processes import FailedError, Processes, leave_on_sigterm
from benchmarks.speed.results import Agreement, Row, Workload, agreed, largest_gap
from hairpin.model.shape import Shape

# Shape, sequences in a batch, updates of a process; a quick run has the second number of updates.
WORKLOADS = {
    "book": (Shape(50_257, 256, 12, 12, 768), 2, 4, 3),
    "small": (Shape(8192, 256, 6, 6, 384), 8, 6, 3),
    "tiny": (Shape(8192, 64, 4, 4, 128), 12, 40, 20),
    "long": (Shape(50_257, 1024, 12, 12, 768), 4, 3, 2),
}
LR = 1e-4
# The check repeats a few batches at a larger rate: the loss falls, and shows what differs. With one
# sequence a batch it tells nothing: there hairpin comes 8e-4 apart from itself within 20 updates
# when each weight is one rounding away, and only 3e-4 from the others; with two, 3e-6 from itself.
CHECK_BATCH, CHECK_UPDATES, CHECK_BATCHES, CHECK_LR = 2, 20, 4, 5e-4


def main() -> int:
    """Measure, and write the page; 1 when the losses are not the same."""
    asked = arguments()
    leave_on_sigterm()
    arms = [
        arm for arm in ARMS if (arm.in_quick or not asked.quick) and asked.arms.search(arm.name)
    ]
    pythons = {
        arm.peer: environment(arm.peer, asked.folder.absolute()) for arm in (*arms, *CHECKED)
    }
    workloads, agreements = load(asked.results)
    with processes(pythons, asked) as ready:
        agreements = check(ready, with_yardstick=not asked.quick)
    print("\n".join(agreement_lines(agreements)), file=sys.stderr)
    for name in asked.workloads.split(","):
        shape, batch, updates, quick_updates = WORKLOADS[name]
        size = (quick_updates if asked.quick else updates, batch, shape.context + 1)
        ids = np.random.default_rng(0).integers(0, shape.vocabulary, size)
        with processes(pythons, asked) as ready:
            workloads[name] = measure(name, arms, ready, shape, ids, asked.repeats)
        # After each, so that what was measured outlives an interruption.
        store(asked.results, workloads, agreements)
        text = page(workloads, {n: WORKLOADS[n][:2] for n in workloads}, agreements)
        if asked.out:
            asked.out.write_text(text, encoding="utf-8")
    print(text)
    return int(not agreed(agreements))


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under five minutes: not `long`, "
                        "fewer arms, one turn")  # fmt: skip
    parser.add_argument("--workloads", help=f"some of {','.join(WORKLOADS)}; by default all")
    parser.add_argument("--arms", type=re.compile, default=re.compile(""), metavar="PATTERN",
                        help="only those whose names have it (a regular expression)")  # fmt: skip
    parser.add_argument("--repeats", type=int, help="turns: 5, quick 1")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of a process (600)")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="peers' environments")
    parser.add_argument("--results", type=Path, help="numbers as JSON (speed.json in the folder)")
    parser.add_argument("--out", type=Path, help="the page")
    asked = parser.parse_args()
    asked.workloads = asked.workloads or ("book,small,tiny" if asked.quick else ",".join(WORKLOADS))
    if unknown := [name for name in asked.workloads.split(",") if name not in WORKLOADS]:
        parser.error(f"--workloads: {unknown[0]} is not one of {', '.join(WORKLOADS)}")
    asked.repeats = asked.repeats or (1 if asked.quick else 5)
    asked.results = asked.results or asked.folder / "speed.json"
    return asked


@contextmanager
def processes(pythons: dict[str, Path], asked: argparse.Namespace) -> Iterator[Processes]:
    """In a folder that goes with them: the files of one workload."""
    with tempfile.TemporaryDirectory(prefix="hairpin-speed-") as folder:
        yield Processes(Path(folder), pythons, asked.device, asked.limit)


def check(ready: Processes, *, with_yardstick: bool) -> list[Agreement]:
    """Twenty updates of the small network by everybody in float32, and how far they come apart.

    The yardstick is hairpin again from weights that are each one rounding away: what two right
    programs may differ by.
    """
    shape = WORKLOADS["small"][0]
    few = np.random.default_rng(1).integers(
        0, shape.vocabulary, (CHECK_BATCHES, CHECK_BATCH, shape.context + 1)
    )
    ids = np.tile(few, (CHECK_UPDATES // CHECK_BATCHES, 1, 1))
    ours = {arm.network: arm for arm in CHECKED if arm.is_ours}
    asked = [(arm, False) for arm in CHECKED]
    asked += [(arm, True) for arm in ours.values() if with_yardstick]
    found: dict[str, list[float]] = {}
    agreements = []
    for arm, is_nudged in track(asked, "the same losses?"):
        job = ready.prepare(arm, shape, ids, CHECK_LR, is_nudged=is_nudged)
        try:
            losses = ready.run(arm, job)["losses"]
        except FailedError as error:
            print(f"{arm.name} is not checked: {error}", file=sys.stderr)
            continue
        # A peer without hairpin's losses beside it is not compared; the page says what was.
        if arm.is_ours and not is_nudged:
            found[arm.network] = losses
        elif arm.network in found:
            name = "hairpin, each weight one rounding away" if is_nudged else arm.name
            gap = largest_gap(found[arm.network], losses)
            agreements.append(
                Agreement(name, arm.network, len(losses), gap, losses[0], losses[-1], is_nudged)
            )
    return agreements


def measure(
    name: str,
    arms: list[Arm],
    ready: Processes,
    shape: Shape,
    ids: np.ndarray[Any, Any],
    turns: int,
) -> Workload:
    """A workload by every arm, in turns; an arm that fails is not asked again."""
    batch = ids.shape[1]
    tokens = batch * shape.context
    jobs = {arm: ready.prepare(arm, shape, ids, LR) for arm in arms}
    rows = {
        arm: Row(arm.name, arm.network, arm.precision, arm.is_ours, arm.is_same_network)
        for arm in arms
    }
    ceilings: dict[str, tuple[list[float], list[float]]] = {}
    for turn in range(turns):
        for arm in track(in_turn(arms, turn), f"{name}, turn {turn + 1} of {turns}"):
            if rows[arm].failure:
                continue
            try:
                rows[arm].add(ready.run(arm, jobs[arm]), tokens)
            except FailedError as error:
                rows[arm].failure = str(error)
                print(f"{name}: {arm.name} is left out: {error}", file=sys.stderr)
        for precision, (matrices, attention) in ready.time_products(shape, batch).items():
            lists = ceilings.setdefault(precision, ([], []))
            lists[0].append(tokens / matrices)
            lists[1].append(tokens / (matrices + attention))
    return Workload(machine(ready.device, ready.threads), turns, list(rows.values()), ceilings)


def store(path: Path, workloads: dict[str, Workload], agreements: list[Agreement]) -> None:
    """All numbers, as JSON."""
    content = {
        "agreements": [asdict(each) for each in agreements],
        "workloads": {name: asdict(workload) for name, workload in workloads.items()},
    }
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def load(path: Path) -> tuple[dict[str, Workload], list[Agreement]]:
    """What an earlier run has stored; nothing if there was none."""
    if not path.exists():
        return {}, []
    content = json.loads(path.read_text(encoding="utf-8"))
    workloads = {
        name: Workload(**{**each, "rows": [Row(**row) for row in each["rows"]]})
        for name, each in content["workloads"].items()
    }
    return workloads, [Agreement(**each) for each in content["agreements"]]


if __name__ == "__main__":
    sys.exit(main())

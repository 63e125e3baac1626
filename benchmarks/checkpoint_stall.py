"""What saving a checkpoint costs a training that goes on meanwhile.

    python -m benchmarks.checkpoint_stall

A GPT-2 of 124M parameters (1.5 GB of weights and moments) trains on updates of 2 × 256 tokens.
Blocks of updates in which a checkpoint is saved in the background alternate with blocks without;
the difference is what the save costs in all: the copy that training waits for, and the cores and
the disk that the writing takes from it. For comparison, what it would cost to wait for the disk.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.load import build_config
from hairpin.machine.numerics import Numerics
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.gradients import Clipper
from hairpin.optim.guard import Guard
from hairpin.optim.optimizers import build_optimizer
from hairpin.training.spread import Spread
from hairpin.training.state import TrainState
from hairpin.training.step import Stepper

_SEQUENCES, _CONTEXT, _VOCABULARY = 2, 256, 50_257
_SAVES_IN_A_RUN = 10  # the default interval is a tenth of the run


def main() -> None:
    """Time the blocks in turn and print what a save costs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=5, help="of blocks, after one to warm up")
    parser.add_argument("--updates", type=int, default=10, help="in a block; longer than a save")
    parser.add_argument("--precision", default="bfloat16")
    arguments = parser.parse_args()
    state, stepper = _training(arguments.precision)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        store = CheckpointStore(Path(folder), keep=1)
        times: dict[str, list[float]] = {"without": [], "with": [], "copy": [], "waited for": []}
        for pair in range(arguments.pairs + 1):
            for kind in ("without", "with") if pair % 2 else ("with", "without"):
                start = time.perf_counter()
                if kind == "with":
                    store.save(_snapshot(state))
                    times["copy"].append(time.perf_counter() - start)
                _train(state, stepper, arguments.updates)
                times[kind].append(time.perf_counter() - start)
                store.finish()
            start = time.perf_counter()
            state.update += 1
            store.save(_snapshot(state))
            store.finish()
            times["waited for"].append(time.perf_counter() - start)
    _report({kind: taken[1:] for kind, taken in times.items()}, arguments.updates)


def _report(times: dict[str, list[float]], updates: int) -> None:
    costs = [
        with_ - without for with_, without in zip(times["with"], times["without"], strict=True)
    ]
    print(f"an update                {statistics.median(times['without']) / updates:.3f} s")
    for name, taken in (
        ("training waits for copy", times["copy"]),
        ("cost of a save in all", costs),
        ("a save waited for", times["waited for"]),
    ):
        print(
            f"{name:<24} median {statistics.median(taken):.2f} s "
            f"({min(taken):.2f} to {max(taken):.2f})"
        )
    for minutes in (10, 60, 600):
        share = _SAVES_IN_A_RUN * statistics.median(costs) / (60 * minutes)
        print(f"share of a run of {minutes:>3} min at the default interval: {share:.2%}")


def _training(precision: str) -> tuple[TrainState, Stepper]:
    config = build_config()
    shape = Shape(_VOCABULARY, 1024, layers=12, heads=12, width=768)
    model = GPT(shape).train()
    guard = Guard(config.guard, "cpu")
    state = TrainState(Spread(model), build_optimizer(model, config.optimizer), guard)
    stepper = Stepper(
        Spread(model),
        state.optimizer,
        Clipper(config.clip.kind, config.clip.threshold),
        Numerics("cpu", precision),
        seed=0,
        micro_batch=_SEQUENCES,
        guard=guard,
    )
    return state, stepper


def _train(state: TrainState, stepper: Stepper, updates: int) -> None:
    ids = torch.randint(0, _VOCABULARY, (_SEQUENCES, _CONTEXT + 1))
    for _ in range(updates):
        result = stepper.step((ids[:, :-1], ids[:, 1:]), update=state.update, position=0, lr=1e-4)
        float(result.loss)
        state.update += 1


def _snapshot(state: TrainState) -> Snapshot:
    return Snapshot(state.update, state.tensors(), state.counters())


if __name__ == "__main__":
    main()

"""What a user's own type checker makes of hairpin, which exports its types (`py.typed`)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

SCRIPT = """\
from pathlib import Path

import torch
from torch import nn

import hairpin
from hairpin import Run, schedules
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.optim.gradients import Clipped, Clipper
from hairpin.plugins.registry import register_schedule
from hairpin.schedules.curves import Schedule


def best_of(run: Run) -> float | None:
    best = run.summary().best
    return best.val_bits_per_byte if best else None


def main() -> None:
    run = hairpin.train("book.txt", budget="10m", track=["tensorboard"], watcher=hairpin.Quiet())
    text: str = "".join(run.writer().write("Once", tokens=100))
    curve: Schedule = schedules.cosine(updates=100, warmup=5, peak_lr=1e-3)
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=curve(0))
    scheduler = hairpin.ScheduleLR(optimizer, curve)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    clipped: Clipped = Clipper("norm", 1.0)(gradients)
    with CheckpointStore(Path("checkpoints"), keep=3) as store:
        store.save(Snapshot(1, {"model": model.state_dict()}, {"step": 1}))
    register_schedule("flat", lambda schedule, update: schedule.peak_lr)
    print(text, best_of(run), float(clipped.norm), scheduler.get_last_lr())
"""
WRONG = """\
import hairpin
from hairpin.optim.gradients import Clipper

hairpin.train("book.txt", budget=[10])
Clipper(1.0)
steps: str = hairpin.schedules.cosine(updates=10, warmup=1, peak_lr=0.1).updates
hairpin.load("run").sumary()
"""


def mypy(folder: Path, script: str) -> "subprocess.CompletedProcess[str]":
    """mypy, strict, over a script elsewhere, with hairpin as a package that is installed."""
    (folder / "script.py").write_text(script, encoding="utf-8")
    cache = folder.parent / "mypy-cache"
    arguments = ("--strict", "--no-error-summary", "--cache-dir", str(cache), "script.py")
    return subprocess.run(
        [sys.executable, "-m", "mypy", *arguments],
        cwd=folder,
        env={**os.environ, "MYPYPATH": "", "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_script_checks_against_the_installed_package_and_mistakes_are_seen(
    tmp_path: Path,
) -> None:
    pytest.importorskip("mypy")
    folders = tmp_path / "right", tmp_path / "wrong"
    for folder in folders:
        folder.mkdir()
    right = mypy(folders[0], SCRIPT)
    assert (right.stdout, right.returncode) == ("", 0), right.stderr
    wrong = mypy(folders[1], WRONG)
    found = [line.split(":")[1] for line in wrong.stdout.splitlines() if ": error: " in line]
    assert found == ["4", "5", "6", "7"], wrong.stdout

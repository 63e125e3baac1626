"""Fresh processes: each does one job in its peer's environment, for a limited time."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.speed.peers import Arm, shape_for, weights_for
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape

ROOT = Path(__file__).parents[2]


class FailedError(Exception):
    """A process ended with an error, or ran too long; its text says which."""


def leave_on_sigterm() -> None:
    """Make an exception of SIGTERM, so that the process that runs is ended too.

    It is in a group of its own, and would go on training beside whatever is timed next.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def nudged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every number moved to the next one that there is, up or down as a coin falls."""
    coins = torch.Generator().manual_seed(0)
    moved = {}
    for name, tensor in tensors.items():
        up = torch.rand(tensor.shape, generator=coins) < 0.5
        moved[name] = torch.nextafter(tensor, torch.where(up, math.inf, -math.inf))
    return moved


@dataclass
class Processes:
    """Runs jobs on networks of one size.

    Args:
        folder: for jobs, weights, results and what compilers keep.
        pythons: each peer's Python.
        device: "cpu" or "cuda".
        limit_seconds: after which a process is ended.
        threads: for each process.
    """

    folder: Path
    pythons: Mapping[str, Path]
    device: str
    limit_seconds: float
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    prepared: int = 0
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def prepare(
        self,
        arm: Arm,
        shape: Shape,
        ids: np.ndarray[Any, Any],
        lr: float,
        *,
        is_nudged: bool = False,
        seed: int = 0,
        recipe: Mapping[str, Any] | None = None,
        validation: Path | None = None,
    ) -> Path:
        """Write what an arm is to do; its folder is also its compiler's, empty at first.

        Args:
            arm: who.
            shape: as GPT-2 has it.
            ids: tokens, [updates, batch, context + 1].
            lr: constant, or the peak of the recipe.
            is_nudged: from weights that are each the next number up or down.
            seed: of the weights.
            recipe, validation: as a `Job` has them.
        """
        self.prepared += 1
        folder = self.folder / f"{self.prepared}-{arm.peer}"
        folder.mkdir()
        np.save(folder / "ids.npy", ids)
        its_shape = shape_for(arm.network, shape)
        # Arms of the same names share the file.
        names = f"{arm.network}{'-ours' * arm.is_ours}{'-nudged' * is_nudged}-{seed}"
        weights = self.folder / f"{names}.safetensors"
        if not weights.exists():
            tensors = weights_for(arm, GPT(its_shape, seed))
            save_file(nudged(tensors) if is_nudged else tensors, weights)
        job = {
            "shape": asdict(its_shape), "weights": str(weights), "ids": str(folder / "ids.npy"),
            "lr": lr, "precision": arm.precision, "device": self.device, "flags": dict(arm.flags),
            "recipe": dict(recipe or {}), "validation": str(validation or ""),
        }  # fmt: skip
        (folder / "job").write_text(json.dumps(job))
        return folder / "job"

    def run(self, arm: Arm, job: Path) -> dict[str, Any]:
        """One training in a fresh process.

        Raises:
            FailedError: no result came.
        """
        return self._run(arm.script, self.pythons[arm.peer], job)

    def end_all(self) -> None:
        """End what other threads run; they get a `FailedError`."""
        for process in list(self.running):
            _end(process)

    def time_products(self, shape: Shape, batch: int) -> dict[str, tuple[float, float]]:
        """Seconds of an update's products by precision, without attention's and attention's."""
        folder = self.folder / "products"
        folder.mkdir(exist_ok=True)
        job = {
            "shape": asdict(shape), "weights": "", "ids": "", "lr": 0.0, "precision": "",
            "device": self.device, "flags": {"batch": batch},
        }  # fmt: skip
        (folder / "job").write_text(json.dumps(job))
        try:
            return self._run("benchmarks.speed.run_products", Path(sys.executable), folder / "job")
        except FailedError as error:
            print(f"no ceiling: {error}", file=sys.stderr)
            return {}

    def _run(self, script: str, python: Path, job: Path) -> dict[str, Any]:
        """A module of this package on a job, by its own process."""
        result, errors = job.with_name("result"), job.with_name("errors")
        result.unlink(missing_ok=True)
        job.write_text(json.dumps({**json.loads(job.read_text()), "asked_at": time.time()}))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self.threads),
            "TORCHINDUCTOR_CACHE_DIR": str(job.with_name("compiled")),
            "PYTHONPATH": os.environ.get("PYTHONPATH", "")
            if python.samefile(sys.executable)
            else "",
        }
        with errors.open("wb") as file:
            process = subprocess.Popen(
                [python, "-m", script, job, result],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=file,
                # A group of its own: compilers start processes too, and all are ended together.
                start_new_session=True,
            )
            self.running.add(process)
            try:
                code = process.wait(self.limit_seconds)
            except subprocess.TimeoutExpired:
                raise FailedError(f"took more than {self.limit_seconds:.0f} seconds") from None
            finally:
                _end(process)
                self.running.discard(process)
        if code or not result.exists():
            lines = errors.read_text(errors="replace").strip().splitlines()
            raise FailedError(lines[-1][:200] if lines else f"exit code {code}")
        loaded: dict[str, Any] = json.loads(result.read_text())
        return loaded


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs, with what it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

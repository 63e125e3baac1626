"""hairpin's update against the peers', each in its own environment and a fresh process.

    python -m benchmarks.speed [--quick] [--workloads book,small,tiny,long] [--out PAGE]

Same weights, tokens, AdamW, learning rate and clipping; arms take turns, forwards and backwards;
the first update of each process is thrown away. In the same run the products of the model's own
shapes are timed alone: the ceiling.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import save_file

from benchmarks.speed.peers import ARMS, HERE, Arm, environment, shape_for, weights_for
from benchmarks.speed.results import Measured, page, product_shapes
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape

WORKLOADS = {
    "book": (Shape(50_257, 256, 12, 12, 768), 2, 4),
    "small": (Shape(8192, 256, 6, 6, 384), 8, 6),
    "tiny": (Shape(8192, 64, 4, 4, 128), 12, 40),
    "long": (Shape(50_257, 1024, 12, 12, 768), 4, 3),
}
LR = 1e-4


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three repeats, not of `long`")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="peers and results")
    parser.add_argument("--out", type=Path, help="the page")
    asked = parser.parse_args()
    names = [name for name in asked.workloads.split(",") if not (asked.quick and name == "long")]
    repeats = 3 if asked.quick else asked.repeats
    pythons = {
        arm.peer: environment(arm.peer, asked.folder.absolute()) for arm in ARMS if not arm.is_ours
    }
    stored = asked.folder / "results.json"
    results: dict[str, list[Measured]] = {}
    if stored.exists():
        results = {
            name: [Measured(**row) for row in rows]
            for name, rows in json.loads(stored.read_text()).items()
        }
    for name in names:
        results[name] = measure(name, repeats, pythons)
        stored.write_text(json.dumps({k: [asdict(m) for m in v] for k, v in results.items()}))
    text = page(results, {name: WORKLOADS[name][:2] for name in results})
    print(text)
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")


def measure(name: str, repeats: int, pythons: dict[str, Path]) -> list[Measured]:
    """A workload by every arm, in turns."""
    shape, batch, updates = WORKLOADS[name]
    found = {arm.name: Measured(arm.name, arm.peer, arm.is_ours) for arm in ARMS}
    found["ceiling"] = Measured("ceiling", "", False)
    with tempfile.TemporaryDirectory() as folder:
        jobs = {arm.name: make_job(arm, shape, batch, updates, Path(folder)) for arm in ARMS}
        for number in track(range(repeats), name):
            order = ARMS if number % 2 == 0 else ARMS[::-1]
            for arm in order:
                python = Path(sys.executable) if arm.is_ours else pythons[arm.peer]
                found[arm.name].add(run(arm, python, jobs[arm.name]), batch * shape.context)
            seconds = time_products(shape, batch)
            found["ceiling"].tokens_per_second.append(batch * shape.context / seconds)
    return list(found.values())


def make_job(arm: Arm, shape: Shape, batch: int, updates: int, folder: Path) -> Path:
    """What an arm is to do, in files."""
    its_shape = shape_for(arm, shape)
    stem = folder / f"{arm.peer}-{arm.script}-{len(arm.flags)}"
    ids = np.random.default_rng(0).integers(
        0, shape.vocabulary, (updates, batch, shape.context + 1)
    )
    np.save(stem.with_suffix(".npy"), ids)
    save_file(weights_for(arm, GPT(its_shape)), stem.with_suffix(".safetensors"))
    job = {
        "shape": asdict(its_shape), "weights": str(stem.with_suffix(".safetensors")),
        "ids": str(stem.with_suffix(".npy")), "lr": LR, "flags": dict(arm.flags),
        "precision": "float32",
    }  # fmt: skip
    path = stem.with_suffix(".job")
    path.write_text(json.dumps(job))
    return path


def run(arm: Arm, python: Path, job: Path) -> dict[str, Any] | None:
    """One training in a fresh process; None if it failed, which is said."""
    job.write_text(json.dumps({**json.loads(job.read_text()), "asked_at": time.time()}))
    result = job.with_suffix(".result")
    done = subprocess.run(
        [python, HERE / arm.script, job, result],
        env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count() or 1)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"{arm.name} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    loaded: dict[str, Any] = json.loads(result.read_text())
    return loaded


def time_products(shape: Shape, batch: int) -> float:
    """Seconds of an update's matrix products and nothing else, each shape by itself."""
    total = 0.0
    for rows, inner, columns, count in product_shapes(shape, batch):
        one, other = torch.randn(rows, inner), torch.randn(inner, columns)
        out = torch.empty(rows, columns)
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            torch.mm(one, other, out=out)
            times.append(time.perf_counter() - begin)
        total += count * min(times)
    return total


if __name__ == "__main__":
    main()

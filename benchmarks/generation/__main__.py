"""hairpin's writing against transformers' generate, each in a fresh process.

    python -m benchmarks.generation [--workloads 14M,124M] [--repeats 5] [--out PAGE]

Same weights, same prompt, the likeliest token each time. Repeats are added to those that are there
already, so that a measurement can be done in portions; `--afresh` forgets them.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.generation.results import (
    ARMS,
    REFERENCE,
    Arm,
    Measured,
    Workload,
    bytes_per_token,
    page,
)
from benchmarks.speed.peers import environment
from hairpin.model.gpt import GPT, derived_seed
from hairpin.model.shape import Shape
from hairpin.weights.transformers_weights import HEAD, to_plain

HERE = Path(__file__).parent
SHAPES = {"14M": Shape(8192, 256, 6, 6, 384), "124M": Shape(50_257, 1024, 12, 12, 768)}
PROMPT = list(range(1, 17))


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", default=",".join(SHAPES))
    parser.add_argument("--arms", type=re.compile, default=re.compile(""), metavar="PATTERN",
                        help="those whose names have it, and transformers")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200, help="to write")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="peer and results")
    parser.add_argument("--afresh", action="store_true", help="forget what was measured")
    parser.add_argument("--out", type=Path, help="the page")
    asked = parser.parse_args()
    python = environment("transformers", asked.folder.absolute())
    arms = [arm for arm in ARMS if arm is REFERENCE or asked.arms.search(arm.name)]
    stored = asked.folder / "generation.json"
    done = _read(stored) if stored.exists() and not asked.afresh else {}
    for name in filter(None, asked.workloads.split(",")):
        shape = SHAPES[name]
        workload = done.setdefault(name, Workload(asdict(shape), asked.tokens))
        measure(workload, shape, asked.repeats, python, arms)
        stored.write_text(json.dumps({key: asdict(value) for key, value in done.items()}))
    text = page(done)
    print(text)
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")


def measure(
    workload: Workload, shape: Shape, repeats: int, python: Path, arms: Sequence[Arm]
) -> None:
    """Let every arm write, in turns."""
    model = drawn_model(shape)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = model.state_dict()
        save_file(state, folder / "hairpin.safetensors")
        theirs = to_plain(state, shape) | {HEAD: model.head_weight.detach().clone()}
        save_file(theirs, folder / "transformers.safetensors")
        del state, theirs
        if not workload.arms:
            workload.arms = {arm.name: Measured() for arm in arms}
            # Not timed: what all the others are asked to read.
            text = _run(REFERENCE, python, workload, folder, [])["ids"]
            expected = _network_logits(model, text)
            best = expected.topk(2).values
            workload.distinct = len(set(text))
            workload.middle_lead = float((best[:, 0] - best[:, 1]).median())
            for arm in arms:
                _compare(arm, python, workload, folder, text, expected)
        del model
        for _ in track(range(repeats), f"{shape.layers} × {shape.width}"):
            number = len(workload.memory_bytes_per_second)
            workload.memory_bytes_per_second.append(memory_speed())
            for arm in arms[:: 1 if number % 2 == 0 else -1]:
                result = _run(arm, python, workload, folder, [])
                _add(workload, shape, arm, result)


def drawn_model(shape: Shape) -> GPT:
    """A model whose likeliest text varies and whose scores are as far apart as a trained one's."""
    model = GPT(shape)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                width = 2.0 if not name.endswith("output.weight") else 1.0
                deviation = (2.75 if "embedding" in name else width) / parameter.size(1) ** 0.5
                draw = torch.Generator().manual_seed(derived_seed("generation", name))
                parameter.normal_(0.0, deviation, generator=draw)
    return model.eval()


def memory_speed() -> float:
    """Bytes a second that `torch.sum` reads, of more than fits into any cache."""
    torch.set_num_threads(os.cpu_count() or 1)
    numbers = torch.ones(2**27)
    times = []
    for _ in range(8):
        begin = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - begin)
    return numbers.numel() * 4 / min(times)


def _network_logits(model: GPT, text: list[int]) -> Tensor:
    """Scores after each token of the text, [T, V], by the network in float32."""
    with torch.no_grad():
        return model.logits(torch.tensor([PROMPT + text[:-1]]))[0, len(PROMPT) - 1 :]


def _compare(
    arm: Arm, python: Path, workload: Workload, folder: Path, text: list[int], expected: Tensor
) -> None:
    row = workload.arms[arm.name]
    row.ids = _run(arm, python, workload, folder, PROMPT + text[:-1])["ids"]
    found = load_file(folder / "logits.safetensors")["logits"][len(PROMPT) - 1 :]
    row.largest_gap = float((found - expected).abs().max())
    row.same_choice = float((found.argmax(1) == expected.argmax(1)).float().mean())


def _add(workload: Workload, shape: Shape, arm: Arm, result: dict[str, Any]) -> None:
    row = workload.arms[arm.name]
    speed = workload.tokens / result["seconds"]
    row.tokens_per_second.append(speed)
    positions = len(PROMPT) + workload.tokens / 2
    row.bytes_per_second.append(
        speed * bytes_per_token(shape, arm.precision, arm.is_ours, positions)
    )


def _run(
    arm: Arm, python: Path, workload: Workload, folder: Path, text: list[int]
) -> dict[str, Any]:
    """One text in a fresh process; scores of a given one too, if there is one."""
    weights = "hairpin" if arm.is_ours else "transformers"
    job = {
        "shape": workload.shape, "weights": str(folder / f"{weights}.safetensors"),
        "flags": dict(arm.flags), "prompt": PROMPT, "tokens": workload.tokens,
        "warm_up_tokens": 16, "text": text, "logits": str(folder / "logits.safetensors"),
    }  # fmt: skip
    path, result = folder / "job.json", folder / "result.json"
    path.write_text(json.dumps(job))
    program = Path(sys.executable) if arm.is_ours else python
    environ = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    subprocess.run(
        [program, HERE / arm.script, path, result], env=environ, check=True, capture_output=True
    )
    loaded: dict[str, Any] = json.loads(result.read_text())
    return loaded


def _read(path: Path) -> dict[str, Workload]:
    done = {name: Workload(**value) for name, value in json.loads(path.read_text()).items()}
    for workload in done.values():
        workload.arms = {
            name: Measured(**row)  # type: ignore[arg-type]
            for name, row in workload.arms.items()
        }
    return done


if __name__ == "__main__":
    main()

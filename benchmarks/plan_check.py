"""How near `hairpin plan` comes: memory and time that it foretells beside what runs then take.

    python -m benchmarks.plan_check [--only NAME] [--memory-only] [--out FILE]
    python -m benchmarks.plan_check --base

Each row is a plan (`--json`), and then a run of the same settings, each in a process of its own:
evaluations, samples, checkpoints and plots included, the text prepared before. Memory is the
process's peak (`ru_maxrss`), time is from its start to its end. `--memory-only` measures nothing
for the plan and takes shorter runs: peaks can be read on a busy machine, times cannot. `--base`
prints the peak of the smallest run there is, which `planning/memory.py` has as PROCESS_BYTES and
PLOTS_BYTES. Exit code 1 where memory is off by more than 20%.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

MEMORY_SHARE, TIME_SHARE = 0.2, 0.25
RECIPES, PRECISIONS = ("gpt2", "modern"), ("float32", "bfloat16")
MINIMAL = {
    "model.size": "nano", "model.width": 32, "model.context": 32, "tokenizer.kind": "bytes",
    "train.tokens_per_update": 64, "execution.micro_batch": 1, "evaluate.tokens": 64,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "tiny 16 x 128": {
        "model.size": "tiny", "tokenizer.vocabulary": 4096,
        "train.tokens_per_update": 2048, "execution.micro_batch": 16,
    },
    "mini 4 x 128": {
        "model.size": "mini", "tokenizer.vocabulary": 4096,
        "train.tokens_per_update": 2048, "execution.micro_batch": 4,
    },
    "medium 16 x 256": {
        "model.size": "medium", "tokenizer.vocabulary": 16_384,
        "train.tokens_per_update": 8192, "execution.micro_batch": 16,
    },
    "base 4 x 512": {
        "model.size": "base", "tokenizer.vocabulary": 16_384,
        "train.tokens_per_update": 4096, "execution.micro_batch": 4,
    },
    "gpt2 2 x 256": {
        "model.size": "gpt2", "model.context": 256, "tokenizer.kind": "gpt2",
        "train.tokens_per_update": 1024, "execution.micro_batch": 2,
    },
    "gpt2 1 x 1024": {
        "model.size": "gpt2", "model.context": 1024, "tokenizer.kind": "gpt2",
        "train.tokens_per_update": 1024, "execution.micro_batch": 1,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One config: bytes and seconds as foretold and as measured."""

    name: str
    recipe: str
    precision: str
    planned_bytes: int
    peak_bytes: int
    planned_seconds: float | None
    seconds: float

    def cells(self) -> list[str]:
        """A row of the table; a ratio is what was foretold over what was measured."""
        planned = self.planned_seconds
        time_ratio = f"{planned / self.seconds:.2f}" if planned else ""
        return [
            self.name,
            self.recipe,
            self.precision,
            f"{self.planned_bytes / 1e6:,.0f}",
            f"{self.peak_bytes / 1e6:,.0f}",
            f"{self.memory_ratio:.2f}",
            f"{planned:.1f}" if planned else "",
            f"{self.seconds:.1f}",
            time_ratio,
        ]

    @property
    def memory_ratio(self) -> float:
        """Foretold over measured."""
        return self.planned_bytes / self.peak_bytes


def main() -> int:
    """Measure, print the table, and say how near it came."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="configs whose name has this in it")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--updates", type=int, help="of each run (12; with --memory-only 4)")
    parser.add_argument("--memory-only", action="store_true", help="on a machine that is busy")
    parser.add_argument("--base", action="store_true", help="the peak of the smallest run")
    parser.add_argument("--out", type=Path, help="a file for the table as well")
    asked = parser.parse_args()
    if asked.base:
        return _base()
    updates = asked.updates or (4 if asked.memory_only else 12)
    names = [name for name in CONFIGS if asked.only in name]
    ways = list(itertools.product(names, asked.recipes, asked.precisions))
    rows = []
    for name, recipe, precision in track(ways, console=Console(stderr=True)):
        settings = {
            **CONFIGS[name], "recipe": recipe, "execution.precision": precision,
            "execution.device": "cpu", "train.updates": updates, "data.corpus": "stdlib",
            "evaluate.every_updates": max(1, updates // 3), "evaluate.sample_tokens": 32,
            # So short a run would otherwise evaluate longer than it trains.
            "evaluate.tokens": 4096, "evaluate.train_tokens": 1024,
        }  # fmt: skip
        rows.append(measured(name, settings, probe=not asked.memory_only))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    text = "\n".join([table(rows), "", *conclusions(rows)])
    print(f"\n{text}")
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")
    return int(any(abs(row.memory_ratio - 1) > MEMORY_SHARE for row in rows))


def measured(name: str, settings: dict[str, Any], *, probe: bool) -> Row:
    """A plan, then the run."""
    with tempfile.TemporaryDirectory(prefix="hairpin-plan-check-") as folder:
        _prepare(settings)
        plan = _plan(settings, folder, probe=probe)
        peak_bytes, seconds = _run(settings, folder)
    planned = plan["time"]["total_seconds"] if plan["time"] else None
    return Row(
        name,
        settings["recipe"],
        settings["execution.precision"],
        plan["memory"]["peak_bytes"],
        peak_bytes,
        planned,
        seconds,
    )


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    head = ["config", "recipe", "precision", "MB planned", "MB", "ratio", "s planned", "s", "ratio"]
    lines = [head, ["---"] * len(head), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def conclusions(rows: Sequence[Row]) -> list[str]:
    """How many rows are as near as they should be."""
    near = sum(abs(row.memory_ratio - 1) <= MEMORY_SHARE for row in rows)
    lines = [f"Memory within {MEMORY_SHARE:.0%}: {near} of {len(rows)}."]
    timed = [row.planned_seconds / row.seconds for row in rows if row.planned_seconds]
    if timed:
        near = sum(abs(ratio - 1) <= TIME_SHARE for ratio in timed)
        lines.append(f"Time within {TIME_SHARE:.0%}: {near} of {len(timed)}.")
    return lines


def _base() -> int:
    for recipe, precision in itertools.product(RECIPES, PRECISIONS):
        settings = {
            **MINIMAL, "recipe": recipe, "execution.precision": precision, "train.updates": 4,
            "evaluate.every_updates": 2, "execution.device": "cpu", "data.corpus": "stdlib",
        }  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="hairpin-plan-check-") as folder:
            _prepare(settings)
            peak_bytes, _ = _run(settings, folder)
        print(f"{recipe}, {precision}: {peak_bytes / 1e6:.0f} MB")
    return 0


def _flags(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def _prepare(settings: dict[str, Any]) -> None:
    """The text's tokens in the cache, by a process of its own."""
    program = (
        "import json, sys\nfrom hairpin.config.load import build_config\n"
        "from hairpin.data.shards import prepare\n"
        "config = build_config(flags=json.loads(sys.argv[1]))\n"
        "prepare(config.data, config.tokenizer)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", program, json.dumps(settings)], check=True)


def _plan(settings: dict[str, Any], folder: str, *, probe: bool) -> dict[str, Any]:
    words = ["plan", "--json", "--no-text-check", "--out", f"{folder}/run", *_flags(settings)]
    if not probe:
        words.append("--no-probe")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "hairpin", *words],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    plan: dict[str, Any] = json.loads(done.stdout)
    return plan


def _run(settings: dict[str, Any], folder: str) -> tuple[int, float]:
    """Peak memory in bytes and seconds of `hairpin train`, from its start to its end."""
    words = ["train", "--out", f"{folder}/run", *_flags(settings)]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "hairpin", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"training failed: {' '.join(words)}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), seconds


if __name__ == "__main__":
    sys.exit(main())

"""Seconds from a command to what it is for, as whole processes.

    python -m benchmarks.startup [--repeats 5] [FILE]

`train` is timed until its first update is in metrics.jsonl, and until it has ended: cold, with an
empty cache, so that the text is encoded first; and warm, with the text prepared. The others until
they have ended. Files are in the page cache: each command has run once before.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

QUICK = (
    ("--help",),
    ("train", "--help"),
    ("schedule", "--updates", "2000", "--lr", "1e-3"),
    ("runs",),
)
TRAINING = (
    "--updates", "3", "--size", "tiny", "--set", "execution.precision=float32",
    "--set", "execution.micro_batch=4", "--set", "train.tokens_per_update=1024",
    "--set", "evaluate.sample_tokens=0",
)  # fmt: skip


def main() -> None:
    """Time everything in turns, and print medians with ranges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", nargs="?", type=Path, help="a file; none: the standard library's")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in track(range(asked.repeats + 1)):
            found = {f"hairpin {' '.join(words)}": _seconds(words, folder) for words in QUICK}
            cache = folder / f"cache-{number}"
            texts = [str(asked.text.absolute())] if asked.text else []
            for kind in ("cold", "warm"):
                first, last = _train(texts, folder, f"{kind}-{number}", cache)
                found[f"train, {kind}, first update"] = first
                found[f"train, {kind}, end"] = last
            if number:  # the first time reads files from the disk
                for key, seconds in found.items():
                    times.setdefault(key, []).append(seconds)
    print("| | seconds, median (least–most) |\n| --- | --- |")
    for key, taken in times.items():
        print(f"| {key} | {statistics.median(taken):.2f} ({min(taken):.2f}–{max(taken):.2f}) |")


def _seconds(words: Sequence[str], folder: Path) -> float:
    """How long a command takes."""
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-P", "-m", "hairpin", *words], cwd=folder, check=words != ("runs",),
        capture_output=True, env=_environ(folder),
    )  # fmt: skip
    return time.perf_counter() - begin


def _train(texts: Sequence[str], folder: Path, name: str, cache: Path) -> tuple[float, float]:
    """From the command to the first update in its record, and to its end."""
    out = folder / name
    begin, first = time.perf_counter(), None
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "hairpin", "train", *texts, "--out", out, *TRAINING],
        cwd=folder, env=_environ(cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while process.poll() is None:
            if first is None and _has_update(out / "metrics.jsonl"):
                first = time.perf_counter() - begin
            time.sleep(0.01)
    last = time.perf_counter() - begin
    if process.returncode or first is None:
        raise SystemExit(f"training failed: {process.args!r}")
    return first, last


def _has_update(record: Path) -> bool:
    return record.exists() and b'"event": "update"' in record.read_bytes()


def _environ(cache: Path) -> dict[str, str]:
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)
    return {**os.environ, "HAIRPIN_CACHE": str(cache), "PYTHONPATH": path}


if __name__ == "__main__":
    main()

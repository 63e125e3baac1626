"""Tokens a second of a training run while other processes compute on the same machine.

    python -m benchmarks.shared_machine [--size tiny] [--precision bfloat16] [--turns 5]
                                        [--ways hairpin,passive,one-thread,torch]

Each way of waiting is one training process, and every turn measures all of them: alone, beside one
busy process, alone again, beside two. A busy process is a Python loop that never sleeps. The speed
is the median of the record's updates in each phase; the table has medians of turns. Run it while
nothing else computes.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.progress import track

# The variables that a user could set for each way; `hairpin` is what it does by itself.
WAYS = {
    "hairpin": {},
    "torch": {"GOMP_SPINCOUNT": "300000"},  # what the OpenMP library does unless it is told
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one-thread": {"OMP_NUM_THREADS": "1"},
}
_PHASES = (0, 1, 0, 2)  # busy processes
_START_SECONDS = 180.0
_SETTLING_SECONDS = 4.0  # until others are noticed, or their end is
_SETTLING_UPDATES = 2  # that began before the phase, or in which the others started


def main() -> None:
    """Measure all ways in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each phase")
    parser.add_argument("--ways", default=",".join(WAYS), help="some of them, or VARIABLE=value")
    asked = parser.parse_args()
    speeds: dict[tuple[str, int], list[float]] = {}
    ways = asked.ways.split(",")
    with tempfile.TemporaryDirectory() as name:
        for turn in track(range(asked.turns), "turns"):
            for way in ways:
                out = Path(name) / f"{turn}-{ways.index(way)}"
                command = _command(asked.size, asked.precision, out)
                for busy, found in _measure(command, _environ(way), out, asked.seconds):
                    speeds.setdefault((way, busy), []).append(found)
                    print(f"turn {turn + 1}, {way}, {busy} busy: {found:,.0f} tokens/s", flush=True)
    _print(ways, speeds)


def _environ(way: str) -> dict[str, str]:
    """Return this process's environment with the variables of a way, and no other of OpenMP's."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OMP_", "GOMP_", "KMP_"))
    }
    named = dict(pair.split("=", 1) for pair in way.split("+")) if "=" in way else WAYS[way]
    return own | named


def _command(size: str, precision: str, out: Path) -> list[str]:
    return [
        sys.executable, "-P", "-m", "hairpin", "train", "--corpus", "stdlib", "--size", size,
        "--updates", "1000000", "--precision", precision, "--out", str(out),
        "--set", "tokenizer.vocabulary=2048", "--set", "execution.compile=off",
        "--set", "execution.micro_batch=16", "--set", "evaluate.sample_tokens=0",
        "--set", "execution.threads=all",
    ]  # fmt: skip


def _measure(
    command: Sequence[str], environ: dict[str, str], out: Path, seconds: float
) -> Iterator[tuple[int, float]]:
    """Train, and give the number of busy processes and tokens a second of each phase."""
    record = out / "metrics.jsonl"
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + _START_SECONDS
            while len(_speeds(record)) < 2 * _SETTLING_UPDATES:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{' '.join(command)}: it did not begin to train")
                time.sleep(0.2)
            for busy in _PHASES:
                with _busy(busy):
                    time.sleep(_SETTLING_SECONDS)
                    before = len(_speeds(record))
                    time.sleep(seconds)
                    found = _speeds(record)[before + _SETTLING_UPDATES :]
                yield busy, statistics.median(found) if found else 0.0
        finally:
            process.kill()


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """Let so many other processes compute."""
    loop = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(loop) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def _speeds(record: Path) -> list[float]:
    """Return the tokens a second of each update so far."""
    try:
        lines = record.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    found = [json.loads(line) for line in lines]
    return [event["tokens_per_second"] for event in found if event["event"] == "update"]


def _print(ways: Sequence[str], speeds: dict[tuple[str, int], list[float]]) -> None:
    idle = statistics.median(speeds[ways[0], 0])
    print(f"{os.cpu_count()} CPUs; tokens/s, median of turns (least–most), share of {idle:,.0f}\n")
    print("| way of waiting | alone | beside one busy process | beside two |")
    print("| --- | ---: | ---: | ---: |")
    for way in ways:
        cells = []
        for busy in (0, 1, 2):
            found = speeds[way, busy]
            middle = statistics.median(found)
            cells.append(
                f"{middle:,.0f} ({min(found):,.0f}–{max(found):,.0f}), {middle / idle:.0%}"
            )
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

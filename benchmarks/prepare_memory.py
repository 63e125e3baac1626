"""Peak memory and speed of `prepare` on a large folder and on one large file.

    python -m benchmarks.prepare_memory [--gigabytes 5] [--file-gigabytes 1]

The text is the standard library's source, repeated; it lies in a temporary folder that is deleted
afterwards. Each preparation runs in a process of its own. Exit code 1 when one of them takes
500 MB or more.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from hairpin.config.data import Data, Tokenizer
from hairpin.data.corpus import open_corpus

LIMIT_MEGABYTES = 500
FOLDER_FILE_BYTES = 10_000_000


def peak_megabytes() -> float:
    """The most memory that this process ever held, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def prepare_here(text: Path) -> None:
    """Prepare one text in this process: lines of progress, then a line with the result."""
    from hairpin.data.shards import prepare

    start_time = last_time = time.monotonic()

    def on_progress(stage: str, done_bytes: int, total_bytes: int) -> None:
        nonlocal last_time
        if time.monotonic() - last_time > 0.5:
            last_time = time.monotonic()
            print(json.dumps([stage, done_bytes, total_bytes]), flush=True)

    prepared = prepare(Data(texts=(str(text),)), Tokenizer(), on_progress=on_progress)
    result = {
        "bytes": prepared.survey.bytes,
        "tokens": len(prepared.train) + len(prepared.val),
        "vocabulary": prepared.tokenizer.vocabulary,
        "seconds": time.monotonic() - start_time,
        "peak_megabytes": peak_megabytes(),
    }
    print(json.dumps(result), flush=True)


def measure(text: Path, cache: Path, bars: Progress) -> dict[str, float]:
    """Run `prepare_here` in a fresh process and show how far it is."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.prepare_memory", "--prepare", str(text)],
        env={**os.environ, "HAIRPIN_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    result: dict[str, float] = {}
    tasks = {}
    for line in process.stdout:
        report = json.loads(line)
        if isinstance(report, dict):
            result = report
            continue
        stage, done_bytes, total_bytes = report
        if stage not in tasks:
            tasks[stage] = bars.add_task(f"{text.name}: {stage}")
        bars.update(tasks[stage], completed=done_bytes, total=total_bytes)
    if process.wait() or not result:
        raise SystemExit(f"preparing {text} failed with exit code {process.returncode}")
    for task in tasks.values():
        bars.remove_task(task)
    return result


def write_text(path: Path, size_bytes: int, source: bytes) -> None:
    """Write `source` again and again until the file has `size_bytes` bytes."""
    with path.open("wb") as file:
        while (left := size_bytes - file.tell()) > 0:
            file.write(source[:left])


def make_texts(root: Path, folder_bytes: int, file_bytes: int) -> list[Path]:
    """A folder of 10 MB files and one large file, below `root`."""
    documents = open_corpus(Data(corpus="stdlib")).documents()
    source = "".join(piece for document in documents for piece in document.pieces())
    content = source.encode("ascii", errors="replace")
    folder, file = root / "folder", root / "file.txt"
    folder.mkdir()
    for number in range(max(folder_bytes // FOLDER_FILE_BYTES, 1)):
        # Each file begins elsewhere: no two documents are the same.
        turned = content[number * 997 :] + content[: number * 997]
        write_text(folder / f"{number:05d}.txt", min(FOLDER_FILE_BYTES, folder_bytes), turned)
    write_text(file, file_bytes, content)
    return [folder, file]


def main() -> int:
    """Measure both texts and print the table; 1 when one of them takes too much memory."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--gigabytes", type=float, default=5.0, help="size of the folder (5)")
    parser.add_argument("--file-gigabytes", type=float, default=1.0, help="size of the file (1)")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.prepare:
        prepare_here(asked.prepare)
        return 0
    table = Table("text", "GB", "MB/s", "vocabulary", "bytes/token", "peak MB", "limit MB")
    most_megabytes = 0.0
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with (
        tempfile.TemporaryDirectory(prefix="hairpin-bench-") as root,
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars,
    ):
        sizes = int(asked.gigabytes * 1e9), int(asked.file_gigabytes * 1e9)
        for text in make_texts(Path(root), *sizes):
            result = measure(text, Path(root, "cache"), bars)
            most_megabytes = max(most_megabytes, result["peak_megabytes"])
            table.add_row(
                text.name,
                f"{result['bytes'] / 1e9:.2f}",
                f"{result['bytes'] / 1e6 / result['seconds']:.1f}",
                f"{result['vocabulary']:,}",
                f"{result['bytes'] / result['tokens']:.2f}",
                f"{result['peak_megabytes']:.0f}",
                f"{LIMIT_MEGABYTES}",
            )
    Console().print(table)
    return int(most_megabytes >= LIMIT_MEGABYTES)


if __name__ == "__main__":
    sys.exit(main())

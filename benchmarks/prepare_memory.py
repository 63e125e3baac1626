"""Peak memory and speed of `prepare` on a large folder and on one large file.

    python -m benchmarks.prepare_memory [--gigabytes 5] [--file-gigabytes 1]
    python -m benchmarks.prepare_memory --format jsonl.gz [--file-gigabytes 1]

With a format one table of documents of 4 kB is prepared in place of both: jsonl, json, csv, tsv,
each also with .gz or .zst, or parquet (which needs pyarrow). `--only-read` stops after the survey.

The text is the standard library's source, repeated; it lies in a temporary folder that is deleted
afterwards. Each preparation runs in a process of its own. Exit code 1 when one of them takes
500 MB or more.
"""

import argparse
import csv
import gzip
import io
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from hairpin.config.settings import Data, Tokenizer
from hairpin.data.corpus import open_corpus

LIMIT_MEGABYTES = 500
FOLDER_FILE_BYTES = 10_000_000
DOCUMENT_BYTES = 4_000


def peak_megabytes() -> float:
    """The most memory that this process ever held, in MB (10^6 bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says there is at least what the parent had at the start
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def prepare_here(text: Path, *, only_read: bool) -> None:
    """Prepare one text in this process: lines of progress, then a line with the result."""
    from hairpin.data.shards import prepare
    from hairpin.data.split import survey

    start_time = last_time = time.monotonic()

    def on_progress(stage: str, done_bytes: int, total_bytes: int) -> None:
        nonlocal last_time
        if time.monotonic() - last_time > 0.5:
            last_time = time.monotonic()
            print(json.dumps([stage, done_bytes, total_bytes]), flush=True)

    data = Data(texts=(str(text),))
    result: dict[str, float] = {}
    if only_read:
        result["bytes"] = survey(open_corpus(data), on_progress=on_progress).bytes
    else:
        prepared = prepare(data, Tokenizer(), on_progress=on_progress)
        result["bytes"] = prepared.survey.bytes
        result["tokens"] = len(prepared.train) + len(prepared.val)
        result["vocabulary"] = prepared.tokenizer.vocabulary
    result["seconds"] = time.monotonic() - start_time
    result["peak_megabytes"] = peak_megabytes()
    print(json.dumps(result), flush=True)


def measure(text: Path, cache: Path, bars: Progress, *, only_read: bool) -> dict[str, float]:
    """Run `prepare_here` in a fresh process and show how far it is."""
    more = ["--only-read"] if only_read else []
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.prepare_memory", "--prepare", str(text), *more],
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


def make_table(root: Path, file_bytes: int, kind: str) -> Path:
    """One table of so much text, in documents of 4 kB of which no two are the same."""
    source = stdlib_text().decode()
    length, source = len(source), source + source[:DOCUMENT_BYTES]
    rows: Iterator[dict[str, Any]] = (
        {"id": at, "text": source[at % length : at % length + DOCUMENT_BYTES]}
        for at in range(0, file_bytes, DOCUMENT_BYTES)
    )
    path = root / f"table.{kind}"
    if kind == "parquet":
        write_parquet(path, rows)
        return path
    opened: Any = path.open("wb")
    if kind.endswith(".gz"):
        opened = gzip.GzipFile(path, "wb", compresslevel=1, fileobj=opened)
    elif kind.endswith(".zst"):
        opened = zstandard.ZstdCompressor(level=1).stream_writer(opened)
    with io.TextIOWrapper(opened, encoding="utf-8", newline="") as file:
        if kind.startswith("json"):
            is_list = kind.partition(".")[0] == "json"
            for number, row in enumerate(rows):
                file.write(("[" if number == 0 else ",") if is_list else "")
                file.write(json.dumps(row) + "\n")
            file.write("]" if is_list else "")
        else:
            tab = kind.startswith("tsv")
            writer = csv.writer(file, delimiter="\t" if tab else ",")
            writer.writerow(["id", "text"])
            for row in rows:
                text = row["text"]
                writer.writerow([row["id"], " ".join(text.split()) if tab else text])
    return path


def write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Row groups of 64 MB of text."""
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema({"id": pyarrow.int64(), "text": pyarrow.string()})
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(rows, 16_000)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def stdlib_text() -> bytes:
    """The standard library's source, in ASCII."""
    documents = open_corpus(Data(corpus="stdlib")).documents()
    source = "".join(piece for document in documents for piece in document.pieces())
    return source.encode("ascii", errors="replace")


def make_texts(root: Path, folder_bytes: int, file_bytes: int) -> list[Path]:
    """A folder of 10 MB files and one large file, below `root`."""
    content = stdlib_text()
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
    parser.add_argument("--format", help="one table in place of both: jsonl.gz, parquet, csv, …")
    parser.add_argument("--only-read", action="store_true", help="read it once, and no more")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.prepare:
        prepare_here(asked.prepare, only_read=asked.only_read)
        return 0
    table = Table("text", "GB", "MB/s", "vocabulary", "bytes/token", "peak MB", "limit MB")
    most_megabytes = 0.0
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with (
        tempfile.TemporaryDirectory(prefix="hairpin-bench-") as root,
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars,
    ):
        sizes = int(asked.gigabytes * 1e9), int(asked.file_gigabytes * 1e9)
        texts = (
            [make_table(Path(root), sizes[1], asked.format)]
            if asked.format
            else make_texts(Path(root), *sizes)
        )
        for text in texts:
            result = measure(text, Path(root, "cache"), bars, only_read=asked.only_read)
            most_megabytes = max(most_megabytes, result["peak_megabytes"])
            table.add_row(
                text.name,
                f"{result['bytes'] / 1e9:.2f}",
                f"{result['bytes'] / 1e6 / result['seconds']:.1f}",
                f"{result['vocabulary']:,}" if "tokens" in result else "",
                f"{result['bytes'] / result['tokens']:.2f}" if "tokens" in result else "",
                f"{result['peak_megabytes']:.0f}",
                f"{LIMIT_MEGABYTES}",
            )
    Console().print(table)
    return int(most_megabytes >= LIMIT_MEGABYTES)


if __name__ == "__main__":
    sys.exit(main())

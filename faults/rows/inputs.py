"""Configs, texts and records that somebody else wrote."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import tomli_w

from faults.fuzz import acting, any_value, damaged, packed
from faults.rig import Rig, some_text
from faults.row import Row
from hairpin.config.load import build_config, known_keys, to_toml
from hairpin.config.settings import Data, Tokenizer
from hairpin.data.shards import prepare
from hairpin.data.tables.records import read_rows
from hairpin.errors import HairpinError

_MOST_SECONDS = 30
_LONG_LINE_BYTES = 50_000_000
_KEYS = tuple(known_keys())
_SENSIBLE = {
    "train.updates": 10,
    "schedule.peak_lr": 0.001,
    "model.size": "nano",
    "clip.kind": "off",
}
_TEXT_SUFFIXES = (".txt", ".txt.gz", ".txt.zst", ".md", ".jsonl", "")
_RECORD_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")


def configs(rig: Rig) -> Row:
    """Settings that nobody would write, as a file and with --set."""
    del rig
    return Row(
        "configs", 5_000, lambda _, rng, folder: _config(rng, folder), "valid, or typed lines"
    )


def texts(rig: Rig) -> Row:
    """Text files of all kinds of bytes."""
    del rig
    return Row("texts", 300, _text, "prepared, or a typed line that names the file")


def records(rig: Rig) -> Row:
    """CSV, TSV, JSON and JSONL of all kinds of bytes."""
    del rig
    return Row(
        "records",
        2_000,
        lambda _, rng, folder: _records(rng, folder),
        "read, or typed lines that name the file",
    )


def _config(rng: Random, folder: Path) -> list[str]:
    folder.mkdir()
    file = folder / "config.toml"
    tree: dict[str, Any] = {}
    for _ in range(rng.randrange(1, 6)):
        key = rng.choice(_KEYS) if rng.random() < 0.9 else f"x{rng.randrange(9)}.y"
        table, _, name = key.rpartition(".")
        sensible = rng.random() < 0.2 and key in _SENSIBLE
        value = _SENSIBLE[key] if sensible else any_value(rng)
        if table:
            tree.setdefault(table, {})[name] = value
        else:
            tree[name] = value
    content = tomli_w.dumps(tree).encode(errors="surrogatepass")
    file.write_bytes(damaged(content, rng) if rng.random() < 0.2 else content)
    key = rng.choice(_KEYS)
    overrides = [f"{key}={any_value(rng)}"] if rng.random() < 0.5 else []

    def build() -> None:
        config = build_config(file=file, overrides=overrides)
        file.write_text(to_toml(config), encoding="utf-8")
        if build_config(file=file) != config:
            raise AssertionError("the config that was written is read as another")

    problems = _typed(build)
    if [path.name for path in folder.iterdir()] != [file.name]:
        problems.append("a file was made")
    return problems


def _text(number: int, rng: Random, folder: Path) -> list[str]:
    folder.mkdir()
    suffix = _TEXT_SUFFIXES[number % len(_TEXT_SUFFIXES)]
    path = folder / f"text{suffix}"
    if number % 100 == 99:
        content = (b"word " * (_LONG_LINE_BYTES // 5))[:_LONG_LINE_BYTES]
    else:
        content = damaged(some_text(rng.randrange(1, 4_000)).encode(), rng)
    path.write_bytes(packed(content, suffix, rng))
    tokenizer = Tokenizer(kind="bytes")
    data = Data(texts=(str(path),))
    return _typed(lambda: prepare(data, tokenizer, cache=folder / "cache"), path)


def _records(rng: Random, folder: Path) -> list[str]:
    folder.mkdir()
    suffix = rng.choice(_RECORD_SUFFIXES)
    path = folder / f"records{suffix}"
    rows: list[Any] = [
        {"text": f"text {n}", "label": rng.choice(["a", "b"])} for n in range(rng.randrange(20))
    ]
    for _ in range(rng.randrange(3)):
        if rows:
            rows[rng.randrange(len(rows))] = any_value(rng)
    if suffix == ".json":
        text = json.dumps(rows, ensure_ascii=False)
    elif suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        comma = "," if suffix == ".csv" else "\t"
        text = f"text{comma}label\n" + "".join(
            comma.join(map(str, row.values() if isinstance(row, dict) else [row])) + "\n"
            for row in rows
        )
    path.write_bytes(damaged(text.encode(errors="surrogatepass"), rng))
    return _typed(lambda: read_rows(path, ["text", "label"]), path)


def _typed(work: Callable[[], object], path: Path | None = None) -> list[str]:
    """What is wrong with how the work fails; nothing, if it does not or says so in plain lines.

    Args:
        work: what to try.
        path: a file that each line must name.
    """
    try:
        with _limited():
            work()
    except HairpinError as error:
        problems = [
            f"a line acts on a terminal: {line!r}" for line in error.problems if acting(line)
        ]
        problems += [
            f"does not name the file: {line!r}"
            for line in error.problems
            if path is not None and path.name.removesuffix(".gz").removesuffix(".zst") not in line
        ]
        return problems
    except Exception as error:
        return [f"{type(error).__name__}: {str(error)[:200]}"]
    return []


@contextmanager
def _limited() -> Iterator[None]:
    """Raise TimeoutError where it takes too long."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"still at it after {_MOST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_MOST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

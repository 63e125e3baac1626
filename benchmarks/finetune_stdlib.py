"""What fine-tuning reaches on real text that every machine has: the Python standard library.

    classify   which package a piece of source is from: asyncio, ctypes, email, …
    instruct   say in a line what a function does: its own docstring is the response

    python -m benchmarks.finetune_stdlib --from runs/stdlib-1 --out runs/finetuned

The pieces are those of the standard library of the Python that runs this; comments and docstrings
are in them for `classify`, and cut from the function for `instruct`.
"""

import argparse
import ast
import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path

import hairpin
from hairpin.data.embedded import source_text, standard_library

_PACKAGES = (
    "asyncio",
    "ctypes",
    "email",
    "idlelib",
    "multiprocessing",
    "tkinter",
    "unittest",
    "xml",
)
_LINES = 8
_PIECES_EACH = 400
_FUNCTIONS = 3000
_LONGEST_RESPONSE = 80


def main() -> None:
    """Make both files, fine-tune on them, print what came out as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--from", dest="start", type=Path, required=True, help="a run")
    parser.add_argument("--out", type=Path, required=True, help="a folder for data and runs")
    parser.add_argument("--epochs", type=float, default=3.0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    pieces, tasks = arguments.out / "pieces.csv", arguments.out / "functions.jsonl"
    write_pieces(pieces)
    write_functions(tasks)
    settings = {"finetune.too_long": "keep-start", "train.epochs": arguments.epochs}
    trials = [
        ("classify", pieces, "all", {}),
        ("classify", pieces, "last-block", {"finetune.layers": 1}),
        ("classify", pieces, "head", {"finetune.layers": 0}),
        ("instruct", tasks, "all", {}),
    ]
    for kind, data, name, changes in trials:
        run = hairpin.finetune(
            kind,
            data,
            start=arguments.start,
            out=arguments.out / f"{kind}-{name}",
            settings=settings | changes,
            watcher=hairpin.Quiet(),
        )
        evaluations = [event for event in run.record() if event["event"] == "evaluation"]
        keys = ("update", "train_loss", "val_loss", "train_accuracy", "val_accuracy")
        shown = {
            name: {key: round(event[key], 4) for key in keys if key in event}
            for name, event in (("first", evaluations[0]), ("last", evaluations[-1]))
        }
        best = run.summary().best
        row = {
            "kind": kind,
            "trains": name,
            **shown,
            "best_update": best.update if best else None,
            "seconds": run.summary().seconds,
        }
        print(json.dumps(row), flush=True)


def write_pieces(path: Path) -> None:
    """Equally many pieces of some lines from each package."""
    draw = random.Random(0)
    found: dict[str, list[str]] = {name: [] for name in _PACKAGES}
    for name, file in standard_library():
        package, _, rest = name.partition("/")
        text = source_text(file) if rest and package in found else None
        lines = [line for line in (text or "").splitlines() if line.strip()]
        for first in range(0, len(lines) - _LINES + 1, _LINES):
            found[package].append("\n".join(lines[first : first + _LINES]))
    with path.open("w", encoding="utf-8", newline="") as file_out:
        writer = csv.writer(file_out)
        writer.writerow(["text", "label"])
        for package, pieces in found.items():
            for piece in draw.sample(pieces, min(_PIECES_EACH, len(pieces))):
                writer.writerow([piece, package])


def write_functions(path: Path) -> None:
    """Functions without their docstring, and its first line."""
    found = [pair for _, file in standard_library() for pair in _functions(source_text(file) or "")]
    chosen = random.Random(0).sample(found, min(_FUNCTIONS, len(found)))
    with path.open("w", encoding="utf-8") as file_out:
        for source, summary in chosen:
            record = {
                "instruction": "Say in a line what this function does.",
                "input": source,
                "response": summary,
            }
            file_out.write(json.dumps(record) + "\n")


def _functions(text: str) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (docstring := ast.get_docstring(node)):
            summary = docstring.split("\n")[0].strip()
            body = node.body[1:]
            if body and 10 <= len(summary) <= _LONGEST_RESPONSE:
                node.body = body
                yield ast.unparse(node), summary


if __name__ == "__main__":
    main()

"""Measure how much code a reader goes through from `hairpin train book.txt` to the first update.

    python -m benchmarks.walk [--code src] [--list] [-- train book.txt --size tiny --updates 4]

The command runs in a process of its own under `sys.setprofile`, with an empty cache, from the call
of the command line's main to the first return of `--until`; then it is interrupted. Counted are the
files of which a function is executed, and the functions, lambdas and generator expressions among
them. Functions of the same name in one file count once, so all lambdas of a file are one. The body
of a module or a class is not a function.

`--code` is the folder that has hairpin in it, so that two versions can be compared.
"""

import argparse
import ast
import importlib
import inspect
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from pydoc_data.topics import topics
from types import CodeType, FrameType

ROOT = Path(__file__).parents[1]
COMMAND = ("train", "book.txt", "--size", "tiny", "--updates", "4")
LETTERS = 20_000  # of the book, a short story's length
UNTIL = "Job.step"


@dataclass(frozen=True)
class Size:
    """The extent of a package.

    Args:
        entries: files of Python and folders at its top.
        files: files of Python.
        lines: lines in them.
        arrows: pairs of modules of which one imports the other, in functions too.
    """

    entries: int
    files: int
    lines: int
    arrows: int


def main() -> None:
    """Measure, and print the numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--code", type=Path, default=ROOT / "src", help="the folder of hairpin")
    parser.add_argument("--until", default=UNTIL, help="qualified name of the last function")
    parser.add_argument("--list", action="store_true", help="list the files with their functions")
    parser.add_argument("--text", type=Path, help="the text of book.txt; none: Python's manual")
    parser.add_argument("command", nargs="*", default=list(COMMAND))
    asked = parser.parse_args()
    size = size_of(asked.code / "hairpin")
    text = asked.text.read_text(encoding="utf-8") if asked.text else _book()
    walked = walk(asked.code, asked.command, asked.until, text)
    print(f"{size.entries} entries at the top, {size.files} files, {size.lines:,} lines, "
          f"{size.arrows:,} arrows")  # fmt: skip
    functions = sum(map(len, walked.values()))
    print(f"hairpin {' '.join(asked.command)}: {len(walked)} files, {functions} functions")
    if asked.list:
        print(*(f"{file}: {', '.join(names)}" for file, names in walked.items()), sep="\n")


def size_of(package: Path) -> Size:
    """Measure a package's source."""
    paths = sorted(package.rglob("*.py"))
    sources = {_module(path, package): path.read_text(encoding="utf-8") for path in paths}
    arrows = {
        (module, name)
        for module, source in sources.items()
        for name in _imported(ast.parse(source), sources)
        if name != module
    }
    top = [path for path in package.iterdir() if path.is_dir() or path.suffix == ".py"]
    entries = [path for path in top if path.name != "__pycache__"]
    lines = sum(len(source.splitlines()) for source in sources.values())
    return Size(len(entries), len(paths), lines, len(arrows))


def _module(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.Module, modules: dict[str, str]) -> Iterator[str]:
    """Yield the modules of the package that a module imports anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            longer = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in longer)


def walk(code: Path, command: Sequence[str], until: str, text: str) -> dict[str, list[str]]:
    """Run a command of hairpin; return the functions executed in each file, in order.

    Args:
        code: the folder that has hairpin in it.
        command: its arguments.
        until: the qualified name of the function at whose first return counting ends.
        text: contents of the file book.txt, where the command runs.

    Raises:
        RuntimeError: the command failed, or that function did not return.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "book.txt").write_text(text, encoding="utf-8")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_executed, code.absolute(), list(command), until, folder).result()


def _executed(code: Path, command: list[str], until: str, folder: str) -> dict[str, list[str]]:
    """Run the command in this process."""
    os.environ["HAIRPIN_CACHE"] = str(Path(folder, "cache"))
    os.chdir(folder)
    sys.path.insert(0, str(code))
    run = importlib.import_module("hairpin.cli.main").main
    counter = Counter(code / "hairpin", until)
    log = Path(folder, "log")
    with log.open("w", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        threading.setprofile(counter.note)
        sys.setprofile(counter.note)
        with suppress(SystemExit, KeyboardInterrupt):
            run(command)
        sys.setprofile(None)
        threading.setprofile(None)
    if not counter.is_done:
        raise RuntimeError(f"{until} did not return: {log.read_text(encoding='utf-8')[-2000:]}")
    return counter.functions()


class Counter:
    """Collect the functions of a package that are executed, until one of them returns.

    Args:
        package: its folder.
        until: the qualified name of the last function.
    """

    def __init__(self, package: Path, until: str) -> None:
        self.is_done = False
        self._package = package
        self._prefix = f"{package}{os.sep}"
        self._until = until
        self._codes: dict[CodeType, None] = {}

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        """Note a call, for `sys.setprofile`; interrupt the process at the end."""
        code = frame.f_code
        if self.is_done or not code.co_filename.startswith(self._prefix):
            return
        if event == "call":
            self._codes.setdefault(code)
        elif event == "return" and code.co_qualname == self._until:
            self.is_done = True
            signal.raise_signal(signal.SIGINT)

    def functions(self) -> dict[str, list[str]]:
        """Return the names of what was called, by file."""
        found: dict[str, dict[str, None]] = {}
        for code in self._codes:
            if code.co_flags & inspect.CO_OPTIMIZED:  # not the body of a module or class
                file = Path(code.co_filename).relative_to(self._package).as_posix()
                found.setdefault(file, {}).setdefault(code.co_name)
        return {file: list(names) for file, names in found.items()}


def _book() -> str:
    """Return the beginning of Python's manual, which every machine has."""
    return "\n\n".join(str(topics[name]) for name in sorted(topics))[:LETTERS]


if __name__ == "__main__":
    main()

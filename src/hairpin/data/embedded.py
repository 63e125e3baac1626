"""Named corpora: two that every machine has, and the story of the book."""

import hashlib
import http.client
import importlib
import os
import sysconfig
import tokenize
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from hairpin.errors import CorpusError
from hairpin.system.files import cache_folder, shown, write_atomically

VERDICT_ADDRESS = (
    "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/"
    "main/ch02/01_main-chapter-code/the-verdict.txt"
)
VERDICT_SHA256 = "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f"
_LEFT_OUT = frozenset(
    ("test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages", "__pycache__")
)


def standard_library() -> list[tuple[str, Path]]:
    """Return (relative path, path) of the standard library's Python files, sorted, no tests."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in _LEFT_OUT]
        for name in files:
            if name.endswith(".py"):
                path = Path(folder, name)
                found.append((path.relative_to(root).as_posix(), path))
    return sorted(found)


def source_text(path: Path) -> str | None:
    """Return a Python file's text in the encoding that it declares; None if it cannot be read."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError, OSError):
        return None


def python_docs() -> Iterator[tuple[str, str]]:
    """Yield (name, text) of Python's help topics, sorted by name.

    Raises:
        CorpusError: this Python has no help topics.
    """
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise CorpusError(
            "python-docs: this Python has no help topics (pydoc_data); name a text file, or use "
            "--corpus stdlib"
        ) from error
    yield from sorted(topics.items())


def verdict() -> Path:
    """Return the path of The Verdict (Wharton 1908) in the cache, downloading it if missing.

    Raises:
        CorpusError: there is no network, or the download is a different text.
    """
    path = cache_folder() / "texts" / "the-verdict.txt"
    if _sha256(path) == VERDICT_SHA256:
        return path
    instead = f"put the file at {shown(path)}, or name a text file of your own"
    try:
        with urllib.request.urlopen(VERDICT_ADDRESS, timeout=20) as answer:
            content: bytes = answer.read(1_000_000)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise CorpusError(
            f"verdict: cannot download {VERDICT_ADDRESS} ({' '.join(str(reason).split())}); "
            f"{instead}"
        ) from error
    if hashlib.sha256(content).hexdigest() != VERDICT_SHA256:
        raise CorpusError(
            f"verdict: the download from {VERDICT_ADDRESS} is not the story (its SHA-256 differs); "
            f"{instead}"
        )
    try:
        write_atomically(path, content)
    except OSError as error:
        raise CorpusError(
            f"verdict: cannot write {shown(path)} ({error.strerror}); "
            "set HAIRPIN_CACHE to a writable folder with free space"
        ) from error
    return path


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None

"""Bytes and lines that text seldom should have: their kind, count, and first occurrence."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

ODD = {
    "null": ("null bytes", "the file is not text, or was cut by a crash; leave it out"),
    "control": (
        "control characters",
        "escape codes of a terminal or of another format; strip them",
    ),
    "replacement": (
        "U+FFFD characters",
        "text was decoded with the wrong encoding earlier; get the original",
    ),
    "bom": ("byte order marks inside the text", "files were joined with their marks; remove them"),
    "mixed_ends": (
        "files that mix CRLF and LF line ends",
        "the model learns both; make them the same, for instance with dos2unix",
    ),
    "encoding": (
        "files with bytes that are not UTF-8",
        "they are replaced by U+FFFD; save the files as UTF-8",
    ),
}
_CONTROL = re.compile("[\x01-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_SIMPLE = {
    "null": re.compile("\x00"),
    "control": _CONTROL,
    "bom": re.compile("\ufeff"),
}


@dataclass(frozen=True)
class Oddity:
    """One kind of odd content.

    Args:
        kind: a key of `ODD`.
        count: number of occurrences.
        file, line: of the first; the line counts from 1.
    """

    kind: str
    count: int
    file: str
    line: int


class OddityFinder:
    """Search documents for odd content, piece by piece."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, tuple[str, int]] = {}
        self._name = ""
        self._line = 1
        self._ends_in_return = False
        self._crlf = self._lf = self._replacements = self._first_replacement = 0

    def open(self, name: str) -> None:
        """Begin a document."""
        self._name, self._line, self._ends_in_return = name, 1, False
        self._crlf = self._lf = self._replacements = self._first_replacement = 0

    def add(self, text: str) -> None:
        """Add the document's next piece."""
        for kind, pattern in _SIMPLE.items():
            if found := pattern.search(text):
                line = self._line + text.count("\n", 0, found.start())
                self._note(kind, sum(1 for _ in pattern.finditer(text)), line)
        if replacements := text.count("\ufffd"):
            line = self._line + text.count("\n", 0, text.index("\ufffd"))
            self._first_replacement = self._first_replacement or line
            self._replacements += replacements
        newlines = text.count("\n")
        crlf = text.count("\r\n") + (self._ends_in_return and text.startswith("\n"))
        self._crlf += crlf
        self._lf += newlines - crlf
        self._line += newlines
        self._ends_in_return = text.endswith("\r")

    def close(self, replaced: int = 0) -> None:
        """End the document.

        Args:
            replaced: number of its bytes that were not UTF-8 and reached `add` as U+FFFD.
        """
        if self._crlf and self._lf:
            self._note("mixed_ends", 1, 1)
        if replaced:
            self._note("encoding", 1, self._first_replacement or 1)
        if self._replacements > replaced:  # some are the text's own
            self._note("replacement", self._replacements - replaced, self._first_replacement)

    def found(self) -> Iterator[Oddity]:
        """Yield the findings, in the order of `ODD`."""
        for kind in ODD:
            if count := self._counts[kind]:
                yield Oddity(kind, count, *self._first[kind])

    def _note(self, kind: str, count: int, line: int) -> None:
        self._first.setdefault(kind, (self._name, line))
        self._counts[kind] += count

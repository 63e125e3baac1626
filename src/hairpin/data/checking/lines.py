"""Lines that are repeated: their counts in the text, and the number of documents with them.

Lines are counted by hash; when there are too many different ones, those seen once are dropped and
may be counted again later (lossy counting, Manku and Motwani 2002): frequent lines stay.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

MIN_CHARACTERS = 20  # shorter lines repeat in any text
_MAX_KINDS = 1_000_000
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class RepeatedLine:
    """A line, shortened for display, its count in the text, and in how many documents it occurs."""

    text: str
    count: int
    documents: int
    bytes: int


class LineCounter:
    """Count lines of documents that come in pieces."""

    def __init__(self, most_kinds: int = _MAX_KINDS) -> None:
        self._most_kinds = most_kinds
        self._counts: Counter[int] = Counter()
        self._documents: Counter[int] = Counter()
        self._texts: dict[int, tuple[str, int]] = {}
        self._seen: set[int] = set()
        self._rest = ""
        self.lines = 0

    def add(self, text: str) -> None:
        """Add the document's next piece."""
        *lines, self._rest = (self._rest + text).split("\n")
        self._count(lines)
        if len(self._rest) > 1 << 20:  # an endless line
            self._rest = self._rest[-1:]

    def close(self) -> None:
        """End the document."""
        self._count([self._rest])
        self._rest = ""
        self._documents.update(self._seen)
        self._seen = set()

    def _count(self, lines: list[str]) -> None:
        self.lines += len(lines)
        for whole in lines:
            line = whole.strip()
            if len(line) < MIN_CHARACTERS:
                continue
            key = hash(line)
            self._counts[key] += 1
            self._seen.add(key)
            if self._counts[key] == 2:  # most lines occur once and need not be kept
                self._texts.setdefault(key, (line[:_SHOWN_CHARACTERS], len(line.encode())))
        if len(self._counts) > self._most_kinds:
            self._drop_rare()

    def _drop_rare(self) -> None:
        self._counts = Counter({key: n for key, n in self._counts.items() if n > 1})
        if len(self._counts) > self._most_kinds // 2:
            kept = dict(self._counts.most_common(self._most_kinds // 2))
            self._counts = Counter(kept)
        for table in (self._documents, self._texts):
            for key in [key for key in table if key not in self._counts]:
                del table[key]

    def repeated(self) -> Iterator[RepeatedLine]:
        """Yield all lines that occurred more than once, those that take most bytes first."""
        found = [
            RepeatedLine(text, self._counts[key], self._documents[key], size)
            for key, (text, size) in self._texts.items()
            if self._counts[key] > 1
        ]
        yield from sorted(found, key=lambda line: (-line.count * line.bytes, line.text))

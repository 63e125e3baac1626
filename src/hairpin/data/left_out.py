"""What was left out of a text, and the lines that say so."""

from collections.abc import Iterator
from dataclasses import dataclass

from hairpin.data.recognising import Kind

_MOST_NAMES = 3


@dataclass
class _Entry:
    """So many of a kind, and the names of the first of them."""

    count: int
    names: list[str]


class LeftOut:
    """Files and folders that are not part of a text, counted by kind."""

    def __init__(self) -> None:
        self._entries: dict[Kind, _Entry] = {}

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, kind: Kind, name: str, count: int = 1) -> None:
        """Count one more of a kind.

        Args:
            kind: what it is.
            name: for messages.
            count: more than one of the same name.
        """
        entry = self._entries.setdefault(kind, _Entry(0, []))
        entry.count += count
        entry.names.append(name)
        del entry.names[_MOST_NAMES:]

    def take(self, other: "LeftOut") -> None:
        """Count what another has counted."""
        for kind, entry in other._entries.items():
            mine = self._entries.setdefault(kind, _Entry(0, []))
            mine.count += entry.count
            mine.names = (mine.names + entry.names)[:_MOST_NAMES]

    @property
    def total(self) -> int:
        """How many files and folders."""
        return sum(entry.count for entry in self._entries.values())

    def counts(self) -> dict[str, int]:
        """The name of each kind, and how many there are."""
        found: dict[str, int] = {}
        for kind, entry in self._entries.items():
            found[kind.name] = found.get(kind.name, 0) + entry.count
        return found

    def lines(self) -> Iterator[str]:
        """A line for each kind whose text can be had, with what to do, and one for the others."""
        others: dict[str, tuple[Kind, int]] = {}
        for kind, entry in self._entries.items():
            if kind.has_text:
                names = ", ".join(entry.names)
                more = entry.count - len(entry.names)
                names += f" and {more:,} more" if more else ""
                yield f"left out: {kind.counted(entry.count)} ({names}): {kind.advice}"
            else:
                _, count = others.get(kind.name, (kind, 0))
                others[kind.name] = (kind, count + entry.count)
        if others:
            by_count = sorted(others.values(), key=lambda other: -other[1])
            counted = (kind.counted(count) for kind, count in by_count)
            yield f"left out: {', '.join(counted)}"

"""Counting files and folders that are left out of a text, and reporting them."""

from collections.abc import Iterator
from dataclasses import dataclass

from hairpin.data.recognising import Kind

_MOST_NAMES = 3


@dataclass
class _Entry:
    """The count of one kind, and the first few names."""

    count: int
    names: list[str]


class LeftOut:
    """Files and folders left out of a text, counted by kind."""

    def __init__(self) -> None:
        self._entries: dict[Kind, _Entry] = {}

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, kind: Kind, name: str) -> None:
        """Count one more.

        Args:
            kind: its kind.
            name: its name, for messages.
        """
        entry = self._entries.setdefault(kind, _Entry(0, []))
        entry.count += 1
        entry.names.append(name)
        del entry.names[_MOST_NAMES:]

    def take(self, other: "LeftOut") -> None:
        """Add another's counts."""
        for kind, entry in other._entries.items():
            mine = self._entries.setdefault(kind, _Entry(0, []))
            mine.count += entry.count
            mine.names = (mine.names + entry.names)[:_MOST_NAMES]

    @property
    def total(self) -> int:
        """The number of files and folders left out."""
        return sum(entry.count for entry in self._entries.values())

    def counts(self) -> dict[str, int]:
        """Return the count of each kind by name."""
        found: dict[str, int] = {}
        for kind, entry in self._entries.items():
            found[kind.name] = found.get(kind.name, 0) + entry.count
        return found

    def lines(self) -> Iterator[str]:
        """Yield a line with advice for each kind that contains text, and one line for the rest."""
        others: dict[str, tuple[Kind, _Entry]] = {}
        for kind, entry in self._entries.items():
            if kind.has_text:
                yield f"left out: {_counted(kind, entry)}: {kind.advice}"
            else:
                _, same = others.setdefault(kind.name, (kind, _Entry(0, [])))
                same.count += entry.count
                same.names += entry.names
        if others:
            by_count = sorted(others.values(), key=lambda other: -other[1].count)
            counted = (
                _counted(kind, entry) if entry.count <= _MOST_NAMES else kind.counted(entry.count)
                for kind, entry in by_count
            )
            yield f"left out: {', '.join(counted)}"


def _counted(kind: Kind, entry: _Entry) -> str:
    names = ", ".join(entry.names[:_MOST_NAMES])
    more = entry.count - _MOST_NAMES
    return f"{kind.counted(entry.count)} ({names}{f' and {more:,} more' if more > 0 else ''})"

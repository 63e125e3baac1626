"""Compact storage of a record's events: its updates in columns, the few others as they are.

A long run has hundreds of thousands of updates. As dicts they take a kilobyte each, and the page is
written while the run trains; as numbers they take a tenth of that.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

Event = dict[str, Any]
_NUMBERS = (float, int, bool)
_EXACT_UP_TO = 2**53  # integers, as a float


class _Large:
    """Type of an integer that is stored as it is, since a float would round it."""


@dataclass(frozen=True)
class _Shape:
    """The keys of an event and the types of their values.

    Args:
        keys, kinds: keys and types of the values, in order.
        words: places of values that are not numbers.
    """

    keys: tuple[str, ...]
    kinds: tuple[type, ...]
    words: tuple[int, ...]

    @staticmethod
    def of(keys: tuple[str, ...], kinds: tuple[type, ...]) -> "_Shape":
        """Return the shape of these values."""
        words = [at for at, kind in enumerate(kinds) if kind not in _NUMBERS]
        return _Shape(keys, kinds, tuple(words))

    def place_of(self, key: str, *, is_number: bool) -> int | None:
        """Return the place of a key's value, if it is of that type."""
        if key not in self.keys:
            return None
        at = self.keys.index(key)
        return at if (at not in self.words) == is_number else None


def _kind(value: Any) -> type:
    is_large = type(value) is int and not -_EXACT_UP_TO <= value <= _EXACT_UP_TO
    return _Large if is_large else type(value)


class Updates(Sequence[Event]):
    """The events of updates, each rebuilt as a dict when it is requested."""

    def __init__(self) -> None:
        self._values = array("d")  # of all events, concatenated
        self._ends = array("q", [0])
        self._shapes = array("l")  # index of each event's shape
        self._known: dict[tuple[Any, ...], int] = {}
        self._all_shapes: list[_Shape] = []
        self._places: dict[Any, int] = {}
        self._words: list[Any] = []  # values that are not numbers, once each

    def append(self, event: Event) -> None:
        """Append an event."""
        kinds = tuple(map(_kind, event.values()))
        known = (kinds, *event)
        number = self._known.get(known)
        if number is None:
            number = self._known[known] = len(self._all_shapes)
            self._all_shapes.append(_Shape.of(tuple(event), kinds))
        values = list(event.values())
        for at in self._all_shapes[number].words:
            values[at] = self._place(values[at])
        self._values.extend(values)
        self._shapes.append(number)
        self._ends.append(len(self._values))

    def cut(self, length: int) -> None:
        """Remove all but the first `length` events."""
        del self._shapes[length:], self._ends[length + 1 :], self._values[self._ends[length] :]

    def column(self, key: str) -> "array[float]":
        """Return the numbers of a key; NaN where an event has none."""
        places = [shape.place_of(key, is_number=True) for shape in self._all_shapes]
        values = self._values
        return array(
            "d",
            (
                math.nan if (at := places[shape]) is None else values[begin + at]
                for shape, begin in zip(self._shapes, self._ends, strict=False)
            ),
        )

    def words(self, key: str) -> Iterator[Any]:
        """Yield the value of a key in each event if it is not a number; else None."""
        places = [shape.place_of(key, is_number=False) for shape in self._all_shapes]
        for shape, begin in zip(self._shapes, self._ends, strict=False):
            at = places[shape]
            yield None if at is None else self._words[int(self._values[begin + at])]

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self._shapes)

    @overload
    def __getitem__(self, at: int) -> Event: ...
    @overload
    def __getitem__(self, at: slice) -> list[Event]: ...
    def __getitem__(self, at: int | slice) -> Event | list[Event]:
        """Return the event at a place."""
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        place = range(len(self))[at]
        shape, begin = self._all_shapes[self._shapes[place]], self._ends[place]
        values = self._values[begin : self._ends[place + 1]]
        return {
            key: kind(value) if kind in _NUMBERS else self._words[int(value)]
            for key, kind, value in zip(shape.keys, shape.kinds, values, strict=True)
        }

    def _place(self, word: Any) -> int:
        key = word if isinstance(word, str) else (type(word), repr(word))
        if key not in self._places:
            self._places[key] = len(self._words)
            self._words.append(word)
        return self._places[key]


class Events(Sequence[Event]):
    """The events of a record, in order.

    Args:
        events: the initial events.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.updates = Updates()
        self._rest: list[Event] = []
        self._before = array("q")  # number of updates before each of the others
        for event in events:
            self.append(event)

    def append(self, event: Event) -> None:
        """Append an event."""
        if event["event"] == "update":
            self.updates.append(event)
        else:
            self._rest.append(event)
            self._before.append(len(self.updates))

    def of_kind(self, *kinds: str) -> Sequence[Event]:
        """Return the events of some kinds; for updates alone, a view."""
        if kinds == ("update",):
            return self.updates
        if "update" in kinds:
            return [event for event in self if event["event"] in kinds]
        return [event for event in self._rest if event["event"] in kinds]

    @property
    def others(self) -> Sequence[Event]:
        """The events that are not updates."""
        return self._rest

    def keep(self, updates: int, others: Sequence[bool]) -> None:
        """Keep the first `updates` updates, and those of the others that are marked true."""
        self.updates.cut(updates)
        kept = [at for at, stays in enumerate(others) if stays]
        self._before = array("q", [min(self._before[at], updates) for at in kept])
        self._rest = [self._rest[at] for at in kept]

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.updates) + len(self._rest)

    def __iter__(self) -> Iterator[Event]:
        """Yield the events in order."""
        done = 0
        for before, event in zip(self._before, self._rest, strict=True):
            yield from (self.updates[at] for at in range(done, before))
            done = before
            yield event
        yield from (self.updates[at] for at in range(done, len(self.updates)))

    @overload
    def __getitem__(self, at: int) -> Event: ...
    @overload
    def __getitem__(self, at: slice) -> list[Event]: ...
    def __getitem__(self, at: int | slice) -> Event | list[Event]:
        """Return the event at a place."""
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        place = range(len(self))[at]
        number = bisect_left(range(len(self._rest)), place, key=lambda n: self._before[n] + n)
        if number < len(self._rest) and self._before[number] + number == place:
            return self._rest[number]
        return self.updates[place - number]


def of_kind(events: Iterable[Event], *kinds: str) -> Sequence[Event]:
    """Return the events of some kinds, in order."""
    if isinstance(events, Events):
        return events.of_kind(*kinds)
    return [event for event in events if event["event"] in kinds]


def others(events: Sequence[Event]) -> Sequence[Event]:
    """Return the events other than updates if these are stored apart, else all."""
    return events.others if isinstance(events, Events) else events


class History(Events):
    """The valid events of a record."""


def history(record: Iterable[dict[str, Any]]) -> History:
    """Return the valid events of the record: those discarded by a later `resume` are left out."""
    if isinstance(record, History):
        return record
    kept = History()
    for event in record:
        if event.get("event") == "resume":
            _remove_from(kept, event["update"])
        kept.append(event)
    return kept


def _remove_from(kept: History, update: int) -> None:
    """Remove what belongs to the updates from this one on."""
    numbers = kept.updates.column("update")
    length = next((at for at, number in enumerate(numbers) if number >= update), len(numbers))
    later = [kept.updates[at] for at in range(length, len(numbers)) if numbers[at] < update]
    kept.keep(length, [_holds(event, update) for event in kept.others])
    for event in later:  # if the record's updates are out of order
        kept.append(event)


def _holds(event: dict[str, Any], resumed_update: int) -> bool:
    if event["event"] == "memorisation":  # made at the end, which is reached again
        return False
    if event["event"] in ("update", "ratios", "skip", "spike"):
        return bool(event["update"] < resumed_update)
    if event["event"] in ("evaluation", "sample", "checkpoint"):
        return bool(event["update"] <= resumed_update)
    return True

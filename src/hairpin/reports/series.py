"""Series of numbers from a record, and their thinning for plots."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hairpin.reports.history import Events, of_kind

# A plot is about this many pixels wide: more than twice as many points are not visible.
COLUMNS = 1000

Floats = NDArray[np.float64]
Event = dict[str, Any]


def series(events: Iterable[Event], name: str, key: str) -> tuple[Floats, Floats]:
    """Return the updates and values of a key; null is NaN."""
    if name == "update" and isinstance(events, Events):
        return np.array(events.updates.column("update")), values_of(events, name, key)
    xs = [event["update"] for event in of_kind(events, name)]
    return np.array(xs, np.float64), values_of(events, name, key)


def values_of(events: Iterable[Event], name: str, key: str) -> Floats:
    """Return the values of a key alone; null is NaN."""
    if name == "update" and isinstance(events, Events):
        return np.array(events.updates.column(key))
    found = [event.get(key) for event in of_kind(events, name)]
    return np.array([math.nan if y is None else float(y) for y in found], np.float64)


def thin(xs: Floats, ys: Floats, columns: int = COLUMNS) -> tuple[Floats, Floats]:
    """Keep at most two points a column, the lowest and the highest, so that no spike is lost.

    A column without a finite value keeps one NaN, so that a gap stays a gap.
    """
    if len(xs) <= 2 * columns:
        return xs, ys
    kept: set[int] = {0, len(xs) - 1}
    for part in np.array_split(np.arange(len(xs)), columns):
        values = ys[part]
        if np.isfinite(values).any():
            kept.update((int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])))
        else:
            kept.add(int(part[0]))
    order = np.array(sorted(kept))
    return xs[order], ys[order]


def highest(xs: Floats, ys: Floats, last: float, columns: int = COLUMNS) -> tuple[Floats, Floats]:
    """Return the highest point of each column from 0 to `last`, or all points if they are few."""
    if len(xs) <= columns:
        return xs, ys
    column = (xs * columns / (last + 1)).astype(np.int64)
    order = np.lexsort((ys, column))
    ends = np.append(np.flatnonzero(np.diff(column[order])), len(order) - 1)
    return xs[order[ends]], ys[order[ends]]


def smoothed(ys: Floats) -> Floats:
    """Return a centred moving mean of the finite values, over 2% of the run or 7 updates.

    At the start the window shrinks, so that the curve begins at the first loss. NaN where the value
    itself is.
    """
    at = np.arange(len(ys))
    half = max(3, len(ys) // 100)
    finite = np.isfinite(ys)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, ys, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    low = at - np.minimum(at, half)
    high = np.minimum(len(ys), at + np.minimum(at, half) + 1)
    means = (sums[high] - sums[low]) / np.maximum(1, counts[high] - counts[low])
    return np.where(finite, means, np.nan)


def source_series(events: Iterable[Event], key: str) -> dict[str, tuple[Floats, Floats]]:
    """Map each source of a mixture to updates and values of its evaluations' key; null is NaN."""
    found = [e for e in of_kind(events, "evaluation") if e.get("sources")]
    names = dict.fromkeys(name for event in found for name in event["sources"])
    xs = np.array([event["update"] for event in found], np.float64)
    values = {name: [event["sources"].get(name, {}).get(key) for event in found] for name in names}
    return {
        name: (xs, np.array([math.nan if y is None else float(y) for y in ys], np.float64))
        for name, ys in values.items()
    }

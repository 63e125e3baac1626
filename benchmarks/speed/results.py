"""What was measured, and what follows from it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

AGREEMENT = 1e-4


@dataclass
class Row:
    """One arm on one workload: an entry for each turn.

    Args:
        start_seconds: from the start of the process to the end of its first update; the first
            entry is with nothing compiled yet.
        failure: why there are fewer entries than turns.
    """

    name: str
    network: str
    precision: str
    is_ours: bool
    is_same_network: bool
    tokens_per_second: list[float] = field(default_factory=list)
    update_seconds: list[float] = field(default_factory=list)
    start_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    failure: str = ""

    def add(self, result: dict[str, Any], tokens_per_update: int) -> None:
        """Take in a process's result; its first update, which warms up, is not among `seconds`."""
        seconds = statistics.median(result["seconds"])
        self.tokens_per_second.append(tokens_per_update / seconds)
        self.update_seconds.append(seconds)
        self.start_seconds.append(result["start_seconds"])
        self.peak_bytes.append(result["peak_bytes"])
        self.losses = result["losses"]
        self.versions = result["versions"]

    def seconds_of(self, updates: int) -> float:
        """A first training of so many updates: the first start, and the rest at the usual pace."""
        return self.start_seconds[0] + (updates - 1) * statistics.median(self.update_seconds)


@dataclass
class Workload:
    """Everything on one workload.

    Args:
        machine: that ran it, in words.
        turns: how often each arm was asked.
        ceilings: tokens per second of each turn, by precision, if an update were its matrix
            products alone: without attention's, and with them.
    """

    machine: str
    turns: int
    rows: list[Row]
    ceilings: dict[str, tuple[list[float], list[float]]]

    def ours(self, network: str) -> list[Row]:
        """hairpin's rows of a network that were measured, the fastest first."""
        rows = [r for r in self.rows if r.is_ours and r.network == network and r.tokens_per_second]
        return sorted(rows, key=lambda row: -statistics.median(row.tokens_per_second))

    def ours_in_float32(self, network: str) -> Row | None:
        """hairpin's float32 row of a network."""
        return next((r for r in self.ours(network) if r.precision == "float32"), None)


@dataclass(frozen=True)
class Agreement:
    """How far the losses of a float32 arm are from hairpin's, update by update.

    Args:
        is_yardstick: it is hairpin itself from weights one rounding away, which says how fine the
            check is.
    """

    name: str
    network: str
    updates: int
    gap: float
    first_loss: float
    last_loss: float
    is_yardstick: bool = False

    @property
    def holds(self) -> bool:
        """Whether it is the same training, and for the yardstick whether the check can tell."""
        return self.gap <= AGREEMENT


def agreed(agreements: Sequence[Agreement]) -> bool:
    """Whether peers were compared, and all of them train the same."""
    compared = any(not each.is_yardstick for each in agreements)
    return compared and all(each.holds for each in agreements)


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median (least–most)."""
    low, middle, high = min(values), statistics.median(values), max(values)
    if len(values) == 1:
        return f"{middle:,.{digits}f}"
    return f"{middle:,.{digits}f} ({low:,.{digits}f}–{high:,.{digits}f})"


def ratios(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    """Of each turn by itself, since a machine is not equally fast all the time.

    An arm that fails is not asked again, so entries of the same number are of the same turn.
    """
    return [one / other for one, other in zip(ones, others, strict=False)]


def largest_gap(ones: Sequence[float], others: Sequence[float]) -> float:
    """Between the losses of the same updates."""
    return max(abs(one - other) for one, other in zip(ones, others, strict=True))

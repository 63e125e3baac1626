"""What was measured, as numbers and as a page."""

import platform
import statistics
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import psutil

from hairpin.model.shape import Shape


@dataclass
class Measured:
    """One arm on one workload: an entry for each repeat."""

    name: str
    peer: str
    is_ours: bool
    tokens_per_second: list[float] = field(default_factory=list)
    start_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def add(self, result: dict[str, Any] | None, tokens_per_update: int) -> None:
        """Take in a process's result; the first update warmed up."""
        if result is None:
            return
        seconds = statistics.median(result["seconds"][1:])
        self.tokens_per_second.append(tokens_per_update / seconds)
        self.start_seconds.append(result["start_seconds"])
        self.peak_bytes.append(result["peak_bytes"])
        self.losses = result["losses"]


def product_shapes(shape: Shape, batch: int) -> list[tuple[int, int, int, int]]:
    """(rows, inner, columns, how often) of an update's matrix products, attention's apart.

    Each matrix [out, in] is multiplied three times: forward, for the gradient of its input, and for
    its own.
    """
    n, c = batch * shape.context, shape.width
    matrices = [
        (3 * c, c, shape.layers), (c, c, shape.layers), (4 * c, c, shape.layers),
        (c, 4 * c, shape.layers), (shape.vocabulary, c, 1),
    ]  # fmt: skip
    return [
        product
        for out, inner, count in matrices
        for product in ((n, inner, out, count), (n, out, inner, count), (out, n, inner, count))
    ]


def spread(values: list[float], digits: int = 0) -> str:
    """Median (least–most)."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f}–{high:,.{digits}f})"


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Of each repeat by itself, since a machine is not equally fast all the time."""
    return [one / other for one, other in zip(ours, theirs, strict=False)]


def largest_gap(one: list[float], other: list[float]) -> float:
    """Between the losses of the same updates."""
    return max(abs(a - b) for a, b in zip(one, other, strict=False))


def page(results: dict[str, list[Measured]], workloads: dict[str, tuple[Any, ...]]) -> str:
    """Everything as Markdown."""
    lines = [
        "# Benchmarks", "",
        f"{processor()}, {psutil.cpu_count()} cores; Python {platform.python_version()}, torch "
        f"{version('torch')}; float32, two threads, random tokens.", "",
        "```sh", "python -m benchmarks.speed --out docs/benchmarks.md", "```", "",
        "Tokens a second of an update with clipping: median (least–most) of fresh processes that "
        "take turns. The ratio is hairpin's to the peer's at the peer's own model, of each turn by "
        "itself. The ceiling is the time of the model's own matrix products, attention's left out.",
    ]  # fmt: skip
    for name, rows in results.items():
        lines += ["", *table(name, rows, *workloads[name])]
    return "\n".join(lines) + "\n"


def table(name: str, rows: list[Measured], shape: Shape, batch: int) -> list[str]:
    """One workload."""
    ceiling = next(row for row in rows if row.name == "ceiling").tokens_per_second
    lines = [
        f"## {name}: {shape.layers} layers × {shape.width}, {shape.vocabulary:,} tokens, "
        f"batch {batch} × {shape.context}",
        "",
        f"Ceiling: {spread(ceiling)} tokens a second.",
        "",
        "| | tokens/s | hairpin is faster by | share of the ceiling | peak memory, GB | "
        "first update after, s | largest loss gap |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row.name == "ceiling" or not row.tokens_per_second:
            continue
        ours = next(each for each in rows if each.is_ours and each.peer == row.peer)
        share = statistics.median(ratios(row.tokens_per_second, ceiling))
        gains = spread(ratios(ours.tokens_per_second, row.tokens_per_second), 2)
        gap = f"{largest_gap(ours.losses, row.losses):.1e}"
        cells = [
            row.name, spread(row.tokens_per_second), "" if row.is_ours else gains, f"{share:.0%}",
            f"{max(row.peak_bytes) / 1e9:.2f}", f"{statistics.median(row.start_seconds):.1f}",
            "" if row.is_ours else gap,
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()

"""Arms of the comparison, what was measured of each, and the page."""

import platform
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import psutil

from benchmarks.speed.page import processor
from benchmarks.speed.results import ratios, spread
from hairpin.model.shape import Shape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


@dataclass(frozen=True)
class Arm:
    """One way to write: whose script, and what it is told."""

    name: str
    script: str
    flags: Mapping[str, Any]

    @property
    def is_ours(self) -> bool:
        """Whether hairpin writes."""
        return self.script == "run_hairpin.py"

    @property
    def precision(self) -> str:
        """Of the weights in products."""
        return str(self.flags["precision"])


def _arms() -> tuple[Arm, ...]:
    theirs = "run_transformers.py"
    return (
        Arm("transformers, float32", theirs, {"precision": "float32"}),
        *(Arm(f"hairpin, {p}", "run_hairpin.py", {"precision": p}) for p in BYTES),
        Arm("transformers, bfloat16", theirs, {"precision": "bfloat16"}),
        *(
            Arm(
                f"transformers, {p}, static cache, compiled",
                theirs,
                {"precision": p, "compiled": True},
            )
            for p in ("float32", "bfloat16")
        ),
    )


ARMS = _arms()
REFERENCE = ARMS[0]


@dataclass
class Measured:
    """An arm on a workload: an entry for each repeat; how it agrees with the float32 network."""

    tokens_per_second: list[float] = field(default_factory=list)
    bytes_per_second: list[float] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    largest_gap: float = 0.0
    same_choice: float = 0.0


@dataclass
class Workload:
    """All arms on one model, and how fast memory was read in each repeat."""

    shape: dict[str, Any]
    tokens: int
    distinct: int = 0
    middle_lead: float = 0.0
    memory_bytes_per_second: list[float] = field(default_factory=list)
    arms: dict[str, Measured] = field(default_factory=dict)


def bytes_per_token(shape: Shape, precision: str, is_ours: bool, positions: float) -> float:
    """Bytes that a token reads: matrices and head, and keys and values of what was before it.

    hairpin keeps the cache in float32; transformers in the model's format.
    """
    block = 12 * shape.width**2
    weights = shape.layers * block + shape.vocabulary * shape.width
    cache = 2 * shape.layers * shape.width * positions
    return weights * BYTES[precision] + cache * (4 if is_ours else BYTES[precision])


def leading(one: list[int], other: list[int]) -> float:
    """The share of a text up to where another differs."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), len(one)) / len(one)


def page(workloads: Mapping[str, Workload]) -> str:
    """Everything as Markdown."""
    lines = [
        "# Writing: hairpin against transformers", "",
        f"{processor()}, {psutil.cpu_count()} cores; Python {platform.python_version()}, torch "
        f"{version('torch')}; two threads, one text at a time, the likeliest token each time.", "",
        "```sh", "python -m benchmarks.generation --out docs/generation-results.md", "```", "",
        "Fresh processes that take turns, forwards and backwards; two texts to warm up (and to "
        "compile); then one is timed, prompt and all. Median (least–most). \"Faster by\" is of "
        "each turn, against `GPT2LMHeadModel.generate` in float32. \"Read\" is the weights of all "
        "products, keys and values, in the arm's format, over the time; its share is of how fast "
        "`torch.sum` read 512 MB in the same turn, the best of eight. Where weights fit into the "
        "processor's cache, more is possible.", "",
        "Weights are drawn: embeddings of deviation 2.75 / √width, so that logits spread as a "
        "trained GPT-2's; matrices of 2 / √inputs, outputs to the residual stream of half that, so "
        "that blocks and not the last token decide the next one. Such a network amplifies small "
        "errors more than a trained one. Agreement is with transformers in float32: the share of "
        "its text before the first other token; and, after each of its tokens, the share of the "
        "same likeliest next token and the largest difference of a logit from the float32 "
        "network's.",
    ]  # fmt: skip
    for name, workload in workloads.items():
        lines += ["", *_table(name, workload)]
    return "\n".join(lines) + "\n"


def _table(name: str, workload: Workload) -> list[str]:
    shape = workload.shape
    speed = [value / 1e9 for value in workload.memory_bytes_per_second]
    lines = [
        f"## {name}: {shape['layers']} layers × {shape['width']}, {shape['heads']} heads, "
        f"vocabulary {shape['vocabulary']:,}, {workload.tokens} new tokens",
        "",
        f"Memory: {spread(speed, 1)} GB/s. The text has {workload.distinct} different tokens; "
        f"the median lead of the likeliest over the next is {workload.middle_lead:.2f}.",
        "",
        "| | tokens/s | faster by | read, GB/s | share of memory's | same text before another "
        "token | same choice | largest logit gap |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    reference = workload.arms[REFERENCE.name]
    for arm in ARMS:
        row = workload.arms.get(arm.name)
        if row is None or not row.tokens_per_second:
            continue
        gains = ratios(row.tokens_per_second, reference.tokens_per_second)
        shares = ratios(row.bytes_per_second, workload.memory_bytes_per_second)
        cells = [
            arm.name, spread(row.tokens_per_second, 1), spread(gains, 2),
            f"{statistics.median(row.bytes_per_second) / 1e9:.1f}",
            f"{statistics.median(shares):.0%}", f"{leading(reference.ids, row.ids):.0%}",
            f"{row.same_choice:.1%}", f"{row.largest_gap:.1e}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines

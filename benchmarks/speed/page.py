"""What was measured, as Markdown."""

import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.speed.peers import CHECKED
from benchmarks.speed.results import (
    AGREEMENT,
    Agreement,
    Row,
    Workload,
    agreed,
    largest_gap,
    ratios,
    spread,
)
from hairpin.model.shape import Shape

NETWORKS = {"book": "the book's network", "gpt2": "GPT-2"}
UPDATES = 100
COLUMNS = (
    "", "tokens/s", "hairpin's fastest is faster by", "hairpin's float32 is faster by",
    "share of the ceiling", "peak memory, GB", "first update after, s", "the next time",
    f"{UPDATES} updates after, s", "largest loss gap",
)  # fmt: skip
INTRODUCTION = f"""\
# Benchmarks

```sh
python -m benchmarks.speed --out docs/benchmarks.md     # part of make bench
python -m benchmarks.speed --quick     # five minutes, without what has to be compiled first
```

The same training by hairpin and by others: same weights, tokens (random ones), AdamW, learning rate
and clipping, no dropout. Every process is fresh and has its package's own environment; arms take
turns, forwards and backwards.

- **tokens/s**: of the median update of a process, without its first; median (least–most) of turns.
- **faster by**: hairpin's tokens/s divided by the peer's, of each turn by itself, at the same
  network: the book's has a head of its own and no bias at query, key and value; GPT-2's is tied.
- **share of the ceiling**: of the pace that the network's own matrix products would have if an
  update were nothing else, in the row's own precision, timed in the same run into memory that is
  there already; in brackets with attention's products too (two forward and four backward, half of
  each counted, as the other half is masked; what flash attention computes again is not counted).
- **first update after**: from the start of the process, with nothing compiled yet; **the next
  time**: with what the first turn compiled.
- **{UPDATES} updates after**: the first update, and {UPDATES - 1} times the median update: worked
  out, not trained. Where losses agree, any loss takes everybody the same number of updates, so rows
  compare as their times to a loss would.
- **largest loss gap**: to hairpin in float32, over the updates of a process. float32 rows have to
  be within {AGREEMENT:.0e}; for bfloat16 rows it is what their products cost.
- **litgpt** has no learned positions: rotary ones on a quarter of each head, as Pythia's; layers,
  width, heads, vocabulary, biases, GELU and tying are GPT-2's. Its losses are not comparable, and
  in `bf16-true` its weights and moments are bfloat16 as well, which no other row's are. Fused AdamW
  on a CPU is not among the flags of `litgpt pretrain`: it was added for the rows that say so.
- Lightning's own clipping refuses fused AdamW in `bf16-mixed`: the row clips in Lightning's hook.
"""


def page(
    workloads: Mapping[str, Workload],
    sizes: Mapping[str, tuple[Shape, int]],
    agreements: Sequence[Agreement],
) -> str:
    """Everything that is there.

    Args:
        workloads: what was measured, by name.
        sizes: shape and batch of each of them.
        agreements: of the check before it.
    """
    lines = [INTRODUCTION]
    lines += [*agreement_lines(agreements), ""]
    for name, workload in workloads.items():
        lines += [*workload_lines(name, workload, *sizes[name]), ""]
    return "\n".join(lines)


def agreement_lines(agreements: Sequence[Agreement]) -> list[str]:
    """The check of losses, which says first whether it holds."""
    compared = [each for each in agreements if not each.is_yardstick]
    missing = [
        f"{arm.name} ({NETWORKS[arm.network]})"
        for arm in CHECKED
        if not arm.is_ours
        and (arm.name, arm.network) not in {(e.name, e.network) for e in compared}
    ]
    if not compared:
        verdict = "**NOTHING WAS COMPARED.**"
    elif not all(each.holds for each in agreements if each.is_yardstick):
        verdict = "**THIS CHECK TELLS NOTHING: hairpin does not agree with itself.**"
    elif not agreed(agreements):
        verdict = (
            f"**THE LOSSES DO NOT AGREE within {AGREEMENT:.0e}: speeds below are not of the same "
            "training.**"
        )
    else:
        verdict = f"All within {AGREEMENT:.0e} of hairpin's, at every update."
    lines = [
        "## The same training", "", verdict, "",
        "| float32, beside hairpin | network | updates | loss | largest gap |",
        "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for each in agreements:
        cells = (
            each.name, NETWORKS[each.network], f"{each.updates}",
            f"{each.first_loss:.3f} → {each.last_loss:.3f}", f"{each.gap:.1e}",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"Not checked, because it failed: {', '.join(missing)}."] if missing else []
    return lines


def workload_lines(name: str, workload: Workload, shape: Shape, batch: int) -> list[str]:
    """One workload: its ceilings, and a table for each network."""
    versions: dict[str, str] = {}
    for row in workload.rows:
        versions |= row.versions
    lines = [
        f"## {name}: {shape.layers} layers × {shape.width}, {shape.vocabulary:,} tokens, "
        f"batch {batch} × {shape.context}",
        "",
        f"{workload.machine}; {', '.join(f'{k} {v}' for k, v in sorted(versions.items()))}; "
        f"{workload.turns} turn{'s' * (workload.turns != 1)}.",
        "",
    ]
    for precision, (matrices, everything) in workload.ceilings.items():
        lines.append(
            f"- Ceiling in {precision}: {spread(matrices)} tokens/s; with attention's products "
            f"{spread(everything)}."
        )
    for network, title in NETWORKS.items():
        rows = [row for row in workload.rows if row.network == network]
        lines += [
            "", f"### {name}, {title}", "", "| " + " | ".join(COLUMNS) + " |",
            "|" + " --- |" * len(COLUMNS),
        ]  # fmt: skip
        lines += [row_line(row, workload) for row in rows if row.tokens_per_second]
        left_out = [f"- Left out: {row.name}: {row.failure}." for row in rows if row.failure]
        lines += ["", *left_out] if left_out else []
    return lines


def row_line(row: Row, workload: Workload) -> str:
    """One arm in the table."""
    fastest = next(iter(workload.ours(row.network)), None)
    plain = workload.ours_in_float32(row.network)
    later = row.start_seconds[1:]
    cells = (
        row.name,
        spread(row.tokens_per_second),
        "" if row.is_ours else faster_by(fastest, row),
        "" if row.is_ours or row.precision != "float32" else faster_by(plain, row),
        share(row, workload),
        f"{max(row.peak_bytes) / 1e9:.2f}",
        f"{row.start_seconds[0]:.1f}",
        f"{statistics.median(later):.1f}" if later else "",
        f"{row.seconds_of(UPDATES):,.0f}",
        loss_gap(row, plain),
    )
    return "| " + " | ".join(cells) + " |"


def faster_by(ours: Row | None, theirs: Row) -> str:
    """How many times as fast hairpin is, of each turn by itself."""
    if ours is None:
        return ""
    return spread(ratios(ours.tokens_per_second, theirs.tokens_per_second), 2)


def share(row: Row, workload: Workload) -> str:
    """Of the ceiling of the row's precision; in brackets with attention's products."""
    if row.precision not in workload.ceilings:
        return ""
    alone, with_attention = (
        statistics.median(ratios(row.tokens_per_second, ceiling))
        for ceiling in workload.ceilings[row.precision]
    )
    return f"{alone:.0%} ({with_attention:.0%})"


def loss_gap(row: Row, plain: Row | None) -> str:
    """To hairpin's float32 row; float32 rows that should agree and do not are shouted."""
    if not row.is_same_network:
        return "another network"
    if plain is None or row is plain:
        return ""
    gap = largest_gap(plain.losses, row.losses)
    if row.precision == "float32" and gap > AGREEMENT:
        return f"**{gap:.1e}: NOT THE SAME**"
    return f"{gap:.1e}"


def machine(device: str, threads: int) -> str:
    """The machine in words."""
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    threads_in_words = f"{threads} thread{'s' * (threads != 1)}"
    return f"{name}, {threads_in_words}, {platform.system()}; Python {platform.python_version()}"


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()

"""Conclusions of an experiment: figures, differences and caveats; as lines for a terminal, as
Markdown and as JSON.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from hairpin.reports.comparison import (
    ArmResult,
    Comparison,
    Contrast,
    contrasts_with_first,
    read_arms,
)
from hairpin.reports.effects import effects
from hairpin.reports.formats import format_bytes, format_lr
from hairpin.reports.outcomes import NATS
from hairpin.reports.statistics import mean_difference
from hairpin.runs.experiment_folder import Experiment, ExperimentDirectory

Rows = list[list[str]]


def conclude(experiment: Experiment, directory: ExperimentDirectory) -> Comparison:
    """Evaluate an experiment with the runs available so far.

    Raises:
        RunError: a named run does not exist, or is damaged.
    """
    arms = read_arms(experiment, directory)
    unit, smallest = arms[0].unit, experiment.smallest_difference
    if experiment.kind == "ablate":
        contrasts = effects(arms, experiment.factors, smallest, unit)
    else:
        contrasts = contrasts_with_first(arms, smallest, unit)
    notes = tuple(_notes(experiment, arms, contrasts))
    return Comparison(experiment, tuple(arms), contrasts, unit, notes)


def _notes(
    experiment: Experiment, arms: Sequence[ArmResult], contrasts: Sequence[Contrast]
) -> Iterator[str]:
    if not experiment.is_tuned and experiment.trained:
        yield (
            "learning rates were not tuned: every arm uses the peak in its config, so an arm may "
            "look worse only because another rate would suit it"
        )
    missing = sum(
        len(experiment.seeds) - len(result.outcomes)
        for result in arms
        if result.arm in experiment.trained
    )
    if missing:
        yield f"not complete: {missing} of the verdict's runs are not finished yet"
    if any(not c.difference.is_paired for c in contrasts):
        yield (
            "not paired: the runs do not share seeds or data, so noise between seeds hides small "
            "differences; use more seeds"
        )
    if arms[0].unit == NATS:
        yield "nats per token: comparable only between runs with the same tokenizer"
    for result in arms:
        if result.diverged:
            yield (
                f"{result.arm.name}: {result.diverged} of {len(result.outcomes)} runs diverged; "
                "its figures exclude them"
            )
        if result.is_at_edge and result.arm.same_as is None:
            yield (
                f"{result.arm.name}: its best learning rate, {format_lr(result.peak_lr or 0)}, is "
                "at the edge of the rates tried; a rate beyond it may do better"
            )
    if len(contrasts) > 1:
        yield (
            f"{len(contrasts)} differences are tested, so their p-values are adjusted (Holm): "
            "a verdict is wrong at most once in twenty such experiments"
        )


def arm_rows(comparison: Comparison) -> Rows:
    """Return a table of the arms, its heading first."""
    heading = ["arm", "peak lr", "final", "best", "runs", "tokens/s", "memory", "clipped"]
    return [[*heading, "unstable"], *(_arm_row(result) for result in comparison.arms)]


def _arm_row(result: ArmResult) -> list[str]:
    speed, memory = result.mean("tokens_per_second"), result.mean("peak_bytes")
    clipped = result.mean("clipped_share")
    unstable = sum(bool(outcome.unstable_updates) for outcome in result.outcomes)
    runs = str(len(result.outcomes)) + (f", {result.diverged} diverged" if result.diverged else "")
    return [
        result.arm.name,
        format_lr(result.peak_lr) if result.peak_lr else "",
        _with_interval(result.finals),
        _figure(result.mean("best")),
        runs,
        f"{speed:,.0f}" if speed else "",
        format_bytes(memory) if memory else "",
        f"{clipped:.0%}" if clipped is not None else "",
        str(unstable + result.diverged),
    ]


def contrast_rows(comparison: Comparison) -> Rows:
    """Return a table of the differences, its heading first."""
    first = "effect" if comparison.experiment.kind == "ablate" else "arm"
    rows = [[first, "against", "difference", "95% interval", "pairs", "p", "verdict"]]
    for contrast in comparison.contrasts:
        d = contrast.difference
        known = d.count > 0
        interval = f"{d.low:+.4f} to {d.high:+.4f}" if math.isfinite(d.low) else ""
        rows.append(
            [
                contrast.name,
                contrast.base,
                f"{d.mean:+.4f}" if known else "",
                interval,
                (str(d.count) if d.is_paired else f"{d.count}, not paired") if known else "",
                f"{contrast.adjusted_p:.2g}" if math.isfinite(d.low) else "",
                contrast.verdict,
            ]
        )
    return rows


def title_of(comparison: Comparison) -> str:
    """Return a title with the arms and the text."""
    experiment = comparison.experiment
    names = " x ".join(experiment.factors) or ", ".join(a.name for a in experiment.arms[:6])
    more = f" and {len(experiment.arms) - 6} more" if len(experiment.arms) > 6 else ""
    return f"{experiment.kind}: {names}{'' if experiment.factors else more}, on {experiment.text}"


def lines_of(comparison: Comparison) -> list[str]:
    """Return everything in lines for a terminal: caveats, figures, verdicts."""
    found = [title_of(comparison)]
    if model := comparison.experiment.model:
        equal = comparison.experiment.equal  # nothing, where arms differ in length on purpose
        found.append(f"{model}; equal {equal}" if equal else model)
    found += [f"note: {note}" for note in comparison.notes]
    found += ["", f"validation loss in {comparison.unit}", *_aligned(arm_rows(comparison))]
    if comparison.contrasts:
        found += ["", *_aligned(contrast_rows(comparison))]
    return found


def markdown_of(comparison: Comparison, pictures: Sequence[str] = ()) -> str:
    """Return the same as Markdown.

    Args:
        comparison: the outcome.
        pictures: paths of pictures to show at the end.
    """
    _, *lines = lines_of(comparison)
    facts = [line for line in lines[: lines.index("")] if not line.startswith("note: ")]
    parts = [f"# {title_of(comparison)}", *facts]
    if comparison.notes:
        parts.append("\n".join(f"- {note}" for note in comparison.notes))
    parts.append(f"Validation loss in {comparison.unit}; final with its 95% interval over seeds.")
    parts.append(_markdown(arm_rows(comparison)))
    if comparison.contrasts:
        parts.append(_markdown(contrast_rows(comparison)))
    parts += [f"![]({picture})" for picture in pictures]
    return "\n\n".join(parts) + "\n"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return the same as plain values; unknown ones are null."""
    experiment = comparison.experiment
    return {
        "kind": experiment.kind,
        "text": experiment.text,
        "tuned": experiment.is_tuned,
        "equal": experiment.equal or None,
        "unit": comparison.unit,
        "smallest_difference": experiment.smallest_difference,
        "notes": list(comparison.notes),
        "arms": [
            {
                "name": result.arm.name,
                "changes": dict(result.arm.changes),
                "same_as": result.arm.same_as,
                "peak_lr": result.peak_lr,
                "final": result.mean("final"),
                "best": result.mean("best"),
                "tokens_per_second": result.mean("tokens_per_second"),
                "peak_bytes": result.mean("peak_bytes"),
                "clipped_share": result.mean("clipped_share"),
                "diverged_runs": result.diverged,
                "finals": result.finals,
                "runs": [outcome.name for outcome in result.outcomes],
                "tuning": {
                    f"{scale:g}": [o.final.get(result.unit) for o in outcomes]
                    for scale, outcomes in result.tuning.items()
                },
            }
            for result in comparison.arms
        ],
        "contrasts": [
            {
                "name": contrast.name,
                "against": contrast.base,
                "difference": _finite(contrast.difference.mean),
                "low": _finite(contrast.difference.low),
                "high": _finite(contrast.difference.high),
                "p": contrast.difference.p,
                "adjusted_p": contrast.adjusted_p,
                "pairs": contrast.difference.count,
                "paired": contrast.difference.is_paired,
                "by_seed": list(contrast.by_seed),
                "verdict": contrast.verdict,
            }
            for contrast in comparison.contrasts
        ],
    }


def _with_interval(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = mean_difference(values)
    half = f" ± {mean.half_width:.4f}" if math.isfinite(mean.half_width) else ""
    return f"{mean.mean:.4f}{half}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _aligned(rows: Rows) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _markdown(rows: Rows) -> str:
    heading, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [heading, ["---"] * len(heading), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

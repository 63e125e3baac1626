"""Plots of an experiment: loss against learning rate, differences with their intervals, and
learning curves.
"""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from hairpin.reports.chart import COLORS
from hairpin.reports.comparison import ArmResult, Comparison, Contrast
from hairpin.reports.figures import (
    BLUE,
    GREY,
    ORANGE,
    PALETTE,
    base_figure,
    save_figure,
)
from hairpin.reports.formats import format_count, format_lr

_COLORS = (*(PALETTE[name] for name in COLORS), "#332288", GREY)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_FAR = 0.45  # a loss is cut off beyond this share of the spread of the arms' best losses


def write_comparison_plots(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw the available plots into `folder`; return their paths.

    `learning-rates.png`: final loss against peak learning rate; `differences.png`;
    `curves.png`: validation loss over training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    if any(len(result.tuning) > 1 for result in comparison.arms):
        paths.append(save_figure(_lr_figure(comparison), folder / "learning-rates.png"))
    measured = [c for c in comparison.contrasts if math.isfinite(c.difference.low)]
    if measured:
        paths.append(
            save_figure(_difference_figure(comparison, measured), folder / "differences.png")
        )
    if any(outcome.curve for result in comparison.arms for outcome in result.outcomes):
        paths.append(save_figure(_curve_figure(comparison), folder / "curves.png"))
    return paths


def write_lr_plot(comparison: Comparison, folder: Path, suggestion: float) -> Path:
    """Draw `learning-rates.png` with a suggested rate in it; return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = _lr_figure(comparison)
    (ax,) = figure.axes
    ax.axvline(suggestion, color=ORANGE, lw=2, ls="--", label=f"take {format_lr(suggestion)}")
    ax.set_xlabel("peak learning rate", fontsize=12)
    figure.legends[0].remove()
    _legend(figure, 2)
    return save_figure(figure, folder / "learning-rates.png")


def _lr_figure(comparison: Comparison) -> Figure:
    """Plot a line and a band for each arm over the learning rates that it tried, diverged runs at
    the top, and the verdict's runs as a larger mark.
    """
    figure, ax = base_figure(
        "Final validation loss against the peak learning rate", comparison.unit
    )
    shown = [r for r in comparison.arms if r.tuning and r.arm.same_as is None]
    diverged: list[tuple[float, str, str]] = []
    for index, result in enumerate(shown):
        color, marker = _style(index)
        scales = [s for s, group in result.tuning.items() if all(o.final for o in group)]
        rates = [result.arm.peak_lr * scale for scale in scales]
        groups = [[o.final[result.unit] for o in result.tuning[scale]] for scale in scales]
        label = f"{result.arm.name}"
        means = [statistics.fmean(group) for group in groups]
        ax.plot(rates, means, color=color, marker=marker, ms=6, mec="white", label=label)
        lows, highs = [min(group) for group in groups], [max(group) for group in groups]
        ax.fill_between(rates, lows, highs, color=color, alpha=0.18, lw=0)
        if result.finals and result.peak_lr:
            ax.plot(result.peak_lr, statistics.fmean(result.finals), marker=marker, ms=13,
                    mfc="none", mec=color, mew=2, ls="")  # fmt: skip
        lost = [s for s in result.tuning if s not in scales]
        diverged += [(result.arm.peak_lr * scale, color, marker) for scale in lost]
    tried = sorted({r.arm.peak_lr * scale for r in shown for scale in r.tuning})
    _limited_axis(ax, shown)
    top = ax.get_ylim()[1]
    for rate, color, marker in diverged:
        ax.plot(rate, top, marker=marker, ms=9, color=color, ls="", clip_on=False)
        ax.annotate("diverged", (rate, top), (0, 6), textcoords="offset points", ha="center",
                    fontsize=9, color=color, annotation_clip=False)  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(_without_overlap(tried)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: format_lr(rate)))
    ax.set_xlabel("peak learning rate; large open marks: verdict runs", fontsize=12)
    _legend(figure, len(shown))
    return figure


def _without_overlap(rates: Sequence[float]) -> list[float]:
    """Drop rates whose labels would overlap another's."""
    kept: list[float] = []
    for rate in rates:
        if not kept or rate > 1.3 * kept[-1]:
            kept.append(rate)
    return kept


def _limited_axis(ax: Axes, shown: Sequence[ArmResult]) -> None:
    """Limit the axis to exclude losses far above the rest, so that the rest can be
    distinguished.
    """
    means = [
        statistics.fmean(o.final[r.unit] for o in group)
        for r in shown
        for group in r.tuning.values()
        if all(o.final for o in group)
    ]
    if len(means) < 4:
        return
    low, middle = min(means), statistics.median(means)
    highest = middle + max(4 * (middle - low), 1e-3)
    if max(means) > highest:
        bottom = ax.get_ylim()[0]
        ax.set_ylim(bottom=max(bottom, low - _FAR * (highest - low) / 4), top=highest)


def _difference_figure(comparison: Comparison, contrasts: Sequence[Contrast]) -> Figure:
    """Plot each difference with its interval, and the differences of single seeds."""
    height = max(2.6, 1.6 + 0.55 * len(contrasts))
    is_ablation = comparison.experiment.kind == "ablate"
    base = "off" if is_ablation else comparison.arms[0].arm.name
    title = "Effects" if is_ablation else f"Difference from {base}"
    figure, ax = base_figure(f"{title}: mean, 95% interval, single seeds", "", height)
    smallest = comparison.experiment.smallest_difference
    ax.axvspan(-smallest, smallest, color="#EEEEEE", lw=0, label="too small to matter")
    ax.axvline(0, color=GREY, lw=1)
    for row, contrast in enumerate(reversed(contrasts)):
        d = contrast.difference
        above = [row + 0.22] * len(contrast.by_seed)
        ax.plot(contrast.by_seed, above, "o", color=GREY, alpha=0.6, ms=5, mew=0)
        ax.errorbar(d.mean, row, xerr=d.half_width, fmt="D", color=BLUE, ms=7, capsize=5, lw=2)
    ax.set_yticks(range(len(contrasts)), [c.name for c in reversed(contrasts)], fontsize=11)
    ax.set_ylim(-0.6, len(contrasts) - 0.4)
    ax.set_xlabel(f"{comparison.unit}; left is better", fontsize=12)
    ax.legend(loc="best", fontsize=10, frameon=False)
    return figure


def _curve_figure(comparison: Comparison) -> Figure:
    """Plot validation loss over tokens: the mean over seeds, and the band of all seeds."""
    figure, ax = base_figure("Validation loss over training", comparison.unit)
    shown = [r for r in comparison.arms if r.arm.same_as is None and r.outcomes]
    for index, result in enumerate(shown):
        color, marker = _style(index)
        at: dict[int, list[float]] = {}
        for outcome in result.outcomes:
            for tokens, losses in outcome.curve:
                if comparison.unit in losses and not outcome.diverged:
                    at.setdefault(tokens, []).append(losses[comparison.unit])
        shown_tokens = sorted(at)[1:] if len(at) > 2 else sorted(at)  # update 0 is far above
        means = [statistics.fmean(at[t]) for t in shown_tokens]
        ax.plot(
            shown_tokens,
            means,
            color=color,
            marker=marker,
            ms=6,
            mec="white",
            label=result.arm.name,
        )
        lows, highs = [min(at[t]) for t in shown_tokens], [max(at[t]) for t in shown_tokens]
        ax.fill_between(shown_tokens, lows, highs, color=color, alpha=0.18, lw=0)
    ax.set_xlabel("tokens", fontsize=12)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: format_count(tokens)))
    _legend(figure, len(shown))
    return figure


def _legend(figure: Figure, entries: int) -> None:
    figure.legend(loc="outside lower center", ncols=min(4, entries), fontsize=11, frameon=False)


def _style(index: int) -> tuple[str, str]:
    return _COLORS[index % len(_COLORS)], _MARKERS[index % len(_MARKERS)]

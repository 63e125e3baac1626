"""Tables and pictures of the rows that `benchmarks.book_comparison` leaves.

write_report(rows, folder)    the tables to standard output as Markdown, the pictures as PNG files
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from hairpin.reports.formats import format_lr

Row = dict[str, Any]
VERMILLION, BLUE, GREY = "#D55E00", "#0072B2", "#666666"
SIMPLE, APPENDIX = "simple", "appendix"
COLOURS = {SIMPLE: VERMILLION, APPENDIX: BLUE}
LABELS = {SIMPLE: "chapter 5: train_model_simple", APPENDIX: "appendix D: train_model"}
PARTS = ("warmup", "decay", "clip")


class Results:
    """Rows of runs of one length, by text, arm and peak learning rate."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = sorted(rows, key=lambda row: int(row["seed"]))
        self.texts = list(dict.fromkeys(row["text"] for row in self._rows))

    def select(self, text: str, arm: str, lr: float) -> list[Row]:
        """The rows of one place in the grid, by seed."""
        wanted = (text, arm, lr)
        return [row for row in self._rows if (row["text"], row["arm"], row["peak_lr"]) == wanted]

    def lrs(self, text: str, arm: str) -> list[float]:
        """The peak rates of an arm, upwards."""
        rows = [row for row in self._rows if (row["text"], row["arm"]) == (text, arm)]
        return sorted({row["peak_lr"] for row in rows})

    def losses(self, text: str, arm: str, lr: float, key: str = "val_loss") -> dict[int, float]:
        """Seed → the final figure; infinite where it was not finite."""
        rows = self.select(text, arm, lr)
        return {row["seed"]: _loss(row[key]) for row in rows}

    def best_lr(self, text: str, arm: str) -> float:
        """The rate with the lowest median over the seeds."""
        return min(self.lrs(text, arm), key=lambda lr: median(self.losses(text, arm, lr).values()))

    def parts_lrs(self, text: str) -> list[float]:
        """The rates at which parts of the appendix were tried."""
        return sorted({lr for part in PARTS for lr in self.lrs(text, part)})


def write_report(rows: Iterable[Row], folder: Path) -> None:
    """Print the tables, and draw `comparison-lr.png`, `-curves.png` and, of parts, `-parts.png`."""
    results = Results(rows)
    if not results.texts:
        raise SystemExit("there are no results to report; train some first (see --help)")
    for text in results.texts:
        print("\n".join([f"### {text}", "", *grid_table(results, text), ""]))
        print("\n".join([best_line(results, text), ""]))
        if results.parts_lrs(text):
            print("\n".join([*parts_table(results, text), ""]))
    figures = {"comparison-lr.png": lr_figure(results), "comparison-curves.png": curves(results)}
    with_parts = [text for text in results.texts if results.parts_lrs(text)]
    if with_parts:
        figures["comparison-parts.png"] = parts_figure(results, with_parts[0])
    for name, figure in figures.items():
        figure.savefig(folder / name, metadata={"Software": None})


# --- tables ---


def grid_table(results: Results, text: str) -> list[str]:
    """Each rate: nats per token and bits per byte of both arms, and the difference of each seed."""
    lines = [
        "| peak lr | chapter 5 | bits per byte | appendix D | bits per byte | difference by seed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for lr in results.lrs(text, SIMPLE):
        cells = [format_lr(lr)]
        for arm in (SIMPLE, APPENDIX):
            bits = results.losses(text, arm, lr, "bits_per_byte").values()
            cells += [_cell(results, text, arm, lr), f"{median(bits):.3f}" if bits else ""]
        both = (results.losses(text, arm, lr) for arm in (SIMPLE, APPENDIX))
        lines.append(f"| {' | '.join([*cells, differences(*both)])} |")
    return lines


def best_line(results: Results, text: str) -> str:
    """Both arms, each at the rate that is its best."""
    rates = {arm: results.best_lr(text, arm) for arm in (SIMPLE, APPENDIX)}
    first, second = (results.losses(text, arm, lr) for arm, lr in rates.items())
    named = ", ".join(
        f"{LABELS[arm]} at {format_lr(lr)}: {_cell(results, text, arm, lr)}"
        for arm, lr in rates.items()
    )
    return f"Each at its best rate: {named}; by seed {differences(first, second)}"


def parts_table(results: Results, text: str) -> list[str]:
    """Each part by itself at some rates, between nothing and all three."""
    lrs = results.parts_lrs(text)
    heads = " | ".join(f"peak lr {format_lr(lr)}" for lr in lrs)
    lines = [f"| arm | {heads} |", "| --- |" + " --- |" * len(lrs)]
    for arm in (SIMPLE, *PARTS, APPENDIX):
        cells = " | ".join(_cell(results, text, arm, lr) for lr in lrs)
        lines.append(f"| {arm} | {cells} |")
    return lines


def differences(first: dict[int, float], second: dict[int, float]) -> str:
    """Second minus first, in nats per token, of each seed that both have."""
    shared = [seed for seed in first if seed in second]
    return ", ".join(f"{second[seed] - first[seed]:+.3f}".replace("-", "−") for seed in shared)


def _cell(results: Results, text: str, arm: str, lr: float) -> str:
    """Median and range over the seeds, in nats per token."""
    losses = sorted(results.losses(text, arm, lr).values())
    if not losses:
        return "not run"
    return f"**{median(losses):.3f}** ({losses[0]:.3f}–{losses[-1]:.3f})"


def _loss(value: float | None) -> float:
    return math.inf if value is None else value


# --- pictures ---


def lr_figure(results: Results) -> Figure:
    """The final loss against the peak rate: a dot for each seed, a line through the medians."""
    figure, panels = _panels(len(results.texts), "validation loss after the last update")
    for ax, text in zip(panels, results.texts, strict=True):
        _style(ax, text, "peak learning rate, logarithmic")
        ax.set_xscale("log")
        for arm, side in ((SIMPLE, 0.96), (APPENDIX, 1.04)):
            lrs = results.lrs(text, arm)
            middle = [median(results.losses(text, arm, lr).values()) for lr in lrs]
            # A little to the side, so that the dots of one arm do not hide the other's.
            xs = [lr * side for lr in lrs for _ in results.select(text, arm, lr)]
            ys = [loss for lr in lrs for loss in results.losses(text, arm, lr).values()]
            ax.plot(xs, ys, **_dots(COLOURS[arm]))
            label = f"{LABELS[arm]}, median and seeds"
            line: dict[str, Any] = {"color": COLOURS[arm], "lw": 2, "marker": ".", "ms": 1}
            ax.plot([lr * side for lr in lrs], middle, **line, label=label)
        ax.set_xticks(results.lrs(text, SIMPLE))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda lr, _: format_lr(lr)))
        ax.xaxis.set_minor_locator(NullLocator())
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=12, frameon=False)
    return figure


def curves(results: Results) -> Figure:
    """Validation loss on the way, of both arms at their best rates: each seed, and the median."""
    figure, panels = _panels(len(results.texts), "validation loss on the way")
    for ax, text in zip(panels, results.texts, strict=True):
        _style(ax, text, "update")
        for arm in (SIMPLE, APPENDIX):
            lr = results.best_lr(text, arm)
            rows = results.select(text, arm, lr)
            # Without the first evaluation, after one update: it would take half of the height.
            series = [[_loss(value) for value in row["val_losses"][1:]] for row in rows]
            for losses in series:
                ax.plot(rows[0]["steps"][1:], losses, color=COLOURS[arm], lw=0.9, alpha=0.5)
            middle = [median(at) for at in zip(*series, strict=True)]
            label = f"{LABELS[arm].partition(':')[0]}, peak {format_lr(lr)}"
            ax.plot(rows[0]["steps"][1:], middle, color=COLOURS[arm], lw=2.2, label=label)
        ax.legend(fontsize=11, frameon=False, title="at its best rate", title_fontsize=11)
    return figure


def parts_figure(results: Results, text: str) -> Figure:
    """The final loss of nothing, each part, and all three: a panel for each rate."""
    lrs = results.parts_lrs(text)
    arms = (SIMPLE, *PARTS, APPENDIX)
    names = ("none\n(chapter 5)", *(f"{part}\nonly" for part in PARTS), "all three\n(appendix D)")
    figure, panels = _panels(len(lrs), "validation loss after the last update")
    for ax, lr in zip(panels, lrs, strict=True):
        _style(ax, f"{text}, peak learning rate {format_lr(lr)}", "")
        for place, arm in enumerate(arms):
            colour = COLOURS.get(arm, GREY)
            losses = list(results.losses(text, arm, lr).values())
            if losses:
                ends = (place - 0.25, place + 0.25)
                ax.plot(ends, [median(losses)] * 2, color=colour, lw=2.5)
                ax.plot([place] * len(losses), losses, **_dots(colour))
        ax.set_xticks(range(len(arms)), names)
        ax.grid(visible=False, axis="x")
    return figure


def _panels(count: int, y_label: str) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(6.2 * count, 5.2), dpi=130, layout="constrained", facecolor="white")
    figure.supylabel(f"{y_label} (nats per token)", fontsize=12)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _style(ax: Axes, title: str, x_label: str) -> None:
    ax.set_title(title, fontsize=13, loc="left", pad=10)
    ax.set_xlabel(x_label, fontsize=12)
    ax.tick_params(labelsize=11)
    ax.grid(color="#DDDDDD", lw=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _dots(colour: str) -> dict[str, Any]:
    style = {"color": colour, "ls": "", "marker": "o", "ms": 7, "alpha": 0.85}
    return style | {"mec": "white", "mew": 0.8, "zorder": 4}

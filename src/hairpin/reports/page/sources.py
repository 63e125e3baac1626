"""Charts of a mixture: each source's validation loss and bits per byte."""

from collections.abc import Sequence

import numpy as np

from hairpin.reports.formats import format_loss, harmless_name
from hairpin.reports.page.chart import COLORS, DASHES, MARKERS, Chart, line
from hairpin.reports.series import Event, source_series

_MOST_ROWS = 60


def source_charts(events: Sequence[Event]) -> list[Chart]:
    """Return both charts; none if the run has no sources.

    Args:
        events: the record's valid events (`analysis.summary.history`).
    """
    made = [
        _chart(events, "val_loss", "sources", "Validation loss by source", "nats per token"),
        _chart(
            events,
            "val_bits_per_byte",
            "source-bits",
            "Bits per byte by source",
            "of each source's validation text",
        ),
    ]
    return [chart for chart in made if chart]


def _chart(events: Sequence[Event], key: str, ident: str, title: str, unit: str) -> Chart | None:
    found = source_series(events, key)
    finite = [ys[np.isfinite(ys)] for _, ys in found.values()]
    if not any(len(ys) for ys in finite):
        return None
    updates = next(iter(found.values()))[0]
    names = [harmless_name(name) for name in found]
    step = -(-len(updates) // _MOST_ROWS)
    shown = sorted({*range(0, len(updates), step), len(updates) - 1})
    return Chart(
        ident,
        title,
        unit,
        "loss",
        tuple(
            line(
                harmless_name(name),
                *points,
                color=COLORS[at % len(COLORS)],
                dash=DASHES[at % len(DASHES)],
                marker=MARKERS[at % len(MARKERS)],
                look="marked",
            )
            for at, (name, points) in enumerate(found.items())
        ),
        log=all(ys.min() > 0 for ys in finite if len(ys)),
        head=("update", *names),
        rows=tuple(
            (f"{updates[at]:,.0f}", *(format_loss(_known(ys[at])) for _, ys in found.values()))
            for at in shown
        ),
    )


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

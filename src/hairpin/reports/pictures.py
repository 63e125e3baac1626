"""Plots for a notebook: PNG inside HTML that needs no file and no network."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.figure import Figure

from hairpin.reports.formats import harmless

_DOTS_PER_INCH = 110


@dataclass(frozen=True)
class Pictures:
    """PNG files in memory by name."""

    png: Mapping[str, bytes]

    @classmethod
    def of(cls, figures: Mapping[str, Figure]) -> "Pictures":
        """Draw the figures."""
        return cls({name: _png(figure) for name, figure in figures.items()})

    def _repr_html_(self) -> str:
        """Return HTML with the pictures one below the other, at most as wide as the page."""
        return "\n".join(
            f'<img alt="{escape(name)}" style="max-width:100%;height:auto" '
            f'src="data:image/png;base64,{base64.b64encode(content).decode()}">'
            for name, content in self.png.items()
        )


def page_of(title: str, lines: Sequence[str], pictures: Pictures | None) -> str:
    """Return a run's notebook page: its name, its summary, its plots."""
    text = escape(harmless("\n".join(lines)))
    shown = pictures._repr_html_() if pictures else ""
    return (
        f"<div><strong>{escape(harmless(title))}</strong>"
        f'<pre style="white-space:pre-wrap;margin:0.5em 0">{text}</pre>{shown}</div>'
    )


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)
    return file.getvalue()

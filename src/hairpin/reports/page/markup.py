"""Values that templates write into a page, and their escaping."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hairpin.reports.formats import safe_text

_IN_JSON = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("://", ":\\/\\/"))


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        caption: its title.
        head: names of the columns; the first column names the rows.
        rows: cells.
        words: number of columns, from the left, that are words; the others are numbers.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


def escape(text: str) -> str:
    """Escape text for HTML, in an element or in quotes.

    Addresses are broken up too, so that none appears in the file.
    """
    return html.escape(safe_text(text)).replace("://", ":&#47;&#47;")


def data_script(name: str, value: Any) -> str:
    """Return a value as JSON, for scripts to read from the element called `name`.

    No text in the value can end the element.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for characters, written in _IN_JSON:
        text = text.replace(characters, written)
    return f'<script type="application/json" id="{name}">{text}</script>'


def cut(text: str, most: int) -> str:
    """Shorten the text to `most` characters, telling how many were left out."""
    if len(text) <= most:
        return text
    return f"{text[:most]}… ({len(text) - most:,} more characters)"

"""Pieces of HTML shared by several pages. All text passed in is escaped here."""

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from hairpin.reports.formats import harmless

_IN_JSON = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("://", ":\\/\\/"))


def escape(text: str) -> str:
    """Escape text for HTML, in an element or in quotes.

    Addresses are broken up too, so that none appears in the file.
    """
    return html.escape(harmless(text)).replace("://", ":&#47;&#47;")


def data_script(name: str, value: Any) -> str:
    """Return a value as JSON, for scripts to read from the element called `name`.

    No text in the value can end the element.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for characters, written in _IN_JSON:
        text = text.replace(characters, written)
    return f'<script type="application/json" id="{name}">{text}</script>'


def section(name: str, title: str, body: str) -> str:
    """Return a part of the page with a heading; empty if it has no body."""
    if not body:
        return ""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{escape(title)}</h2>\n{body}\n</section>'
    )


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Return names and values as a description list."""
    items = [f"<div><dt>{escape(name)}</dt><dd>{escape(words)}</dd></div>" for name, words in rows]
    return f'<dl class="pairs">{"".join(items)}</dl>' if items else ""


def tiles(rows: Iterable[tuple[str, str, str]]) -> str:
    """Return the most important figures: name, figure and remark."""
    items = [
        f"<div><dt>{escape(name)}</dt><dd><strong>{escape(figure)}</strong> "
        f"<span>{escape(words)}</span></dd></div>"
        for name, figure, words in rows
    ]
    return f'<dl class="tiles">{"".join(items)}</dl>'


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1
) -> str:
    """Return a table that scrolls sideways if it is wider than the page.

    Args:
        caption: its title.
        head: names of the columns; the first column names the rows.
        rows: cells.
        words: number of columns, from the left, that are words; the others are numbers.
    """
    kinds = ["" if number < words else ' class="number"' for number in range(len(head))]
    heads = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(head, kinds, strict=True)
    )
    lines = []
    for first, *rest in rows:
        cells = "".join(
            f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(rest, kinds[1:], strict=True)
        )
        lines.append(f'<tr><th scope="row"{kinds[0]}>{escape(first)}</th>{cells}</tr>')
    label = escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<caption>{label}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def details(summary: str, body: str) -> str:
    """Return content that is collapsed until a reader opens it."""
    return f"<details><summary>{escape(summary)}</summary>\n{body}\n</details>"


def note(text: str) -> str:
    """Return a paragraph in small print."""
    return f'<p class="note">{escape(text)}</p>'


def cut(text: str, most: int) -> str:
    """Shorten the text to `most` characters, telling how many were left out."""
    if len(text) <= most:
        return text
    return f"{text[:most]}… ({len(text) - most:,} more characters)"

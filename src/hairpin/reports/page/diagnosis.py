"""Diagnosis of a record in words, and generated text that is verbatim in the training text."""

from collections.abc import Sequence

from hairpin.config.settings import Config
from hairpin.reports.diagnostics import diagnose
from hairpin.reports.held import of_kind
from hairpin.reports.page.markup import cut, escape
from hairpin.reports.series import Event

_LONGEST_OVERLAP = 5_000  # characters


def diagnosis_lines(record: Sequence[Event], config: Config) -> list[tuple[str, str]]:
    """Return the noteworthy findings, each with its name; continuation rows are merged."""
    found: list[tuple[str, str]] = []
    for name, words in diagnose(record, config).lines():
        if name or not found:
            found.append((name, words))
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}; {words}")
    return found


def overlap_html(record: Sequence[Event]) -> str:
    """Return the longest text of the run's samples that is in the training text; empty: none is."""
    event = next(reversed(of_kind(record, "memorisation")), {})
    text = event.get("longest_text")
    if not text:
        return ""
    return (
        "<h3>The longest overlap with the training text</h3>"
        f'<blockquote class="overlap"><pre>{escape(cut(text, _LONGEST_OVERLAP))}</pre></blockquote>'
    )

"""What a record says about how training went, in words; and text that stands in the training text
word for word.
"""

from collections.abc import Sequence

from hairpin.analysis.diagnostics import diagnose
from hairpin.analysis.held import of_kind
from hairpin.analysis.series import Event
from hairpin.config.settings import Config
from hairpin.pages.markup import cut, escape

_LONGEST_OVERLAP = 5_000  # characters


def diagnosis_lines(record: Sequence[Event], config: Config) -> list[tuple[str, str]]:
    """What is worth a look, each with its name; a row that goes on with another stands in it."""
    found: list[tuple[str, str]] = []
    for name, words in diagnose(record, config).lines():
        if name or not found:
            found.append((name, words))
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}; {words}")
    return found


def overlap_html(record: Sequence[Event]) -> str:
    """The longest text of the run's samples that stands in the training text; empty: none does."""
    event = next(reversed(of_kind(record, "memorisation")), {})
    text = event.get("longest_text")
    if not text:
        return ""
    return (
        "<h3>The longest overlap with the training text</h3>"
        f'<blockquote class="overlap"><pre>{escape(cut(text, _LONGEST_OVERLAP))}</pre></blockquote>'
    )

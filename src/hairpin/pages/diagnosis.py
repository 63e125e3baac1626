"""What a record says about how training went, in words; and text that stands in the training text
word for word.
"""

from collections.abc import Sequence

from hairpin.analysis.formats import format_bytes, format_lr, format_norm
from hairpin.analysis.series import Event
from hairpin.analysis.summary import Summary, summarize
from hairpin.config.settings import Config
from hairpin.pages.markup import cut, escape

_LONGEST_OVERLAP = 5_000  # characters


def diagnosis_lines(record: Sequence[Event], config: Config) -> list[tuple[str, str]]:
    """What is worth a look, each with its name."""
    summary = summarize(record)
    found = [
        ("clipping", _clipping(summary, config)),
        ("update-to-weight", _ratios(record)),
        ("overfitting", _overfitting(summary)),
        ("memorisation", _memorisation(record)),
    ]
    return [(name, words) for name, words in found if words]


def overlap_html(record: Sequence[Event]) -> str:
    """The longest text of the run's samples that stands in the training text; empty: none does."""
    event = next((e for e in reversed(record) if e["event"] == "memorisation"), {})
    text = event.get("longest_text")
    if not text:
        return ""
    return (
        "<h3>The longest overlap with the training text</h3>"
        f'<blockquote class="overlap"><pre>{escape(cut(text, _LONGEST_OVERLAP))}</pre></blockquote>'
    )


def _clipping(summary: Summary, config: Config) -> str:
    share = summary.clipped_share
    if share is None:
        return ""
    if config.clip.kind == "off":
        return "off"
    words = f"{share:.1%} of updates"
    if summary.largest_grad_norm is not None:
        norm = format_norm(summary.largest_grad_norm)
        words += f"; the largest norm was {norm}, at update {summary.largest_grad_norm_update:,}"
    return words


def _ratios(record: Sequence[Event]) -> str:
    event = next((e for e in reversed(record) if e["event"] == "ratios"), None)
    if event is None:
        return ""
    parts = [f"{name} {format_lr(r)}" for name, r in event["ratios"].items() if r is not None]
    return f"at update {event['update']:,}: {', '.join(parts)}"


def _overfitting(summary: Summary) -> str:
    if summary.best is None or summary.last is None or summary.overfitting_after is None:
        return ""
    return (
        f"validation is lowest after update {summary.overfitting_after:,} and rose from there "
        "while training fell: train for less, on more text, or with dropout; the best weights "
        "are kept"
    )


def _memorisation(record: Sequence[Event]) -> str:
    event = next((e for e in reversed(record) if e["event"] == "memorisation"), None)
    if event is None or not event.get("sample_bytes"):
        return ""
    share = event["verbatim_bytes"] / event["sample_bytes"]
    words = (
        f"{share:.1%} of the samples stands word for word in the training text, in stretches of "
        f"{event['shortest_bytes']} bytes or more; the longest has {event['longest_bytes']:,} bytes"
    )
    if event.get("val_bytes"):
        words += (
            f"; of validation text it is {event['val_verbatim_bytes'] / event['val_bytes']:.1%}"
        )
    if event.get("searched_bytes", 0) < event.get("train_bytes", 0):
        searched, train = map(format_bytes, (event["searched_bytes"], event["train_bytes"]))
        words += f" ({searched} of {train} were searched)"
    return words

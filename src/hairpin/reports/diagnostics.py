"""Diagnosis of a run's settings from its record, with advice.

    clipping      its effect; which parameter dominates the norm; another threshold
    step sizes    how far an update moved the weights of each part of the network
    validation    its best evaluation, and what would help
    memorised     how much of the generated text is verbatim from the training text

docs/diagnostics.md explains each figure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hairpin.config.settings import Config
from hairpin.model.architectures import ARCHITECTURES
from hairpin.reports.clipping import Clipping, clipping_of
from hairpin.reports.formats import format_bytes, format_loss, harmless_name
from hairpin.reports.held import history, of_kind
from hairpin.reports.summary import Point, Summary, summarize

# Karpathy's rule of thumb for the change of an update over the weights, and the factor from it
# beyond which a part is reported: small models that learn well are 40 times above it after warmup.
USUAL_RATIO = 1e-3
_FAR = 100.0
_MATRICES = ("attention", "mlp")
# The samples count as memorised if their verbatim share exceeds the validation text's by this much.
_EXCESS = 0.05
_SHOWN_CHARACTERS = 200
# Text can be repeated this often as if it were new (Muennighoff et al. 2023).
_PASSES_LIKE_NEW = 4.0
_SMALL_GAP = 0.05  # of the validation loss: a smaller gap to train is no sign of memorisation


@dataclass(frozen=True)
class StepSizes:
    """RMS of an update's change over RMS of the weights, by part, in the update of index `update`
    with the learning rate `lr`.
    """

    update: int
    lr: float
    ratios: dict[str, float]

    @property
    def words(self) -> str:
        """The parts in words for people, largest first."""
        parts = sorted(self.ratios.items(), key=lambda item: -item[1])
        return ", ".join(f"{part} {_ratio_words(ratio)}" for part, ratio in parts)


@dataclass(frozen=True)
class Memorised:
    """Verbatim matches between text generated at the end and the training text, as in
    `events.Memorisation`.
    """

    shortest_bytes: int
    sample_bytes: int
    verbatim_bytes: int
    longest_bytes: int
    longest_text: str
    val_bytes: int
    val_verbatim_bytes: int
    searched_bytes: int
    train_bytes: int

    @property
    def share(self) -> float:
        """The fraction of the generated text that is verbatim."""
        return self.verbatim_bytes / self.sample_bytes if self.sample_bytes else 0.0

    @property
    def val_share(self) -> float:
        """The fraction of validation text that is verbatim, none of which was trained on."""
        return self.val_verbatim_bytes / self.val_bytes if self.val_bytes else 0.0

    @property
    def by_heart(self) -> bool:
        """True if more is verbatim than the text's own repetition explains."""
        return self.share > self.val_share + _EXCESS

    def lines(self) -> list[tuple[str, str]]:
        """Return names and words for people."""
        words = (
            f"{self.share:.0%} of the {self.sample_bytes:,} bytes it wrote at the end stand in the "
            f"training text, {self.shortest_bytes} bytes or more at a stretch; of validation text "
            f"{self.val_share:.0%}"
        )
        if self.searched_bytes < self.train_bytes:
            searched, whole = format_bytes(self.searched_bytes), format_bytes(self.train_bytes)
            words += f" ({searched} of {whole} searched)"
        if self.verbatim_bytes:
            words += ": learned by heart" if self.by_heart else ": as text repeats itself"
        if not self.longest_bytes:
            return [("by heart", words)]
        text = harmless_name(self.longest_text, _SHOWN_CHARACTERS)
        return [("by heart", words), ("", f'the longest: {self.longest_bytes:,} bytes, "{text}"')]


@dataclass(frozen=True)
class Diagnostics:
    """The diagnosis of a run's settings from its record; None: the record has no data.

    Args:
        clipping: the effect of clipping.
        after_warmup, at_end: step sizes in the first and the last update measured after warmup.
        optimizer: the optimizer that made the steps.
        best_passes: passes over the training data at the best evaluation.
        advice: advice based on the validation losses, in words.
        overfitted: validation rose after its best while train fell.
        memorised: how much was memorised.
    """

    clipping: Clipping | None = None
    after_warmup: StepSizes | None = None
    at_end: StepSizes | None = None
    optimizer: str = "adamw"
    best_passes: float | None = None
    advice: str | None = None
    overfitted: bool = False
    memorised: Memorised | None = None

    def lines(self) -> list[tuple[str, str]]:
        """Return names and words for people; a row without a name continues the one above it."""
        rows = self.clipping.lines() if self.clipping else []
        rows += self._step_rows()
        if self.advice:
            rows.append(("overfitting" if self.overfitted else "validation", self.advice))
        return rows + (self.memorised.lines() if self.memorised else [])

    def _step_rows(self) -> list[tuple[str, str]]:
        if self.after_warmup is None or self.at_end is None:
            return []
        first = f"change / weight in update {self.after_warmup.update:,}: {self.after_warmup.words}"
        rows = [("step sizes", f"{first}{self._judgement()}")]
        if self.at_end.update != self.after_warmup.update:
            rows.append(("", f"in update {self.at_end.update:,}: {self.at_end.words}"))
        return rows

    def _judgement(self) -> str:
        """Tell whether the blocks' matrices move as far as usual."""
        assert self.after_warmup
        found = [r for part, r in self.after_warmup.ratios.items() if part in _MATRICES]
        if self.optimizer != "adamw" or not found:
            return ""
        rule = f"about {USUAL_RATIO:g}, as a rule of thumb"
        if min(found) > USUAL_RATIO * _FAR:
            return f" ({rule}: far more, a lower --lr may be steadier)"
        if max(found) < USUAL_RATIO / _FAR:
            return f" ({rule}: far less, a higher --lr may learn faster)"
        return f" ({rule})"


def diagnose(record: Iterable[dict[str, Any]], config: Config) -> Diagnostics:
    """Diagnose a run from its record.

    Args:
        record: the events of a metrics.jsonl, oldest first; lines of older versions lack fields,
            and results that depend on these are None.
        config: the run's.
    """
    events = history(record)
    warmup = next((e["warmup"] for e in of_kind(events, "plan")), 0)
    sizes = [
        StepSizes(e["update"], e["lr"], e["ratios"])
        for e in events
        if e["event"] == "ratios" and e["ratios"]
    ]
    summary = summarize(events)
    passes = _passes(events, summary)
    told = of_kind(events, "memorisation")
    return Diagnostics(
        clipping=clipping_of(events, config.clip, warmup),
        after_warmup=next((s for s in sizes if s.update >= warmup), sizes[-1] if sizes else None),
        at_end=sizes[-1] if sizes else None,
        optimizer=config.optimizer.kind,
        best_passes=passes,
        advice=_advice(summary, config, passes),
        overfitted=summary.overfitting_after is not None,
        memorised=_memorised(told[-1]) if told else None,
    )


def lines_with(summary: Summary, diagnostics: Diagnostics) -> list[str]:
    """Return a summary with its diagnostics, for people: each row follows the one of its name."""
    rows: list[tuple[str, str]] = []
    further = _blocks(diagnostics.lines())
    for name, words in summary.rows():
        rows.append((name, words))
        rows += [("", more) for more in further.pop(name, [])]
    for name, block in further.items():
        rows += [(name, block[0]), *(("", more) for more in block[1:])]
    return [f"{name:<12}{words}" for name, words in rows]


def _blocks(rows: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Group words by name; those without one belong to the name above them."""
    blocks: dict[str, list[str]] = {}
    current = ""
    for name, words in rows:
        current = name or current
        blocks.setdefault(current, []).append(words)
    return blocks


def _passes(events: Sequence[dict[str, Any]], summary: Summary) -> float | None:
    """Return the passes over the training data at the best evaluation."""
    plan = next(iter(of_kind(events, "plan")), None)
    if plan is None or summary.best is None or not plan["updates"]:
        return None
    if plan.get("epochs") is None:  # it was not a finite number
        return None
    return float(plan["epochs"] * summary.best.update / plan["updates"])


def _advice(summary: Summary, config: Config, passes: float | None) -> str | None:
    """Return advice based on the validation losses; None: there are too few of them."""
    best, last, first = summary.best, summary.last, summary.first
    if best is None or last is None or first is None or first.update == last.update:
        return None
    where = "" if passes is None else f", after {_count(passes)} over the training data"
    if summary.overfitting_after is not None:
        traits = ARCHITECTURES.get(config.model.architecture)
        dropout = ", model.dropout" if traits and "dropout" in traits.options else ""
        return (
            f"`best/` has the weights of update {best.update:,}{where}; fewer passes, more text, a "
            f"smaller model{dropout} would help"
        )
    if best.update < last.update:
        return (
            f"best at update {best.update:,}{where}, and level since then; `best/` has its weights"
        )
    return _best_at_the_end(best, passes, where) if summary.status == "finished" else None


def _best_at_the_end(best: Point, passes: float | None, where: str) -> str | None:
    if best.train_loss is None or best.val_loss is None:
        return None
    if passes is not None and passes < _PASSES_LIKE_NEW:
        return f"best at the end{where}: more updates would go lower, or a larger model"
    gap = best.val_loss - best.train_loss
    if gap < _SMALL_GAP * best.val_loss:
        return f"best at the end{where}, and close to train: a larger model would go lower"
    return f"best at the end{where}, {format_loss(gap)} above train: more text would help most"


def _count(passes: float) -> str:
    return "1 pass" if f"{passes:.2g}" == "1" else f"{passes:.2g} passes"


def _memorised(event: dict[str, Any]) -> Memorised:
    return Memorised(**{key: event[key] for key in Memorised.__dataclass_fields__})


def _ratio_words(ratio: float) -> str:
    """Format a ratio for people: "1.2e-3", "0.9"."""
    if ratio >= 0.1 or ratio == 0:
        return f"{ratio:.2g}"
    mantissa, exponent = f"{ratio:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"

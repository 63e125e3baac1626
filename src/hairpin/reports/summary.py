"""Summary of a run: the few numbers of its record that people ask for first."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from hairpin.reports.event_text import TO_MEET_THE_BUDGET, length_change
from hairpin.reports.formats import (
    format_count,
    format_duration,
    format_loss,
    format_norm,
    format_updates,
)
from hairpin.reports.history import Updates, history, of_kind

# A rise of the validation loss by less than this share of the best is not reported.
OVERFITTING_RISE = 0.005


@dataclass(frozen=True)
class EvaluationPoint:
    """An evaluation: losses in nats per target after `update` updates; None: not finite, or not
    measured. For a mixture `sources` has the validation loss and bits per byte of each.
    """

    update: int
    train_loss: float | None
    val_loss: float | None
    val_bits_per_byte: float | None = None
    val_accuracy: float | None = None
    sources: tuple[tuple[str, float | None, float | None], ...] = ()


@dataclass(frozen=True)
class Summary:
    """The outcome of a run. None: the record does not say, or the number was not finite.

    Args:
        status: "finished", "interrupted", "failed", or "unfinished" if the last process wrote no
            end: it is still running, or was killed.
        reason: why it failed.
        parameters: of the model.
        updates: updates completed; `planned_updates`: the length of the run.
        tokens: total of tokens trained on.
        seconds: total time of the processes that ended; if a resume removed some of their lines, at
            least the time of all updates.
        tokens_per_second: the median over updates.
        first, last, best: evaluations; `best` has the lowest validation loss.
        last_train_loss: the loss of the last update, on its own batch.
        clipped_updates: updates whose gradients were clipped.
        skipped_updates: updates that the guard skipped; `spikes`: those far above the usual that
            were only recorded; `rewinds`: how often the run went back to a checkpoint.
        overflows: updates that were skipped because their gradients overflowed float16.
        largest_grad_norm: before clipping, at the update of index `largest_grad_norm_update`.
        correction: the number of updates before and after it was corrected to meet the time budget.
        extensions: for each extension, the number of updates before and after it, and the policy if
            one was named.
        overfitting_after: the best update, if validation rose after it while train fell.
        counted: the unit of `tokens`: tokens, or a classifier's examples.
    """

    status: str = "unfinished"
    reason: str | None = None
    parameters: int | None = None
    updates: int = 0
    planned_updates: int | None = None
    tokens: int = 0
    seconds: float | None = None
    tokens_per_second: float | None = None
    first: EvaluationPoint | None = None
    last: EvaluationPoint | None = None
    best: EvaluationPoint | None = None
    last_train_loss: float | None = None
    clipped_updates: int = 0
    skipped_updates: int = 0
    spikes: int = 0
    rewinds: int = 0
    overflows: int = 0
    largest_grad_norm: float | None = None
    largest_grad_norm_update: int | None = None
    correction: tuple[int, int] | None = None
    extensions: tuple[tuple[int, int, str | None], ...] = ()
    overfitting_after: int | None = None
    counted: str = "tokens"

    @property
    def clipped_share(self) -> float | None:
        """The fraction of updates whose gradients were clipped; None without any update."""
        return self.clipped_updates / self.updates if self.updates else None

    def lines(self) -> list[str]:
        """Return the summary for people: aligned lines, each beginning with its name."""
        return [f"{name:<12}{words}" for name, words in self.rows()]

    def rows(self) -> list[tuple[str, str]]:
        """Return the summary for people: names and words."""
        rows = [("status", self._status_words()), ("length", self._length_words())]
        rows += self._validation_rows()
        if self.last_train_loss is not None:
            rows.append(
                ("training", f"loss {format_loss(self.last_train_loss)} at the last update")
            )
        if self.updates:
            rows.append(("clipping", self._clipping_words()))
        if self.skipped_updates or self.spikes or self.rewinds or self.overflows:
            rows.append(("incidents", self._incident_words()))
        if self.correction is not None:
            planned, updates = self.correction
            words = length_change(planned, updates) + TO_MEET_THE_BUDGET
            rows.append(("corrected", words))
        for planned, updates, policy in self.extensions:
            words = length_change(planned, updates)
            rows.append(("extended", words + (f", {policy}" if policy else "")))
        if self.overfitting_after is not None:
            rows.append(("overfitting", self._overfitting_words()))
        return rows

    def _status_words(self) -> str:
        return self.status if self.reason is None else f"{self.status}: {self.reason}"

    def _length_words(self) -> str:
        words = format_updates(self.updates)
        if self.planned_updates is not None and self.planned_updates != self.updates:
            words = f"{self.updates:,} of {format_updates(self.planned_updates)}"
        words += f", {format_count(self.tokens)} {self.counted}"
        if self.seconds is not None:
            words += f" in {format_duration(self.seconds)}"
        if self.tokens_per_second is not None:
            words += f" ({self.tokens_per_second:,.0f} {self.counted}/s while training)"
        return words

    def _validation_rows(self) -> list[tuple[str, str]]:
        if self.first is None or self.last is None:
            return [("validation", "never evaluated")]
        if self.best is None:
            return [("validation", "no finite loss")]
        rows = [("best", f"validation {_losses(self.best)} at update {self.best.update:,}")]
        if self.last.update != self.best.update:
            rows.append(("last", f"validation {_losses(self.last)} at update {self.last.update:,}"))
        if self.first.update not in (self.best.update, self.last.update):
            rows.append(
                ("first", f"validation {_losses(self.first)} at update {self.first.update:,}")
            )
        return rows + self._source_rows(self.best)

    def _source_rows(self, best: EvaluationPoint) -> list[tuple[str, str]]:
        each = [EvaluationPoint(best.update, None, loss, bits) for _, loss, bits in best.sources]
        names = [name for name, _, _ in best.sources]
        width = max(map(len, names), default=0)
        return [
            (
                "" if at else "sources",
                f"{name:<{width}}  {_losses(point)} at update {best.update:,}",
            )
            for at, (name, point) in enumerate(zip(names, each, strict=True))
        ]

    def _clipping_words(self) -> str:
        words = f"{self.clipped_updates / self.updates:.1%} of updates clipped"
        if self.largest_grad_norm is not None:
            norm = format_norm(self.largest_grad_norm)
            words += f"; largest gradient norm {norm}, at update {self.largest_grad_norm_update:,}"
        return words

    def _incident_words(self) -> str:
        counts = {
            "updates skipped": self.skipped_updates,
            "spikes": self.spikes,
            "rewinds": self.rewinds,
            "float16 overflows": self.overflows,
        }
        return ", ".join(f"{what}: {count:,}" for what, count in counts.items() if count)

    def _overfitting_words(self) -> str:
        assert self.best is not None and self.last is not None
        return (
            f"after update {self.overfitting_after:,} validation rose from "
            f"{format_loss(self.best.val_loss)} to {format_loss(self.last.val_loss)} while train "
            f"fell from {format_loss(self.best.train_loss)} to {format_loss(self.last.train_loss)}"
        )


def _losses(point: EvaluationPoint) -> str:
    if point.val_accuracy is not None:
        return f"{point.val_accuracy:.1%} accuracy, {format_loss(point.val_loss)} nats per example"
    words = f"{format_loss(point.val_loss)} nats per token"
    if point.val_bits_per_byte is not None:
        words += f", {point.val_bits_per_byte:.3f} bits per byte"
    return words


def summarize(record: Iterable[dict[str, Any]]) -> Summary:
    """Summarize the record of a run, which may have been resumed any number of times.

    Args:
        record: the events of a metrics.jsonl, oldest first.
    """
    events = history(record)
    updates, rest = events.updates, events.others
    points = [_point(event) for event in of_kind(rest, "evaluation")]
    best = _best(points)
    ends = of_kind(rest, "end")
    processes = of_kind(rest, "start", "resume", "end")
    ended = bool(processes) and processes[-1]["event"] == "end"
    tokens, rates = updates.column("tokens"), updates.column("tokens_per_second")
    norms = updates.column("grad_norm")
    finite = (at for at, norm in enumerate(norms) if math.isfinite(norm))
    largest = max(finite, key=norms.__getitem__, default=None)
    speeds = [rate for rate in rates if math.isfinite(rate)]
    return Summary(
        status=ends[-1]["status"] if ended else "unfinished",
        reason=ends[-1].get("reason") if ended else None,
        parameters=next((e["parameters"] for e in of_kind(rest, "plan")), None),
        updates=updates[-1]["update"] + 1 if updates else 0,
        planned_updates=_planned_updates(rest),
        tokens=_total(tokens),
        seconds=_seconds(ends, tokens, rates) if ends else None,
        tokens_per_second=statistics.median(speeds) if speeds else None,
        first=points[0] if points else None,
        last=points[-1] if points else None,
        best=best,
        last_train_loss=_number(updates[-1], "loss") if updates else None,
        clipped_updates=_times(updates, "clipped"),
        skipped_updates=_times(updates, "skipped"),
        spikes=_count(rest, "spike"),
        rewinds=_count(rest, "rewind"),
        overflows=_times(updates, "overflow"),
        largest_grad_norm=None if largest is None else norms[largest],
        largest_grad_norm_update=None if largest is None else updates[largest]["update"],
        correction=_correction(rest),
        extensions=tuple(
            (e["planned_updates"], e["updates"], e.get("policy")) for e in of_kind(rest, "extend")
        ),
        overfitting_after=best.update if best and _overfitted(best, points[-1]) else None,
        counted="examples" if any(event.get("labels") for event in rest) else "tokens",
    )


def best_evaluation(events: Iterable[dict[str, Any]]) -> EvaluationPoint | None:
    """Return the evaluation with the lowest validation loss of a record's valid events."""
    return _best([_point(event) for event in of_kind(events, "evaluation")])


def _best(points: Sequence[EvaluationPoint]) -> EvaluationPoint | None:
    return min((p for p in points if p.val_loss is not None), key=_val_loss, default=None)


def _overfitted(best: EvaluationPoint, last: EvaluationPoint) -> bool:
    """Return True if validation rose from `best` to `last` while the training loss fell."""
    losses = (best.val_loss, last.val_loss, best.train_loss, last.train_loss)
    if any(loss is None for loss in losses):
        return False
    best_val, last_val, best_train, last_train = (loss for loss in losses if loss is not None)
    return last_val > best_val * (1 + OVERFITTING_RISE) and last_train < best_train


def _seconds(
    ends: Sequence[dict[str, Any]], tokens: Sequence[float], rates: Sequence[float]
) -> float:
    trained = math.fsum(
        count / rate
        for count, rate in zip(tokens, rates, strict=True)
        if math.isfinite(rate) and rate > 0
    )
    ended = math.fsum(end["seconds"] for end in ends if _finite(end.get("seconds")))
    return max(ended, trained)


def _total(tokens: Sequence[float]) -> int:
    total = sum(tokens)
    if math.isnan(total):
        raise KeyError("tokens")
    return int(total)


def _times(updates: Updates, key: str) -> int:
    """Count the updates in which a flag is set."""
    return sum(value == 1 for value in updates.column(key))


def _planned_updates(events: Sequence[dict[str, Any]]) -> int | None:
    planned = [e["updates"] for e in events if e["event"] in ("plan", "correction", "extend")]
    return planned[-1] if planned else None


def _count(events: Sequence[dict[str, Any]], kind: str) -> int:
    return sum(1 for event in events if event["event"] == kind)


def _correction(events: Sequence[dict[str, Any]]) -> tuple[int, int] | None:
    found = [e for e in events if e["event"] == "correction"]
    return (found[0]["planned_updates"], found[-1]["updates"]) if found else None


def _point(event: dict[str, Any]) -> EvaluationPoint:
    return EvaluationPoint(
        event["update"],
        _number(event, "train_loss"),
        _number(event, "val_loss"),
        _number(event, "val_bits_per_byte"),
        _number(event, "val_accuracy"),
        tuple(
            (name, _number(each, "val_loss"), _number(each, "val_bits_per_byte"))
            for name, each in (event.get("sources") or {}).items()
        ),
    )


def _number(event: dict[str, Any], key: str) -> float | None:
    value = event.get(key)
    return float(value) if _finite(value) else None


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _val_loss(point: EvaluationPoint) -> float:
    assert point.val_loss is not None
    return point.val_loss

"""Outcome of one run of an experiment: from the record of one of ours, or from another trainer's
CSV or JSONL file of losses.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hairpin.config.settings import Finetune
from hairpin.errors import RunError
from hairpin.reports.history import history
from hairpin.reports.summary import EvaluationPoint, Summary, summarize
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import read_record
from hairpin.system.access import is_there, reading

BITS, NATS, PER_LABEL = "bits per byte", "nats per token", "nats per example"
# Other trainers' names for the validation loss, in nats per token; and for bits per byte.
_LOSS_NAMES = ("val_loss", "eval_loss", "validation_loss", "valid_loss", "test_loss")
_BITS_NAMES = ("val_bits_per_byte", "bits_per_byte", "val_bpb", "bpb")
# The kind of prediction, in words; another trainer's losses do not say of which text they are.
LABELS, TEXT, SOME_TEXT = "labels", "text", "text of another trainer"
_MAX_LABELS = 8  # in a line


@dataclass(frozen=True)
class Outcome:
    """Outcome of one run. None: not known.

    Args:
        name: the run's folder, or the file.
        seed, peak_lr: what it was trained with.
        final, best: unit → validation loss at the end, and the lowest; empty where it diverged.
        diverged: True if its loss never recovered, or was not finite.
        is_over: True if it finished or diverged.
        tokens_per_second: the median over updates.
        peak_bytes: peak memory of its process.
        clipped_share: share of updates that were clipped.
        unstable_updates: spikes, skipped updates and rewinds.
        seconds: duration of the run.
        curve: (tokens, unit → loss) of each evaluation.
        pairs_by: facts that another run must share to be its pair, besides the seed.
        loss_of: the kind of prediction, in words; losses of different kinds are not comparable.
    """

    name: str
    seed: int | None
    peak_lr: float | None
    final: Mapping[str, float]
    best: Mapping[str, float]
    diverged: bool = False
    is_over: bool = True
    tokens_per_second: float | None = None
    peak_bytes: int | None = None
    clipped_share: float | None = None
    unstable_updates: int = 0
    seconds: float | None = None
    curve: tuple[tuple[int, Mapping[str, float]], ...] = ()
    pairs_by: tuple[Any, ...] | None = None
    loss_of: str = SOME_TEXT

    @property
    def is_of_labels(self) -> bool:
        """True if labels are predicted, not text."""
        return self.loss_of.startswith(LABELS)


def outcome_of_run(run: RunDirectory) -> Outcome:
    """Return the outcome of a run, which may have no results yet.

    Raises:
        RunError: its record is damaged.
    """
    config = run.read_config()
    events = history(read_record(run.metrics)) if is_there(run.metrics) else []
    trial = _trial_of(run)
    summary = summarize(events)
    diverged = trial.get("state") == "diverged" or _has_collapsed(summary)
    nats = PER_LABEL if config.finetune.kind == "classify" else NATS
    curve = tuple(
        (int(event["tokens"]), _losses(event.get("val_loss"), event.get("val_bits_per_byte"), nats))
        for event in events
        if event["event"] == "evaluation"
    )
    data, train = config.data, config.train
    return Outcome(
        name=str(run.path),
        seed=train.seed,
        peak_lr=config.schedule.peak_lr,
        final={} if diverged else _losses_at(summary.last, nats),
        best={} if diverged else _losses_at(summary.best, nats),
        diverged=diverged,
        is_over=summary.status == "finished" or bool(trial),
        tokens_per_second=summary.tokens_per_second,
        peak_bytes=trial.get("peak_bytes"),
        clipped_share=summary.clipped_share,
        unstable_updates=summary.spikes + summary.skipped_updates + summary.rewinds,
        seconds=summary.seconds,
        curve=curve,
        pairs_by=(data.hash, data.split, data.validation_fraction),
        loss_of=_predicted(config.finetune),
    )


def _predicted(finetune: Finetune) -> str:
    """Return what a run learns to predict, in words."""
    if finetune.kind == "classify":
        labels = [repr(label) for label in finetune.labels[:_MAX_LABELS]]
        more = len(finetune.labels) - len(labels)
        return f"{LABELS} ({', '.join(labels)}{f' and {more} more' if more else ''})"
    if finetune.kind == "instruct":
        return "responses" if finetune.mask_prompt else "instructions and responses"
    return TEXT


def outcome_of_file(path: Path) -> Outcome:
    """Return the outcome of another trainer's run: a CSV or JSONL file with a line for each
    evaluation, and `val_loss` (nats per token) or `val_bits_per_byte` in it. It diverged if its
    last loss is not finite.

    Raises:
        RunError: there is no such file, or no loss in it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            rows: list[Any] = list(csv.DictReader(text.splitlines()))
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except FileNotFoundError:
        raise RunError(f"{path}: no such loss file") from None
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise RunError(f"{path}: not a CSV or JSONL file of losses: {error}") from None
    rows = [_with_plain_names(row) for row in rows if isinstance(row, dict)]
    columns = {BITS: _column_of(rows, _BITS_NAMES), NATS: _column_of(rows, _LOSS_NAMES)}
    known = {unit: column for unit, column in columns.items() if column is not None}
    if not known:
        raise RunError(
            f"{path}: no validation losses in it; it needs a column val_loss (nats per token) or "
            "val_bits_per_byte"
        )
    curve = tuple(
        (_whole(row), losses)
        for row in rows
        if (losses := {u: n for u, c in known.items() if (n := _number(row.get(c))) is not None})
    )
    if any(_ends_without_finite_loss(rows, column) for column in known.values()):
        return Outcome(str(path), None, None, {}, {}, diverged=True, curve=curve)
    final = curve[-1][1]
    best = {unit: min(losses.get(unit, math.inf) for _, losses in curve) for unit in final}
    return Outcome(str(path), None, None, final, best, curve=curve)


def _with_plain_names(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key).lower().replace("/", "_").strip(): value for key, value in row.items()}


def _column_of(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> str | None:
    """Return the first of the names with any value; numbers before words."""
    there = [name for name in names if any(not _is_empty(row.get(name)) for row in rows)]
    with_numbers = [n for n in there if any(_number(row.get(n)) is not None for row in rows)]
    return next(iter(with_numbers or there), None)


def _ends_without_finite_loss(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Return True if the last evaluation has no finite loss: NaN, infinite, words; or empty, since
    programs write NaN so. Between evaluations trainers write lines without a validation loss, and
    a line with another finite loss is one of those.
    """
    evaluated = [row for row in rows if not _is_empty(row.get(column))]
    if not evaluated or _number(evaluated[-1].get(column)) is None:
        return True
    at = next(n for n in range(len(rows), 0, -1) if rows[n - 1] is evaluated[-1])
    is_sparse = any(_is_empty(row.get(column)) for row in rows[:at])
    filled = {name for row in evaluated for name, value in row.items() if not _is_empty(value)}
    return not is_sparse and any(
        column in row
        and {n for n, value in row.items() if not _is_empty(value)} <= filled
        and not any("loss" in name and _number(value) is not None for name, value in row.items())
        for row in rows[at:]
    )


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _trial_of(run: RunDirectory) -> dict[str, Any]:
    path = run.path / "trial.json"
    try:
        with reading(path):
            found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _has_collapsed(summary: Summary) -> bool:
    """Return True if the run learned nothing, or lost what it had learned."""
    if summary.first is None or summary.last is None or summary.status == "unfinished":
        return False
    if summary.last.val_loss is None:
        return True
    first = summary.first.val_loss
    return summary.updates > 0 and first is not None and summary.last.val_loss >= first


def _losses_at(point: EvaluationPoint | None, nats: str) -> dict[str, float]:
    return {} if point is None else _losses(point.val_loss, point.val_bits_per_byte, nats)


def _losses(loss: float | None, bits: float | None, nats: str) -> dict[str, float]:
    """Return unit → loss for the known units; `nats` is the unit of the first."""
    values = {BITS: bits, nats: loss}
    return {unit: float(value) for unit, value in values.items() if value is not None}


def _whole(row: Mapping[str, Any]) -> int:
    numbers = (_number(row.get(n)) for n in ("tokens", "step", "update", "iter", "iteration"))
    return int(next((number for number in numbers if number is not None), 0))


def _number(value: Any) -> float | None:
    """Return a value as a finite number; None if it is not one."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None

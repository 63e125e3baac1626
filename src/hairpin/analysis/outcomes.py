"""What came of one run of an experiment: of ours from its record, of another trainer's from a CSV
or JSONL file of its losses.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hairpin.analysis.held import history
from hairpin.analysis.summary import Point, Summary, summarize
from hairpin.errors import RunError
from hairpin.reading import is_there, reading
from hairpin.runs.directory import RunDirectory
from hairpin.runs.metrics import read_record

BITS, NATS = "bits per byte", "nats per token"
# What other trainers call the validation loss, in nats per token; and bits per byte.
_LOSS_NAMES = ("val_loss", "eval_loss", "validation_loss", "valid_loss", "test_loss")
_BITS_NAMES = ("val_bits_per_byte", "bits_per_byte", "val_bpb", "bpb")


@dataclass(frozen=True)
class Outcome:
    """What came of one run. None: not known.

    Args:
        name: the run's folder, or the file.
        seed, peak_lr: what it was trained with.
        final, best: unit → validation loss at the end, and the lowest; empty where it diverged.
        diverged: whether its loss left for good, or was not finite.
        is_over: whether it came to its end, or diverged.
        tokens_per_second: the median over updates.
        peak_bytes: the most memory that its process had.
        clipped_share: of updates.
        unstable_updates: spikes, skipped updates and rewinds.
        seconds: of the run.
        curve: (tokens, unit → loss) of each evaluation.
        pairs_by: what another run must have the same of to be its pair, beside the seed.
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


def outcome_of_run(run: RunDirectory) -> Outcome:
    """What came of a run, of which there may be nothing yet.

    Raises:
        RunError: its record is damaged.
    """
    config = run.read_config()
    events = history(read_record(run.metrics)) if is_there(run.metrics) else []
    trial = _trial_of(run)
    summary = summarize(events)
    diverged = trial.get("state") == "diverged" or _is_lost(summary)
    curve = tuple(
        (int(event["tokens"]), _losses_of_event(event))
        for event in events
        if event["event"] == "evaluation"
    )
    data, train = config.data, config.train
    return Outcome(
        name=str(run.path),
        seed=train.seed,
        peak_lr=config.schedule.peak_lr,
        final={} if diverged else _losses(summary.last),
        best={} if diverged else _losses(summary.best),
        diverged=diverged,
        is_over=summary.status == "finished" or bool(trial),
        tokens_per_second=summary.tokens_per_second,
        peak_bytes=trial.get("peak_bytes"),
        clipped_share=summary.clipped_share,
        unstable_updates=summary.spikes + summary.skipped_updates + summary.rewinds,
        seconds=summary.seconds,
        curve=curve,
        pairs_by=(data.hash, data.split, data.validation_fraction),
    )


def outcome_of_file(path: Path) -> Outcome:
    """What came of another trainer's run: a CSV or JSONL file with a line for each evaluation, and
    `val_loss` (nats per token) or `val_bits_per_byte` in it.

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
        raise RunError(f"{path}: no such file of losses") from None
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise RunError(f"{path}: not a CSV or JSONL file of losses: {error}") from None
    rows = [row for row in rows if isinstance(row, dict)]
    curve = [(_whole(row), losses) for row in rows if (losses := _losses_of_row(row))]
    if not curve:
        raise RunError(
            f"{path}: no validation losses in it; it needs a column val_loss (nats per token) or "
            "val_bits_per_byte"
        )
    units = [unit for unit in (BITS, NATS) if unit in curve[-1][1]]
    best = {unit: min(losses.get(unit, math.inf) for _, losses in curve) for unit in units}
    return Outcome(str(path), None, None, curve[-1][1], best, curve=tuple(curve))


def _trial_of(run: RunDirectory) -> dict[str, Any]:
    path = run.path / "trial.json"
    try:
        with reading(path):
            found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_lost(summary: Summary) -> bool:
    """Whether the run learned nothing, or unlearned it."""
    if summary.first is None or summary.last is None or summary.status == "unfinished":
        return False
    if summary.last.val_loss is None:
        return True
    first = summary.first.val_loss
    return summary.updates > 0 and first is not None and summary.last.val_loss >= first


def _losses(point: Point | None) -> dict[str, float]:
    if point is None:
        return {}
    values = {BITS: point.val_bits_per_byte, NATS: point.val_loss}
    return {unit: value for unit, value in values.items() if value is not None}


def _losses_of_event(event: Mapping[str, Any]) -> dict[str, float]:
    values = {BITS: event.get("val_bits_per_byte"), NATS: event.get("val_loss")}
    return {unit: float(value) for unit, value in values.items() if value is not None}


def _losses_of_row(row: Mapping[str, Any]) -> dict[str, float]:
    found = {BITS: _first_number(row, _BITS_NAMES), NATS: _first_number(row, _LOSS_NAMES)}
    return {unit: value for unit, value in found.items() if value is not None}


def _whole(row: Mapping[str, Any]) -> int:
    return int(_first_number(row, ("tokens", "step", "update", "iter", "iteration")) or 0)


def _first_number(row: Mapping[str, Any], names: Iterable[str]) -> float | None:
    plain = {str(key).lower().replace("/", "_").strip(): value for key, value in row.items()}
    for name in names:
        try:
            number = float(plain[name])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(number):
            return number
    return None

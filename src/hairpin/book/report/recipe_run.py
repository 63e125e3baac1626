"""A run of hairpin's own loop, to compare with the listings."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hairpin.errors import RunError
from hairpin.reports.history import history
from hairpin.reports.summary import summarize
from hairpin.runs.folder import RunDirectory, open_run
from hairpin.runs.record import read_record
from hairpin.system.shell import command

RECIPE = "book"


@dataclass(frozen=True)
class RecipeRun:
    """The data of such a run that the page shows.

    Args:
        path: its folder.
        text: its training text, in a few words.
        updates: numbers of updates at evaluations; train, val: the losses there, nats per token.
        length: updates completed.
        seconds: total wall time of its processes; None: none has ended.
        update_seconds: total time of its updates, without evaluations, samples and saving.
        tokens_per_second: the median over updates.
        environment: the content of its environment.json.
    """

    path: Path
    text: str
    updates: list[int]
    train: list[float]
    val: list[float]
    length: int
    seconds: float | None
    update_seconds: float
    tokens_per_second: float | None
    environment: dict[str, Any]


def read_recipe_run(path: Path) -> RecipeRun:
    """Read the run at `path`.

    Raises:
        RunError: it is not a run, has another recipe, or was never evaluated.
    """
    run = open_run(path)
    recipe = run.read_config().recipe
    if recipe != RECIPE:
        raise RunError(
            f"{path}: made by the recipe {recipe}, so its losses are not comparable; make one "
            f"with `{command('train', '--recipe', RECIPE)}`"
        )
    record = list(read_record(run.metrics))
    points = [event for event in history(record) if event["event"] == "evaluation"]
    finite = [p for p in points if None not in (p.get("train_loss"), p.get("val_loss"))]
    if not finite:
        raise RunError(f"{path}: was never evaluated; resume it with `{command('resume', path)}`")
    summary = summarize(record)
    return RecipeRun(
        path=path,
        text=next((event["text"] for event in record if event["event"] == "plan"), "unknown"),
        updates=[int(point["update"]) for point in finite],
        train=[float(point["train_loss"]) for point in finite],
        val=[float(point["val_loss"]) for point in finite],
        length=summary.updates,
        seconds=summary.seconds,
        update_seconds=math.fsum(
            event["tokens"] / event["tokens_per_second"]
            for event in history(record)
            if event["event"] == "update" and event.get("tokens_per_second")
        ),
        tokens_per_second=summary.tokens_per_second,
        environment=_environment(run),
    )


def _environment(run: RunDirectory) -> dict[str, Any]:
    try:
        facts = json.loads(run.environment.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}

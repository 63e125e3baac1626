"""Which size, context, vocabulary, batch and learning rate do best in a given time?

Each candidate's update is timed first, with nothing else running; then each is trained for the
number of updates that fits the time, which takes as long as it takes: the result does not depend on
what else the machine does meanwhile.

    python -m benchmarks.budget_choices --seconds 60 --corpus stdlib model.size=tiny,mini,small

Every argument is `key=value,value…`; all combinations are tried. Results are appended to a JSONL.
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

import hairpin
from hairpin.config.load import build_config, parse_override
from hairpin.config.settings import Config
from hairpin.data.batches import Batches
from hairpin.model.gpt import GPT
from hairpin.planning.measure.fill_run import fill_run
from hairpin.planning.measure.probe import measure_update

VALIDATION_TOKENS = 65_536


def main() -> None:
    """Time, train and compare all combinations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="training time to simulate")
    parser.add_argument("--corpus", default="stdlib")
    parser.add_argument("--text", help="a file or folder in place of the corpus")
    parser.add_argument("--results", type=Path, default=Path("budget-choices.jsonl"))
    parser.add_argument("grid", nargs="*", metavar="key=value,value")
    arguments = parser.parse_args()
    text = [arguments.text] if arguments.text else []
    base = {"data.texts": text} if text else {"data.corpus": arguments.corpus}
    candidates = [dict(point) for point in itertools.product(*map(_axis, arguments.grid))]
    timed = [
        (values, *time_candidate({**base, **values}))
        for values in track(candidates, "timing", console=Console(stderr=True))
    ]
    for values, config, seconds in timed:
        updates = max(20, int(arguments.seconds / seconds))
        bits = train_candidate(config, updates)
        row = {
            "text": arguments.text or arguments.corpus,
            "seconds": arguments.seconds,
            **values,
            "seconds_per_update": round(seconds, 4),
            "updates": updates,
            "val_bits_per_byte": round(bits, 4),
        }
        print(json.dumps(row), flush=True)
        with arguments.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def time_candidate(values: dict[str, Any]) -> tuple[Config, float]:
    """The candidate's filled-in config, and the seconds of one update on this machine."""
    asked = build_config(flags={**values, "train.updates": 1000, "schedule.warmup_updates": 0})
    filled = fill_run(asked, None, hairpin.Quiet())
    batches = Batches(filled.prepared.train, filled.shape.context, 0)
    speed = measure_update(filled.config, GPT(filled.shape), batches, 3.0)
    return asked, speed.seconds_per_update


def train_candidate(config: Config, updates: int) -> float:
    """Validation bits per byte after so many updates."""
    flags = config.model_dump(exclude_none=True)
    dotted = {
        f"{table}.{key}": value
        for table, values in flags.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if key in getattr(config, table).model_fields_set
    }
    dotted |= {
        "recipe": config.recipe,  # else it would be the default one
        "train.updates": updates,
        "schedule.warmup_updates": max(1, round(0.05 * updates)),
        "evaluate.every_updates": updates,
        "evaluate.tokens": VALIDATION_TOKENS,
        "evaluate.train_tokens": 1024,
        "evaluate.sample_tokens": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        run = hairpin.train(out=Path(folder) / "run", settings=dotted, watcher=hairpin.Quiet())
        last = run.summary().last
    assert last and last.val_bits_per_byte
    return last.val_bits_per_byte


def _axis(argument: str) -> list[tuple[str, Any]]:
    key, _, values = argument.partition("=")
    return [(key, parse_override(f"{key}={value}")[1]) for value in values.split(",")]


if __name__ == "__main__":
    main()

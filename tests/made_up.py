"""Runs that never happened: a folder with a config and a record that has whatever a test wants."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hairpin.config.load import build_config
from hairpin.run import Run
from hairpin.runs.folder import RunDirectory

Event = dict[str, Any]

HOSTILE = (
    "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>"
    '<svg onload=window.hurt=3> javascript:window.hurt=4 <a href="javascript:hurt=5">x</a> '
    "--><!-- ]]> &lt;b&gt; http://example.org/ \u202e \u0000 {title} ${hurt} `x`"
)


def made_up_run(folder: Path, record: list[Event], **settings: Any) -> Run:
    """A run folder with this record; `train__updates=9` sets `train.updates`."""
    flags = {key.replace("__", "."): value for key, value in settings.items()}
    defaults: dict[str, Any] = {
        "recipe": "gpt2",
        "data.corpus": "stdlib",
        "data.hash": "ab" * 32,
        "train.updates": 300,
        "train.tokens_per_update": 64,
        "schedule.kind": "wsd",
        "schedule.peak_lr": 1e-3,
    }
    folder.mkdir(parents=True)
    directory = RunDirectory(folder)
    directory.write_config(build_config(flags=defaults | flags))
    directory.write_environment({"command": ["hairpin", "train", HOSTILE], "cores": 2})
    lines = [json.dumps(event) + "\n" for event in record]
    directory.metrics.write_text("".join(lines), encoding="utf-8")
    return Run(directory)


def training(
    updates: int = 300, seed: int = 0, every: int = 50, planned: int | None = None, low: float = 2.0
) -> list[Event]:
    """The record of an uneventful run without an end; its losses fall from 8 towards `low`."""
    draw = random.Random(seed)
    planned = planned or updates

    def happen() -> Iterator[Event]:
        yield {"event": "start", "time": 1.7e9, "version": "0.1.0", "command": ["hairpin"]} | {
            "asked": {"schedule": {"kind": "wsd"}, "data": {"corpus": "stdlib"}}
        }
        yield {
            "event": "plan",
            "text": "made up",
            "parameters": 12_345,
            "updates": planned,
            "warmup": 15,
            "tokens_per_update": 64,
            "train_tokens": 10_000,
            "val_tokens": 900,
            "epochs": 1.92,
            "seconds": 30.0,
            "ends": 1.7e9 + 40,
        }
        for u in range(updates + 1):
            loss = low + (8 - low) * math.exp(-6 * u / planned)
            if u % every == 0:
                yield {"event": "evaluation", "update": u, "tokens": 64 * u} | {
                    "train_loss": loss - 0.05,
                    "val_loss": loss + 0.1,
                    "val_bits_per_byte": (loss + 0.1) / 3,
                }
                yield {"event": "sample", "update": u, "prompt": "Once ", "text": f"text {u}"}
                yield {"event": "checkpoint", "update": u, "best": True}
            if u == updates:
                break
            norm = 3 * math.exp(-4 * u / planned) * draw.uniform(0.7, 1.5)
            yield {"event": "update", "update": u, "lr": 1e-3 * min(1, (u + 1) / 15)} | {
                "loss": loss + draw.uniform(-0.3, 0.3),
                "grad_norm": norm,
                "clipped": norm > 1,
                "tokens": 64,
                "tokens_per_second": draw.uniform(900, 1100),
            }
            if u % every == 0:
                ratios = {"embedding": 2e-3, "attention": 1e-3, "mlp": 8e-4, "head": 3e-3}
                yield {"event": "ratios", "update": u, "lr": 1e-3} | {
                    "ratios": {part: r * math.exp(-u / planned) for part, r in ratios.items()}
                }

    return list(happen())


def end(updates: int, status: str = "finished", **more: Any) -> Event:
    """How a process ends."""
    return {"event": "end", "update": updates, "status": status, "seconds": 42.0, **more}


def incident(kind: str, update: int, **more: Any) -> Event:
    """An update that went wrong."""
    place = {"parameter": "blocks.0.mlp.up.weight", "position": 8 * update, "samples": 8}
    return {"event": kind, "update": update, "loss": 9.5, "grad_norm": 77.0, **place} | {
        "excerpt": HOSTILE,
        **more,
    }


MEMORISATION: Event = {
    "event": "memorisation",
    "update": 300,
    "shortest_bytes": 50,
    "sample_bytes": 2000,
    "verbatim_bytes": 500,
    "longest_bytes": 120,
    "longest_text": "to be or not " + HOSTILE,
    "val_bytes": 4000,
    "val_verbatim_bytes": 100,
    "searched_bytes": 9000,
    "train_bytes": 30_000,
}


def eventful() -> list[Event]:
    """A run that has had about everything, and is finished."""
    record = training(200, planned=300)
    record[30]["loss"] = None
    record[31]["loss"] = record[31]["grad_norm"] = None
    record += [incident("spike", 120), incident("skip", 150, reason="non-finite")]
    record += [incident("rewind", 180, reason="spike", to_update=150, skipped_samples=240)]
    record.append(end(200, "interrupted", reason="stopped by SIGINT"))
    record.append({"event": "resume", "update": 150, "time": 1.7e9 + 900, "updates": 300})
    more = [e for e in training(300) if e.get("update", -1) >= 150 and e["event"] != "plan"]
    record += [e for e in more if not (e["event"] != "update" and e["update"] == 150)]
    record.append({"event": "correction", "update": 200, "planned_updates": 280, "updates": 300})
    samples = [event for event in record if event["event"] == "sample"]
    samples[1]["text"] = samples[-1]["prompt"] = HOSTILE
    return [*record, MEMORISATION, end(300)]

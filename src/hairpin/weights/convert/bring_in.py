"""Import of a transformers model as a run, to sample, evaluate or train further."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from hairpin.checkpoints.manifest import write_manifest
from hairpin.checkpoints.tensors import write_tensors
from hairpin.config.load import build_config
from hairpin.config.settings import Config
from hairpin.errors import RunError, shown_command
from hairpin.machine.environment import describe_environment
from hairpin.planning.sizes import count_parameters
from hairpin.run import Run
from hairpin.runs import events
from hairpin.runs.folder import RunDirectory
from hairpin.runs.new_folder import new_or_empty_folder
from hairpin.runs.record import Record
from hairpin.system.files import new_folder, sync_file
from hairpin.system.version import __version__
from hairpin.weights.origin import Origin, open_origin


def import_run(folder: Path, out: Path, on_notice: Callable[[str], None]) -> Run:
    """Make a run of the weights and the tokenizer in a folder.

    It has weights and no checkpoint: there is no training here that could be resumed.

    Args:
        folder: config.json, safetensors and a tokenizer's files.
        out: the run's folder, new or empty.
        on_notice: receives a line for each thing that was not imported unchanged.

    Raises:
        RunError: the folder has no model that hairpin can represent, or the run cannot be written.
    """
    started = time.monotonic()
    if RunDirectory(folder).config.is_file():
        raise RunError(f"{folder}: is already a run; name it directly, as in --from {folder}")
    origin = open_origin(folder)
    config = _config(origin)
    with new_or_empty_folder(out, remedy="name another with --out") as place:
        run = RunDirectory(place)
        run.write_config(config)
        run.write_environment(describe_environment("cpu"))
        origin.tokenizer.save(run.tokenizer)
        with new_folder(run.best) as best:
            file = "model.safetensors"
            facts = {file: write_tensors(best / file, origin.tensors)}
            write_manifest(best, 0, facts, {"tokenizer_sha256": origin.tokenizer.hash()})
        _write_record(run, origin, time.monotonic() - started)
    for notice in origin.notices:
        on_notice(notice)
    return Run(RunDirectory(out))


def _config(origin: Origin) -> Config:
    shape, tokenizer = origin.shape, origin.tokenizer
    return build_config(
        flags={
            "recipe": shape.architecture,  # each has a recipe of the same name
            "model.architecture": shape.architecture,
            "model.layers": shape.layers,
            "model.heads": shape.heads,
            "model.width": shape.width,
            "model.context": shape.context,
            "model.bias": shape.bias,
            "model.qkv_bias": shape.qkv_bias,
            "model.tied": shape.tied,
            "tokenizer.kind": tokenizer.kind,
            "tokenizer.vocabulary": tokenizer.vocabulary,
        }
    )


def _write_record(run: RunDirectory, origin: Origin, seconds: float) -> None:
    """Write the record of a run without updates: its start, its plan and its end."""
    plan = events.Plan(
        text="",
        parameters=count_parameters(origin.shape).total,
        updates=0,
        warmup=0,
        tokens_per_update=0,
        train_tokens=0,
        val_tokens=0,
        epochs=0.0,
        seconds=0.0,
        ends=time.time(),
        start=origin.words,
    )
    with Record(run.metrics) as record:
        record.write(events.Start(time.time(), __version__, shown_command(sys.argv)))
        record.write(plan)
        record.write(events.End(0, "finished", seconds))
        record.sync()
    sync_file(run.metrics)

"""Export and import as functions: `hairpin.export` and `hairpin.import_model`."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hairpin.errors import ConfigError
from hairpin.machine.torch_settings import alone
from hairpin.planning.sizes import count_parameters
from hairpin.run import Run
from hairpin.runs.folder import new_run_path, open_run
from hairpin.system.arguments import AnyPath
from hairpin.weights.convert.bring_in import import_run
from hairpin.weights.convert.gguf import export_gguf
from hairpin.weights.convert.huggingface import export_folder
from hairpin.weights.convert.source import open_source

FORMATS = ("huggingface", "gguf")


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Args:
        path: the folder or the file.
        words: a description in one line.
    """

    path: Path
    words: str


@alone
def export(
    run: AnyPath | None, out: AnyPath, *, to: str = "huggingface", weights: str = "best"
) -> Exported:
    """Write a run's model for other programs.

    Args:
        run: its folder; None: the newest in `runs/`.
        out: a new folder, or for "gguf" a new file.
        to: "huggingface", a folder for transformers, or "gguf", a file for llama.cpp.
        weights: "best" (of the validation) or "last".

    Raises:
        UserError: the run has no such weights, the format does not support its network, or `out`
            is taken.
    """
    if to not in FORMATS:
        raise ConfigError(f"--to: there is no {to!r}; choose one of {', '.join(FORMATS)}")
    found = Run(open_run(None if run is None else Path(run)))
    source, place = open_source(found, weights), Path(out)
    if to == "gguf":
        export_gguf(source, place)
        what = f"GGUF of {source.shape.architecture}, float32"
    else:
        export_folder(source, place)
        what = source.shape.traits.transformers.class_name
    count = count_parameters(source.shape).total
    words = f"{what}, {count:,} parameters, {source.weights}, of {found.path}"
    return Exported(place, f"{place}: {words}")


@alone
def import_model(
    folder: AnyPath,
    *,
    out: AnyPath | None = None,
    on_notice: Callable[[str], None] | None = None,
) -> Run:
    """Make a run of a transformers model, GPT-2's or one that hairpin exported.

    Args:
        folder: with config.json, safetensors and the tokenizer's files.
        out: the run's folder, new or empty; None: `runs/<folder>-<n>`.
        on_notice: receives a line for each thing not imported unchanged (tokens, rows, a head);
            None: they are written to standard error.

    Raises:
        RunError: hairpin cannot represent the model; a line for each setting that differs.
    """
    folder = Path(folder)
    place = Path(out) if out else new_run_path(folder.absolute().name)
    return import_run(folder, place, on_notice or (lambda line: print(line, file=sys.stderr)))

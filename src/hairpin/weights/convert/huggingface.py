"""Export of a run as a folder for transformers: config.json, safetensors, tokenizer, a model card.

Writing it needs neither transformers nor a network. `ecosystem/test_huggingface.py` loads such
folders and compares logits, losses and text.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from hairpin.checkpoints.tensors import write_tensors
from hairpin.runs.new_folder import new_or_empty_folder
from hairpin.system.files import as_json, write_atomically
from hairpin.weights.convert.card import model_card
from hairpin.weights.convert.source import ExportSource
from hairpin.weights.convert.tokenizer_files import tokenizer_files
from hairpin.weights.model_config import config_json
from hairpin.weights.transformers_weights import to_transformers

MAX_FILE_BYTES = 5_000_000_000  # transformers' own limit
_FORMAT = {"format": "pt"}  # transformers requires this mark for PyTorch's tensors


def export_folder(source: ExportSource, out: Path, largest_bytes: int = MAX_FILE_BYTES) -> None:
    """Write the folder atomically.

    Args:
        source: the run to export.
        out: a new or empty folder.
        largest_bytes: of a file of weights; larger ones are sharded, with an index.

    Raises:
        RunError: `out` exists and is not empty, or it cannot be written.
    """
    shape, tokenizer = source.shape, source.tokenizer
    tensors = to_transformers(source.tensors, shape)
    ids = {f"{name}_token_id": tokenizer.end_of_text for name in ("bos", "eos", "pad")}
    config = config_json(replace(shape, dropout=source.config.model.dropout))
    files = {
        "config.json": as_json({**config, **ids}).encode(),
        "generation_config.json": as_json(ids).encode(),
        **tokenizer_files(tokenizer, source.config, shape.context),
        "README.md": model_card(source).encode(),
    }
    with new_or_empty_folder(out) as folder:
        for name, content in files.items():
            write_atomically(folder / name, content)
        _write_weights(folder, tensors, largest_bytes)


def _write_weights(folder: Path, tensors: Mapping[str, Tensor], largest_bytes: int) -> None:
    parts = _parts(tensors, largest_bytes)
    if len(parts) == 1:
        write_tensors(folder / "model.safetensors", tensors, _FORMAT)
        return
    part_of: dict[str, str] = {}
    for number, names in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        write_tensors(folder / file, {name: tensors[name] for name in names}, _FORMAT)
        part_of |= dict.fromkeys(names, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": part_of}
    write_atomically(folder / "model.safetensors.index.json", as_json(index).encode())


def _parts(tensors: Mapping[str, Tensor], largest_bytes: int) -> list[list[str]]:
    """Return the names in order, in parts whose tensors fit; a single one may be larger."""
    parts: list[list[str]] = []
    room = 0
    for name, tensor in tensors.items():
        if not parts or tensor.nbytes > room:
            parts.append([])
            room = largest_bytes
        parts[-1].append(name)
        room -= tensor.nbytes
    return parts

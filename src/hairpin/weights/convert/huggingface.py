"""Export of a run as a folder for transformers: config.json, safetensors, tokenizer, a model card.

Writing it needs neither transformers nor a network. `ecosystem/test_huggingface.py` loads such
folders and compares logits, losses and text.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hairpin.checkpoints.tensors import write_tensors
from hairpin.model.modern import EPSILON, ROTARY_BASE, SOFTCAP
from hairpin.model.shape import Shape
from hairpin.runs.place import new_or_empty_folder
from hairpin.system.files import as_json, write_atomically
from hairpin.weights.convert.card import model_card
from hairpin.weights.convert.source import Source
from hairpin.weights.convert.tokenizer_files import tokenizer_files
from hairpin.weights.transformers_weights import to_transformers

LARGEST_FILE_BYTES = 5_000_000_000  # transformers' own limit
_FORMAT = {"format": "pt"}  # transformers requires this mark for PyTorch's tensors

CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "modern": "NanoChatForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def export_folder(source: Source, out: Path, largest_bytes: int = LARGEST_FILE_BYTES) -> None:
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
    dropout = source.config.model.dropout
    files = {
        "config.json": as_json({**config_json(shape, dropout), **ids}).encode(),
        "generation_config.json": as_json(ids).encode(),
        **tokenizer_files(tokenizer, source.config, shape.context),
        "README.md": model_card(source, CLASSES[shape.architecture]).encode(),
    }
    with new_or_empty_folder(out) as folder:
        for name, content in files.items():
            write_atomically(folder / name, content)
        _write_weights(folder, tensors, largest_bytes)


def config_json(shape: Shape, dropout: float = 0.0) -> dict[str, Any]:
    """Return the contents of config.json for a network.

    Args:
        shape: of the network.
        dropout: of its training; it does not affect inference.
    """
    common: dict[str, Any] = {
        "architectures": [CLASSES[shape.architecture]],
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
        "dtype": "float32",
        "use_cache": True,
        "initializer_range": 0.02,
    }
    if shape.architecture == "gpt2":
        return common | _gpt2(shape, dropout)
    common |= {
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.width // shape.heads,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": EPSILON,
        "attention_bias": False,
        "attention_dropout": 0.0,
        # Versions before 5 read the second.
        "rope_parameters": {"rope_type": "default", "rope_theta": ROTARY_BASE},
        "rope_theta": ROTARY_BASE,
    }
    if shape.architecture == "modern":
        return common | {
            "model_type": "nanochat",
            "hidden_act": "relu2",
            "final_logit_softcapping": SOFTCAP,
        }
    return common | {
        "model_type": "qwen3",
        "hidden_act": "silu",
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": shape.layers,
        "layer_types": ["full_attention"] * shape.layers,
    }


def _gpt2(shape: Shape, dropout: float) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "n_positions": shape.context,
        "n_ctx": shape.context,
        "n_embd": shape.width,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "embd_pdrop": dropout,
        "attn_pdrop": dropout,
        "resid_pdrop": dropout,
    }


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

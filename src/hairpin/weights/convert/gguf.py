"""Export of a run as a GGUF file, for llama.cpp and programs built on it.

Architectures are supported that llama.cpp has (`Traits.gguf`). Names and keys are those of the
`gguf` package, weights float32: `llama-quantize` makes smaller ones. `ecosystem/test_gguf.py` reads
files back.
"""

import glob
import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from torch import Tensor

from hairpin.errors import RunError, UserError
from hairpin.model.shape import Shape
from hairpin.system.files import make_folders, move, remove, sync_file, sync_folder, unmake
from hairpin.system.version import __version__
from hairpin.weights.convert.source import ExportSource
from hairpin.weights.convert.tokenizer_files import Vocabulary, chat_template

_TOP = {
    "token_embedding": "token_embd",
    "position_embedding": "position_embd",
    "final_norm": "output_norm",
    "head": "output",
}
_BLOCK = {
    "attention_norm": "attn_norm",
    "attention.query_key_value": "attn_qkv",
    "attention.query_norm": "attn_q_norm",
    "attention.key_norm": "attn_k_norm",
    "attention.output": "attn_output",
    "mlp_norm": "ffn_norm",
    "mlp.gate": "ffn_gate",
    "mlp.expand": "ffn_up",
    "mlp.output": "ffn_down",
}
_APART = ("attn_q", "attn_k", "attn_v")
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # kinds of token
# llama.cpp requires at least one merge: this one is of two bytes that no UTF-8 has.
_UNUSED_MERGE = "ÿ ÿ"


def export_gguf(source: ExportSource, out: Path) -> None:
    """Write the file atomically.

    Args:
        source: the run to export.
        out: a new file.

    Raises:
        RunError: llama.cpp lacks its network, or `out` exists or cannot be written.
        UserError: the package `gguf` is not installed.
    """
    shape = source.shape
    architecture = shape.traits.gguf
    if architecture is None:
        raise RunError(
            f"{source.run.path}: llama.cpp has no network like `{shape.architecture}`; train with "
            "`--recipe qwen3` for one that it has, or export to huggingface"
        )
    if out.exists() or out.is_symlink():
        raise RunError(f"{out}: already exists; name another file")
    gguf = _package()
    temporary = out.with_name(f".tmp-{out.name}-{os.getpid()}")
    made: tuple[Path, ...] = ()
    try:
        made = make_folders(out.parent)
        _remove_left_over(out)
        writer = gguf.GGUFWriter(temporary, architecture)
        _write_metadata(writer, source)
        _add_tokenizer(writer, source)
        for name, tensor in gguf_tensors(source.tensors, shape).items():
            writer.add_tensor(name, tensor.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        sync_file(temporary)
        move(temporary, out)
        sync_folder(out.parent)
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror or error})") from None
    finally:
        remove(temporary, may_stay=True)
        unmake(made)  # on failure


def _remove_left_over(out: Path) -> None:
    """Remove partial files of killed processes."""
    for path in out.parent.glob(f".tmp-{glob.escape(out.name)}-*"):
        pid = path.name.rpartition("-")[2]
        is_number = pid.isdecimal() and len(pid) < 10
        if is_number and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            remove(path, may_stay=True)


def gguf_tensors(state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Return llama.cpp's tensors from hairpin's. A tied head is left out; a bias that this network
    lacks, and others of its architecture have, is zeros.
    """
    return dict(_converted(state, shape))


def _converted(state: Mapping[str, Tensor], shape: Shape) -> Iterator[tuple[str, Tensor]]:
    traits = shape.traits
    separate = {
        ours for ours, theirs in traits.transformers.block.items() if isinstance(theirs, tuple)
    }
    for name, tensor in state.items():
        stem, _, part = name.rpartition(".")
        if stem in _TOP:
            theirs = _TOP[stem]
        else:
            _, layer, ours = stem.split(".", 2)
            theirs = f"blk.{layer}.{_BLOCK[ours]}"
            if ours in separate:
                for apart, third in zip(_APART, tensor.chunk(3), strict=True):
                    yield f"blk.{layer}.{apart}.{part}", third
                continue
        yield f"{theirs}.{part}", tensor
        has_bias = "bias" in traits.options and "embd" not in theirs and theirs != "output"
        if has_bias and part == "weight" and f"{stem}.bias" not in state:
            yield f"{theirs}.bias", tensor.new_zeros(tensor.size(0))


def _package() -> Any:
    try:
        return importlib.import_module("gguf")
    except ImportError:
        raise UserError(
            "--to gguf: the package gguf is not installed; pip install 'hairpin[gguf]'"
        ) from None


def _write_metadata(writer: Any, source: ExportSource) -> None:
    """Write the network's metadata for llama.cpp."""
    shape = source.shape
    writer.add_name(source.name)
    writer.add_description(f"trained by hairpin {__version__}, {source.weights}")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(0)  # all float32
    traits = shape.traits
    if traits.norm == "layer norm":
        writer.add_layer_norm_eps(traits.epsilon)
    else:
        writer.add_layer_norm_rms_eps(traits.epsilon)
    if traits.rotary:
        writer.add_head_count_kv(shape.heads)
        writer.add_key_length(shape.head_width)
        writer.add_value_length(shape.head_width)
        writer.add_rope_freq_base(traits.rotary.base)


def _add_tokenizer(writer: Any, source: ExportSource) -> None:
    vocabulary, end = Vocabulary.of(source.tokenizer), source.tokenizer.end_of_text
    merges = [f"{left} {right}" for left, right in vocabulary.merges]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")  # how text is split before merges
    writer.add_token_list(vocabulary.names)
    kinds = [_NORMAL] * len(vocabulary.names)
    for token in vocabulary.added:
        kinds[token.id] = _CONTROL if token.special else _USER_DEFINED
    writer.add_token_types(kinds)
    writer.add_token_merges(merges or [_UNUSED_MERGE])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(True)  # as in training and `hairpin sample`
    if template := chat_template(source.config):
        writer.add_chat_template(template)

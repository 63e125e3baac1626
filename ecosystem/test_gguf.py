"""GGUF files read back by the gguf package, and run by llama.cpp where its Python binding is."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import save_file

import hairpin
from ecosystem.small_runs import STRANGE, TOKENIZERS, small_run
from hairpin.data import bpe
from hairpin.data.added_tokens import Added
from hairpin.model.generate import Sampling
from hairpin.model.shape import Shape
from hairpin.weights.convert.huggingface import config_json
from hairpin.weights.origin import open_origin
from hairpin.weights.transformers_weights import to_transformers
from helpers import lively_model, some_text

RUNS: list[tuple[str, dict[str, Any]]] = [
    ("qwen3", {}),
    ("qwen3", {"model.tied": True}),
    ("gpt2", {}),
    ("gpt2", {"model.tied": False, "model.bias": False, "model.qkv_bias": False}),
]
# llama.cpp's names, as its own converter has them.
QWEN3 = {
    "token_embd.weight": "token_embedding.weight",
    "output.weight": "head.weight",
    "output_norm.weight": "final_norm.weight",
    "blk.1.attn_norm.weight": "blocks.1.attention_norm.weight",
    "blk.1.attn_q_norm.weight": "blocks.1.attention.query_norm.weight",
    "blk.1.attn_k_norm.weight": "blocks.1.attention.key_norm.weight",
    "blk.1.attn_output.weight": "blocks.1.attention.output.weight",
    "blk.1.ffn_norm.weight": "blocks.1.mlp_norm.weight",
    "blk.1.ffn_gate.weight": "blocks.1.mlp.gate.weight",
    "blk.1.ffn_up.weight": "blocks.1.mlp.expand.weight",
    "blk.1.ffn_down.weight": "blocks.1.mlp.output.weight",
}


def written(tmp_path: Path, architecture: str, tokenizer: str, **changes: Any) -> tuple[Any, Path]:
    run = small_run(architecture, tokenizer, **changes)
    return run, hairpin.export(run.path, tmp_path / "model.gguf", to="gguf").path


def tensors_in(reader: Any) -> dict[str, np.ndarray]:
    return {tensor.name: tensor.data for tensor in reader.tensors}


def field(reader: Any, key: str) -> Any:
    return reader.get_field(key).contents()


@pytest.mark.parametrize(("architecture", "changes"), RUNS)
def test_every_number_is_there_bit_by_bit(
    tmp_path: Path, architecture: str, changes: dict[str, Any]
) -> None:
    run, file = written(tmp_path, architecture, "bytes", **changes)
    found, weights = tensors_in(GGUFReader(file)), open_origin(run.path).tensors
    total = sum(array.size for name, array in found.items())
    zeros = sum(a.size for name, a in found.items() if name.endswith("bias") and not a.any())
    has_biases = architecture == "gpt2" and not changes
    assert total - (0 if has_biases else zeros) == sum(t.numel() for t in weights.values())
    assert all(array.dtype == np.float32 for array in found.values())
    if architecture == "qwen3":
        for theirs, ours in QWEN3.items():
            if ours in weights:
                assert np.array_equal(found[theirs], weights[ours].numpy()), theirs
        parts = [found[f"blk.1.attn_{part}.weight"] for part in "qkv"]
        fused = weights["blocks.1.attention.query_key_value.weight"]
        assert np.array_equal(np.concatenate(parts), fused.numpy())
        assert ("output.weight" in found) == (not run.config.model.tied)
    else:
        fused = weights["blocks.0.attention.query_key_value.weight"]
        assert np.array_equal(found["blk.0.attn_qkv.weight"], fused.numpy())
        bias = weights.get("blocks.0.mlp.output.bias", torch.zeros(32))
        assert np.array_equal(found["blk.0.ffn_down.bias"], bias.numpy())


def test_what_it_says_of_the_network(tmp_path: Path) -> None:
    run, file = written(tmp_path, "qwen3", "bpe")
    reader, end = GGUFReader(file), run.trained(device="cpu").tokenizer.end_of_text
    expected = {
        "general.architecture": "qwen3",
        "general.name": run.path.name,
        "qwen3.context_length": 64,
        "qwen3.embedding_length": 32,
        "qwen3.block_count": 2,
        "qwen3.feed_forward_length": 88,
        "qwen3.attention.head_count": 2,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 16,
        "qwen3.attention.value_length": 16,
        "qwen3.rope.freq_base": 10_000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.add_bos_token": True,
        **{f"tokenizer.ggml.{name}_token_id": end for name in ("bos", "eos", "padding")},
    }
    assert {key: field(reader, key) for key in expected} == expected
    epsilon = field(reader, "qwen3.attention.layer_norm_rms_epsilon")
    assert epsilon == pytest.approx(1e-6)
    assert "weights, update" in field(reader, "general.description")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_its_tokens_are_the_runs(tmp_path: Path, tokenizer: str) -> None:
    run, file = written(tmp_path, "qwen3", tokenizer)
    reader, ours = GGUFReader(file), run.trained(device="cpu").tokenizer
    names, kinds = (field(reader, f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
    table = bpe.byte_of_character()
    pieces = [bytes(table[character] for character in name) for name in names[:-1]]
    assert pieces == ours.pieces()[:-1]
    assert names[-1] == "<|endoftext|>"
    assert kinds == [*[1] * (len(names) - 1), 3]
    merges = field(reader, "tokenizer.ggml.merges")
    made = [merge.replace(" ", "") for merge in merges]
    assert made == (["ÿÿ"] if tokenizer == "bytes" else names[256:-1])


def test_added_tokens_are_where_they_are(tmp_path: Path) -> None:
    """End-of-text first, a special token and one that is shown behind the others."""
    shape = Shape(260, 12, 1, 2, 16)
    model = lively_model(shape).state_dict()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "config.json").write_text(json.dumps(config_json(shape)))
    save_file(to_transformers(model, shape), tmp_path / "in" / "model.safetensors")
    added = (Added("<|endoftext|>", 0), Added("<|im_end|>", 257), Added("<t>", 258, special=False))
    added += (Added("<u>", 259),)
    vocab = {name: n for n, name in enumerate(sorted(bpe.byte_of_character()), 1)}
    (tmp_path / "in" / "tokenizer.json").write_bytes(bpe.tokenizer_json(vocab, [], added))
    run = hairpin.import_model(tmp_path / "in", out=tmp_path / "run", on_notice=lambda line: None)
    hairpin.export(run.path, tmp_path / "out.gguf", to="gguf")
    reader = GGUFReader(tmp_path / "out.gguf")
    names, kinds = (field(reader, f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
    assert names == ["<|endoftext|>", *vocab, "<|im_end|>", "<t>", "<u>"]
    assert kinds == [3, *[1] * 256, 3, 4, 3]
    assert field(reader, "tokenizer.ggml.eos_token_id") == 0


llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="no llama-cpp-python here"
)


@llama_cpp
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize(("architecture", "changes"), RUNS)
def test_llama_cpp_makes_the_same_tokens_and_writes_the_same(
    tmp_path: Path, architecture: str, changes: dict[str, Any], tokenizer: str
) -> None:
    from llama_cpp import Llama

    if changes and tokenizer != "bytes":
        pytest.skip("one tokenizer is enough")
    run, file = written(tmp_path, architecture, tokenizer, **changes)
    ours = run.trained(device="cpu")
    settings = {"n_ctx": 64, "n_threads": 1, "verbose": False, "logits_all": True}
    llama = Llama(str(file), **settings, type_k=0, type_v=0)  # keys and values in float32
    for text in (some_text(700, seed=5), STRANGE, "a" * 50, "\n\n  x"):
        found = llama.tokenize(text.encode(), add_bos=False, special=False)
        assert found == ours.tokenizer.encode(text).tolist()
    prompt = llama.tokenize(b"the cat")  # with what its metadata puts in front
    assert prompt[0] == ours.tokenizer.end_of_text
    llama.eval(prompt)
    with torch.no_grad():
        expected = ours.model.logits(torch.tensor([prompt]))[0].numpy()
    np.testing.assert_allclose(llama.scores[: len(prompt)], expected, atol=1e-4)
    text = "".join(ours.write("the cat", Sampling(0.0), tokens=40))
    answer = llama("the cat", max_tokens=40, temperature=0.0)
    assert answer["choices"][0]["text"] == text

"""GPT-2's published weights into the book's model, as chapter 5 loads them.

`params` is the result of the book's `download_and_load_gpt2` on OpenAI's files: nested dictionaries
of NumPy arrays, with linear layers as [in, out].

    wte, wpe, g, b                               embeddings, the last norm
    blocks[n]["ln_1"], ["ln_2"]                  {"g", "b"}
    blocks[n]["attn"]["c_attn"], ["c_proj"]      {"w", "b"}; query, key and value in one
    blocks[n]["mlp"]["c_fc"], ["c_proj"]         {"w", "b"}
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def assign(left: Tensor, right: Any) -> nn.Parameter:
    """Return a parameter with the values of `right`, to replace `left`.

    Raises:
        ValueError: their shapes differ.
    """
    if left.shape != right.shape:
        raise ValueError(f"Shape mismatch. Left: {left.shape}, Right: {right.shape}")
    return nn.Parameter(torch.tensor(right))


def load_weights_into_gpt(gpt: Any, params: dict[str, Any]) -> None:
    """Load GPT-2's weights into a `GPTModel` with `qkv_bias`, whose head becomes a copy of the
    embedding.

    Raises:
        ValueError: the model has another size.
    """
    if len(gpt.trf_blocks) != len(params["blocks"]):
        raise ValueError(f"{len(params['blocks'])} blocks for a model of {len(gpt.trf_blocks)}")
    _put(gpt.pos_emb, weight=params["wpe"])
    _put(gpt.tok_emb, weight=params["wte"])
    for block, found in zip(gpt.trf_blocks, params["blocks"], strict=True):
        attention = found["attn"]
        weights = np.split(attention["c_attn"]["w"], 3, axis=-1)
        biases = np.split(attention["c_attn"]["b"], 3, axis=-1)
        apart = (block.att.W_query, block.att.W_key, block.att.W_value)
        for linear, weight, bias in zip(apart, weights, biases, strict=True):
            _put(linear, weight=weight.T, bias=bias)
        linears = {
            block.att.out_proj: attention["c_proj"],
            block.ff.layers[0]: found["mlp"]["c_fc"],
            block.ff.layers[2]: found["mlp"]["c_proj"],
        }
        for linear, theirs in linears.items():
            _put(linear, weight=theirs["w"].T, bias=theirs["b"])
        for norm, theirs in ((block.norm1, found["ln_1"]), (block.norm2, found["ln_2"])):
            _put(norm, scale=theirs["g"], shift=theirs["b"])
    _put(gpt.final_norm, scale=params["g"], shift=params["b"])
    _put(gpt.out_head, weight=params["wte"])


def _put(part: nn.Module, **arrays: Any) -> None:
    for name, array in arrays.items():
        setattr(part, name, assign(getattr(part, name), array))

"""Named defaults: recipes, and the shapes of models.

A recipe holds settings like a config file's; the file overrides it, and --set the file.
"""

from typing import Any

DEFAULT_RECIPE = "modern"

# Muon for matrices, and learning rates of their own for the embedding and the head.
_MUON: dict[str, Any] = {
    "kind": "muon",
    "matrix_lr_scale": 10.0,
    "embedding_lr_scale": 80.0,
    "head_lr_scale": 6.0,
    "weight_decay": 0.0,
}

RECIPES: dict[str, dict[str, Any]] = {
    # GPT-2's network with today's usual training settings.
    "gpt2": {},
    # Later findings, as far as they were confirmed here (docs/choices.md).
    "modern": {
        "model": {"architecture": "modern", "bias": False, "qkv_bias": False, "tied": False},
        "optimizer": _MUON,
    },
    # Qwen3's network, which llama.cpp and others run, trained as the modern one is
    # (docs/huggingface.md has the cost).
    "qwen3": {
        "model": {"architecture": "qwen3", "bias": False, "qkv_bias": False, "tied": False},
        "optimizer": _MUON,
    },
    # A constant learning rate without warmup, decay or clipping: the loop of the book's chapter 5.
    "simple": {
        "schedule": {"kind": "constant", "warmup_updates": 0, "peak_lr": 4e-4},
        "optimizer": {"beta2": 0.999},
        "clip": {"kind": "off"},
    },
    # The experiment of the book's appendix D, by hairpin's own loop. A checkpoint takes 2 GB, so
    # only the last is kept besides the best.
    "book": {
        "data": {"corpus": "verdict", "split": "tails"},
        "tokenizer": {"kind": "gpt2"},
        "model": {
            "layers": 12,
            "heads": 12,
            "width": 768,
            "context": 256,
            "dropout": 0.1,
            "qkv_bias": False,
            "tied": False,
            "initialisation": "pytorch",
        },
        "optimizer": {"beta2": 0.999},
        "schedule": {
            "kind": "cosine",
            "warmup_fraction": 0.2,
            "initial_lr": 1e-5,
            "peak_lr": 1e-3,
            "min_lr": 1e-5,
        },
        "train": {"updates": 135, "tokens_per_update": 512, "seed": 123},
        "evaluate": {
            "every_updates": 5,
            "tokens": 4096,
            "train_tokens": 512,
            "sample_prompt": "Every effort moves you",
            "sample_tokens": 50,
            "temperature": 0.0,
        },
        "checkpoint": {"every_updates": 1000, "keep": 1},
        "execution": {"micro_batch": 2},
    },
}

# Layers, heads, width and default context. The four GPT-2 sizes are those of Radford et al. 2019;
# below them the head stays 32 to 64 wide, so that attention is not starved.
SIZES: dict[str, dict[str, int]] = {
    "nano": {"layers": 2, "heads": 2, "width": 64, "context": 128},
    "tiny": {"layers": 4, "heads": 4, "width": 128, "context": 128},
    "mini": {"layers": 4, "heads": 4, "width": 192, "context": 128},
    "small": {"layers": 5, "heads": 4, "width": 256, "context": 128},
    "medium": {"layers": 6, "heads": 6, "width": 384, "context": 256},
    "base": {"layers": 8, "heads": 8, "width": 512, "context": 512},
    "gpt2": {"layers": 12, "heads": 12, "width": 768, "context": 1024},
    "gpt2-medium": {"layers": 24, "heads": 16, "width": 1024, "context": 1024},
    "gpt2-large": {"layers": 36, "heads": 20, "width": 1280, "context": 1024},
    "gpt2-xl": {"layers": 48, "heads": 25, "width": 1600, "context": 1024},
}

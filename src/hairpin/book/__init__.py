"""Appendix D of *Build a Large Language Model (From Scratch)* under its own names.

Its listings run with only their imports changed, and so do the pages of chapters 6 and 7:

    from hairpin.book import GPTModel, create_dataloader_v1, train_model
    from hairpin.book.ch06 import train_classifier_simple
    from hairpin.book.ch07 import InstructionDataset, custom_collate_fn, format_input

Names and arguments are those of the book's repository. Small and plain on purpose: the product's
fast model is tested against it, and it is the place to read a training loop before the product's
own.
"""

from hairpin.book.data import (
    GPTDatasetV1,
    create_dataloader_v1,
    text_to_token_ids,
    token_ids_to_text,
)
from hairpin.book.fast import (
    FeedForwardFast,
    GPTModelFast,
    PyTorchMultiHeadAttention,
    TransformerBlockFast,
)
from hairpin.book.model import (
    GELU,
    GPT_CONFIG_124M,
    FeedForward,
    GPTModel,
    LayerNorm,
    MultiHeadAttention,
    TransformerBlock,
    generate,
    generate_text_simple,
)
from hairpin.book.training import (
    calc_loss_batch,
    calc_loss_loader,
    evaluate_model,
    find_highest_gradient,
    generate_and_print_sample,
    plot_losses,
    train_model,
    train_model_simple,
)
from hairpin.book.weights import assign, load_weights_into_gpt

__all__ = [
    "GELU",
    "GPT_CONFIG_124M",
    "FeedForward",
    "FeedForwardFast",
    "GPTDatasetV1",
    "GPTModel",
    "GPTModelFast",
    "LayerNorm",
    "MultiHeadAttention",
    "PyTorchMultiHeadAttention",
    "TransformerBlock",
    "TransformerBlockFast",
    "assign",
    "calc_loss_batch",
    "calc_loss_loader",
    "create_dataloader_v1",
    "evaluate_model",
    "find_highest_gradient",
    "generate",
    "generate_and_print_sample",
    "generate_text_simple",
    "load_weights_into_gpt",
    "plot_losses",
    "text_to_token_ids",
    "token_ids_to_text",
    "train_model",
    "train_model_simple",
]

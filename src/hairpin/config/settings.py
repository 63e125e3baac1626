"""Every setting that a run has, in frozen tables.

A field's type and bounds say what is legal and its description says what it means and in which
unit; docs/config.md is made from them. `None` means that hairpin chooses (the description says
how); the config that a run stores has every choice filled in.
"""

from typing import Literal

from pydantic import Field

from hairpin.config.curve import Schedule
from hairpin.config.finetune import Finetune, Start
from hairpin.config.guard import Guard
from hairpin.config.table import Count, Fraction, Names, Table


class Data(Table):
    """Which text, and how it is divided."""

    texts: Names = Field((), description="Absolute paths of the text files and folders.")
    corpus: Literal["stdlib", "python-docs", "verdict"] | None = Field(
        None,
        description="A corpus by name, in place of `texts`: the Python standard library's own "
        "source, Python's help topics, or the short story of the book (downloaded once).",
    )
    separator: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="The string that divides a file into documents; unset: one document a file.",
    )
    on_bad_bytes: Literal["error", "replace"] = Field(
        "error",
        description="What to do with bytes that are not UTF-8: stop and name file and offset, or "
        "put U+FFFD in their place and count them.",
    )
    split: Literal["auto", "documents", "tails"] = Field(
        "auto",
        description="How validation text is set apart: whole documents by their content hash, or "
        "each document's last part. `auto` takes documents unless that leaves validation with less "
        "than half or more than twice `validation_fraction` of the bytes.",
    )
    validation_fraction: float = Field(
        0.1,
        gt=0,
        le=0.5,
        description="The share of the text kept for validation, in bytes; of records, in records.",
    )
    hash: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 over the documents' hashes. Filled in by the run; a repeat refuses "
        "text that differs.",
    )


class Tokenizer(Table):
    """How text becomes tokens."""

    kind: Literal["bpe", "bytes", "gpt2"] = Field(
        "bpe",
        description="Byte-level BPE trained on the training text, plain bytes, or GPT-2's "
        "vocabulary.",
    )
    vocabulary: int | None = Field(
        None,
        ge=257,
        le=1_000_000,
        description="Tokens in the vocabulary, end-of-text included; unset: chosen from the size "
        "of the corpus. Only for `bpe`.",
    )


class Model(Table):
    """The shape of the network (Radford et al. 2019 names the GPT-2 sizes)."""

    architecture: Literal["gpt2", "modern"] = Field(
        "gpt2",
        description="GPT-2's network, or a modern one: RMSNorm without weights, rotary positions, "
        "norms of query and key, squared ReLU, a head of its own with capped logits (what "
        "transformers calls NanoChat). `modern` wants `bias`, `qkv_bias` and `tied` off and no "
        "dropout.",
    )
    size: str | None = Field(
        None,
        max_length=40,
        description="A named shape, from `tiny` to `gpt2-xl`, that fills the keys below that are "
        "unset; unset: chosen for the time budget.",
    )
    layers: int | None = Field(None, ge=1, le=512, description="Transformer blocks.")
    heads: int | None = Field(None, ge=1, le=512, description="Attention heads in each block.")
    width: int | None = Field(
        None, ge=1, le=65_536, description="Width of the residual stream; a multiple of `heads`."
    )
    context: int | None = Field(
        None, ge=2, le=1_048_576, description="Tokens that the model sees at once."
    )
    dropout: Fraction = Field(
        0.0, description="Share of activations dropped in training (embeddings, attention, MLP)."
    )
    bias: bool = Field(True, description="Biases in linear layers and norms, as GPT-2 has them.")
    qkv_bias: bool = Field(
        True, description="Biases of query, key and value too, where `bias` is on."
    )
    tied: bool = Field(True, description="The output head shares the token embedding's weights.")
    initialisation: Literal["gpt2", "pytorch"] = Field(
        "gpt2",
        description="The first weights: GPT-2's normal ones of deviation 0.02, or what PyTorch's "
        "own layers begin with, for an untied head: embeddings of deviation 1, the rest uniform.",
    )


class Optimizer(Table):
    """AdamW (Loshchilov and Hutter 2019), or Muon (Jordan et al. 2024) with it."""

    kind: Literal["adamw", "muon"] = Field(
        "adamw",
        description="AdamW for everything; or Muon for the matrices of blocks and AdamW for the "
        "rest.",
    )
    momentum: Fraction = Field(0.95, description="Decay of Muon's momentum, per update.")
    matrix_lr_scale: float = Field(
        1.0,
        ge=0,
        le=10_000,
        description="Muon's learning rate, as a multiple of the schedule's, which then means about "
        "the same with both.",
    )
    embedding_lr_scale: float = Field(
        1.0,
        ge=0,
        le=10_000,
        description="The embeddings' learning rate, as a multiple of the schedule's.",
    )
    head_lr_scale: float = Field(
        1.0,
        ge=0,
        le=10_000,
        description="The learning rate of a head of its own, as a multiple of the schedule's.",
    )
    beta1: Fraction = Field(0.9, description="Decay of the first moment, per update.")
    beta2: Fraction = Field(0.95, description="Decay of the second moment, per update.")
    epsilon: float = Field(1e-8, gt=0, le=1, description="Added to the root of the second moment.")
    weight_decay: float = Field(
        0.1,
        ge=0,
        le=10,
        description="Decoupled weight decay, times the learning rate, on matrices only; with "
        "`muon` on those of blocks only.",
    )


class Clip(Table):
    """Gradient clipping, from update 0 (Pascanu et al. 2013)."""

    kind: Literal["norm", "value", "off"] = Field(
        "norm",
        description="Scale all gradients so that their global L2 norm is at most the threshold, "
        "or limit each entry to it, or leave them.",
    )
    threshold: float = Field(
        1.0, gt=0, le=1e9, description="Largest global norm, or largest absolute entry."
    )


class Train(Table):
    """How long, and how much in each update."""

    updates: Count | None = Field(
        None, description="Optimizer updates; unset: from `tokens`, `epochs` or the time budget."
    )
    tokens: Count | None = Field(None, description="Tokens to train on, in place of `updates`.")
    epochs: float | None = Field(
        None, gt=0, le=1e6, description="Passes over the training text, in place of `updates`."
    )
    tokens_per_update: Count | None = Field(
        None,
        description="Tokens in one update, over all micro-batches and processes; a multiple of "
        "the context. Unset: chosen with the model's size.",
    )
    seed: int = Field(
        0, ge=0, le=2**63 - 1, description="Seed of weights, order of data, dropout and samples."
    )


class Evaluate(Table):
    """Evaluation and samples on the way; neither changes training by a bit."""

    every_updates: Count | None = Field(
        None, description="Updates between evaluations; unset: a tenth of the run."
    )
    tokens: Count | None = Field(
        None,
        description="Validation tokens in each evaluation, spread evenly and always the same; "
        "unset: 0.5% of the run's training tokens, which takes 2-3% of the time in all. "
        "Fine-tuning counts an example as a whole context; unset: all, at most 1,000 of them.",
    )
    train_tokens: Count | None = Field(
        None,
        description="Training tokens in each evaluation; unset: a quarter of `tokens`, or in "
        "fine-tuning as many.",
    )
    sample_tokens: int = Field(
        64, ge=0, le=100_000, description="Tokens in the sample after each evaluation; 0: none."
    )
    sample_prompt: str | None = Field(
        None,
        max_length=100_000,
        description="The prompt of the samples; unset: the opening of some validation text.",
    )
    temperature: float = Field(
        0.8,
        ge=0,
        le=100,
        description="Sampling temperature of the samples; 0: always the likeliest.",
    )
    top_k: int = Field(
        50, ge=0, le=1_000_000, description="Sample from the K likeliest tokens; 0: from all."
    )


class Checkpoint(Table):
    """What is kept of the way."""

    every_updates: Count | None = Field(
        None, description="Updates between checkpoints; unset: at each evaluation."
    )
    keep: int = Field(
        3, ge=1, le=1_000_000, description="Newest checkpoints kept; the best weights come on top."
    )
    keep_every: Count | None = Field(
        None, description="Checkpoints after every so many updates are kept too; unset: no others."
    )


class Execution(Table):
    """How this machine runs it: kept so that a repeat computes the same bits."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where the model runs; `auto`: CUDA, else Apple's MPS, else the CPU."
    )
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = Field(
        "auto",
        description="Number format of the matrix products; weights and moments stay float32. "
        "`auto` times a step and takes bfloat16 only where it is faster; on a GPU that has none "
        "float16, for which the loss is scaled.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether blocks are compiled (`torch.compile`), which takes a minute at first "
        "and makes other bits. `auto`: on for CUDA; on a CPU timed, where a time budget of ten "
        "minutes or more leaves room for it, else off; off in fine-tuning. Where compiling fails "
        "it is off.",
    )
    micro_batch: Count | None = Field(
        None,
        description="Sequences in one forward pass; unset: as many as fit. It changes memory and "
        "speed, not what is learned.",
    )
    memory_gigabytes: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="Memory that weights, moments and activations may take (10^9 bytes), from "
        "which `micro_batch` is derived; unset: 3, on CUDA 90% of what is free. A micro-batch that "
        "does not fit after all is halved.",
    )
    deterministic: bool = Field(
        False, description="On CUDA: only kernels that give the same bits each time; slower."
    )


class Config(Table):
    """All settings of a run; `hairpin train --config RUN/config.toml` repeats it."""

    recipe: Literal["modern", "gpt2", "simple", "book"] = Field(
        "modern",
        description="The set of defaults that the rest of the file starts from; unset: `modern`, "
        "or `gpt2` where training starts from trained weights.",
    )
    data: Data = Data()
    tokenizer: Tokenizer = Tokenizer()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    clip: Clip = Clip()
    guard: Guard = Guard()
    train: Train = Train()
    start: Start = Start()
    finetune: Finetune = Finetune()
    evaluate: Evaluate = Evaluate()
    checkpoint: Checkpoint = Checkpoint()
    execution: Execution = Execution()

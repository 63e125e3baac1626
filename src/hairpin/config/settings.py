"""Every setting that a run has, in frozen tables.

A field's type and bounds say what is legal and its description says what it means and in which
unit; docs/config.md is made from them. `None` means that hairpin chooses (the description says
how); the config that a run stores has every choice filled in.
"""

from typing import Annotated, Literal

from pydantic import Field

from hairpin.config.curve import Schedule
from hairpin.config.data import Data, Tokenizer
from hairpin.config.execution import Execution
from hairpin.config.finetune import Finetune, Start
from hairpin.config.guard import Guard
from hairpin.config.model import Model
from hairpin.config.plugin import Plugin
from hairpin.config.table import Count, Fraction, Table
from hairpin.config.track import Track


class Optimizer(Table):
    """AdamW (Loshchilov and Hutter 2019), or Muon (Jordan et al. 2024) with it."""

    kind: str = Field(
        "adamw",
        description="AdamW for everything; or Muon for the matrices of blocks and AdamW for the "
        "rest; or what a plugin registers.",
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
    loss: str = Field(
        "cross-entropy",
        description="What updates minimise: the cross entropy of the next token, or what a plugin "
        "registers. Evaluations are always cross entropy.",
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
        allow_inf_nan=False,
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
    every_seconds: float = Field(
        300.0,
        ge=0,
        le=31_536_000,
        description="Seconds after which a checkpoint is saved between two of `every_updates`, so "
        "that a crash costs no more than that; 0: never.",
    )
    keep: int = Field(
        3, ge=1, le=1_000_000, description="Newest checkpoints kept; the best weights come on top."
    )
    keep_every: Count | None = Field(
        None, description="Checkpoints after every so many updates are kept too; unset: no others."
    )


class Config(Table):
    """All settings of a run; `hairpin train --config RUN/config.toml` repeats it."""

    recipe: Literal["modern", "gpt2", "qwen3", "simple", "book"] = Field(
        "modern",
        description="The set of defaults that the rest of the file starts from; unset: `modern`, "
        "or `gpt2` where training starts from trained weights.",
    )
    plugins: Annotated[tuple[Plugin, ...], Field(strict=False)] = Field(
        (),
        description="The plugins that the run was made with, as tables `[[plugins]]`; `--plugin` "
        "writes them.",
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
    track: Track = Track()
    execution: Execution = Execution()

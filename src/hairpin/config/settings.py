"""Every setting that a run has, in frozen tables.

A field's type and bounds say what is legal and its description says what it means and in which
unit; docs/config.md is made from them. `None` means that hairpin chooses (the description says
how); the config that a run stores has every choice filled in.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from hairpin.config.formats import FORMATS
from hairpin.plugins.registry import BUILT_IN, OPTIMIZERS, TRACKERS, is_name, no_such_name
from hairpin.system.arguments import plain_number

Count = Annotated[int, Field(ge=1, le=10**15)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
CorpusName = Literal["stdlib", "python-docs", "verdict"]
if TYPE_CHECKING:
    Format = str
else:
    Format = Literal[FORMATS]
Column = Annotated[str, Field(min_length=1, max_length=200)]
GLOB_CHARACTERS = frozenset("*?[")

_COLUMN = "The column of a table whose rows are the documents; unset: `text` if there is one, else "
_FORMAT = (
    "Format of the files; unset: by the name of each. `dataset` is a folder that Hugging "
    "Face's `save_to_disk` wrote."
)
_SEPARATOR = (
    "The string that divides a text file into documents; unset: one document a file. On the "
    "command line `\\n`, `\\r`, `\\t` and `\\\\` stand for a newline, a return, a tab and a "
    "backslash. A newline is found where the text has CRLF, too."
)


class Table(BaseModel):
    """A frozen table whose unknown keys are errors and whose numbers are finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return plain_number(value)


def _named_text(path: str) -> str:
    if not path.strip():
        raise ValueError("a path is empty (a variable that is not set?); name a file")
    return path


Texts = Annotated[tuple[Annotated[str, AfterValidator(_named_text)], ...], Field(strict=False)]


class Source(Table):
    """One of several sources of a mixture."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        max_length=40,
        description="The source's name in the record and in plots.",
    )
    texts: Texts = Field((), description="As `data.texts`.")
    corpus: CorpusName | None = Field(None, description="As `data.corpus`.")
    weight: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="The share of training tokens that come from the source, in proportion to the "
        "other weights; unset (of all or of none): by size, in tokens.",
    )
    column: str | None = Field(
        None, min_length=1, max_length=1000, description="As `data.column`, which it is if unset."
    )
    format: Format | None = Field(None, description="As `data.format`, which it is if unset.")
    separator: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="As `data.separator`, which it is if unset.",
    )
    split: Literal["auto", "documents", "tails"] | None = Field(
        None, description="As `data.split`, which it is if unset. Filled in by the run."
    )
    hash: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="As `data.hash`. Filled in by the run."
    )


class Data(Table):
    """The text, and how it is divided."""

    texts: Texts = Field(
        (),
        description="Absolute paths of the files and folders, or patterns such as "
        "`data/**/*.jsonl.gz`.",
    )
    corpus: CorpusName | None = Field(
        None,
        description="A corpus by name, instead of `texts`: the Python standard library's own "
        "source, Python's help topics, or the short story of the book (downloaded once).",
    )
    sources: Annotated[tuple[Source, ...], Field(strict=False)] = Field(
        (),
        description="Several texts with weights, instead of `texts`, as tables "
        "`[[data.sources]]`. `--source NAME=PATH:WEIGHT` writes them.",
    )
    column: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description=_COLUMN + "the only one that holds text. Filled in by the run.",
    )
    format: Format | None = Field(
        None, description=_FORMAT + " Filled in by the run, where it is one and not text."
    )
    separator: str | None = Field(None, min_length=1, max_length=1000, description=_SEPARATOR)
    on_bad_bytes: Literal["error", "replace"] = Field(
        "error",
        description="How to treat bytes that are not UTF-8: stop, naming file and offset, or "
        "replace them with U+FFFD and count them.",
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

    @property
    def is_named(self) -> bool:
        """True if a text is named."""
        return bool(self.texts or self.corpus or self.sources)

    def parts(self) -> Iterator[tuple[Source, "Data"]]:
        """Yield each source of a mixture, with the settings of its text alone."""
        for source in self.sources:
            own = source.model_dump(exclude={"name", "weight"}, exclude_none=True)
            whole: dict[str, Any] = self.model_dump(exclude={"sources", "hash", "texts", "corpus"})
            yield source, Data.model_validate({**whole, **own})


def short_name(text: str) -> str:
    """Return a short name for a file, a folder, or the folder that a pattern searches."""
    path = Path(text)
    while {"*", "?"} & set(path.name):
        path = path.parent
    return path.name.split(".")[0] or path.name or "text"


def named(data: Data, most: int = 3) -> str:
    """Return a short name for the texts."""
    if data.corpus:
        return data.corpus
    if data.sources:
        names = [source.name for source in data.sources]
        return "-".join(names[:most]) + (f"-and-{len(names) - most}" if len(names) > most else "")
    return short_name(data.texts[0]) if data.texts else "text"


class Tokenizer(Table):
    """The tokenizer, which turns text into tokens."""

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

    architecture: str = Field(
        "gpt2",
        description="GPT-2's network; a modern one: RMSNorm without weights, rotary positions, "
        "norms of query and key, squared ReLU, a head of its own with capped logits (what "
        "transformers calls NanoChat); or Qwen3's: RMSNorm with weights, norms of query and key, "
        "rotary positions, SwiGLU, which more programs can run (docs/huggingface.md). Both need "
        "`bias` and `qkv_bias` off and no dropout, and `modern` also `tied`. Or one that a plugin "
        "registers.",
    )
    size: str | None = Field(
        None,
        max_length=40,
        description="A named shape, from `nano` to `gpt2-xl`, that fills the keys below that are "
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
        description="The initial weights: GPT-2's normal ones of deviation 0.02, or what PyTorch's "
        "own layers begin with, for an untied head: embeddings of deviation 1, the rest uniform.",
    )


class Optimizer(Table):
    """The rule that turns gradients into updates. Keys that the kind does not read are ignored."""

    kind: str = Field(
        "adamw",
        description="; or ".join(kind.words for kind in OPTIMIZERS.values())
        + "; or what a plugin registers.",
    )
    momentum: Fraction = Field(0.95, description="Decay of Muon's momentum, per update.")
    matrix_lr_scale: float = Field(
        1.0,
        ge=0,
        le=10_000,
        description="Muon's learning rate as a multiple of the schedule's, so that one schedule "
        "suits both optimizers.",
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


class Extension(Table):
    """A part that was added to a run's learning rate when the run was extended."""

    at: int = Field(
        ge=2,
        le=10**15,
        description="The first update of this part: the length of the run before it was extended.",
    )
    policy: Literal["rewarm", "constant", "cooldown"] = Field(
        description="`rewarm`: back up to the peak, then down the curve again; `constant`: keep "
        "the last learning rate; `cooldown`: from there straight down to zero.",
    )


class Schedule(Table):
    """The learning rate as a function of the update: linear warmup, then a curve."""

    kind: str | None = Field(
        None,
        description="The curve after warmup: "
        + ", ".join(f"`{curve}`" for curve in BUILT_IN["schedule"])
        + ", or one that a plugin registers; unset: `wsd` where a time budget chooses the length, "
        "else `cosine`.",
    )
    peak_lr: LearningRate | None = Field(
        None, description="The learning rate at the end of warmup; unset: chosen from the width."
    )
    initial_lr: float | None = Field(
        None, ge=0, le=10, description="The learning rate of update 0; unset: peak / warmup."
    )
    min_lr: float | None = Field(
        None,
        ge=0,
        le=10,
        description="The learning rate of the last update, for curves that decay; unset: a tenth "
        "of the peak.",
    )
    warmup_updates: int | None = Field(None, ge=0, le=10**15, description="Warmup, in updates.")
    warmup_tokens: int | None = Field(None, ge=0, le=10**18, description="Warmup, in tokens.")
    warmup_fraction: Fraction | None = Field(
        None,
        description="Warmup, as a fraction of all updates. At most one of the three warmup keys "
        "is set; none: 5% of the run.",
    )
    decay_updates: Count | None = Field(None, description="Final decay of `wsd`, in updates.")
    decay_tokens: Count | None = Field(None, description="Final decay of `wsd`, in tokens.")
    decay_fraction: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Final decay of `wsd`, as a fraction of all updates. At most one of the three "
        "decay keys is set; none: 20% of the run, or 60% where a time budget chooses the length.",
    )
    cycles: int = Field(
        4, ge=1, le=10_000, description="Cosine cycles after warmup, for `cosine-restarts`."
    )
    extensions: Annotated[tuple[Extension, ...], Field(strict=False)] = Field(
        (),
        description="Parts that follow the curve, in order, as tables `[[schedule.extensions]]`. "
        "The curve above is then as long as the first part's `at`, and `train.updates` is the "
        "length of the whole. `hairpin resume RUN --extend 10m` writes them.",
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


class Guard(Table):
    """The action after an update whose loss or gradient is not finite, or far above the usual.

    A skipped update uses up its samples and its learning rate, and leaves weights and moments
    alone. A rewind goes back to the last checkpoint and continues with the samples after the bad
    batch.
    """

    on_non_finite: Literal["stop", "skip", "rewind"] = Field(
        "stop",
        description="What to do when a loss or a gradient is NaN or infinite. Weights, moments and "
        "checkpoints never contain it.",
    )
    most_skips: int = Field(
        3,
        ge=1,
        le=1_000_000,
        description="Updates in a row that may be skipped; one more stops the run without saving.",
    )
    on_spike: Literal["record", "off", "stop", "skip", "rewind"] = Field(
        "record",
        description="What to do about a spike: a loss or gradient norm above the mean of the last "
        "updates by more than `spike_deviations`. `record` only records it; `off` does not check.",
    )
    spike_deviations: float = Field(
        6.0,
        ge=1,
        le=1_000_000,
        description="Standard deviations above the mean of the last updates at which a spike "
        "begins. A deviation of less than 1% of the mean counts as 1%.",
    )
    spike_window: int = Field(
        128,
        ge=8,
        le=100_000,
        description="Updates over which mean and deviation are computed, without skipped ones; "
        "nothing is a spike before half of them were made. A recorded spike counts as the limit "
        "that it exceeded.",
    )
    most_rewinds: int = Field(
        3,
        ge=1,
        le=1_000_000,
        description="How often a run may rewind to one of its checkpoints; it stops at the next "
        "rewind.",
    )

    @property
    def rewinds(self) -> bool:
        """True if a run may rewind to a checkpoint."""
        return "rewind" in (self.on_non_finite, self.on_spike)


class Train(Table):
    """The length of the run, and the size of an update."""

    updates: Count | None = Field(
        None, description="Optimizer updates; unset: from `tokens`, `epochs` or the time budget."
    )
    tokens: Count | None = Field(None, description="Tokens to train on, instead of `updates`.")
    epochs: float | None = Field(
        None, gt=0, le=1e6, description="Passes over the training text, instead of `updates`."
    )
    tokens_per_update: Count | None = Field(
        None,
        description="Tokens in one update, over all micro-batches and processes; a multiple of "
        "the context. Unset: chosen with the model's size.",
    )
    loss: str = Field(
        "cross-entropy",
        description="The loss that updates minimise: the cross entropy of the next token, or one "
        "that a plugin registers. Evaluations are always cross entropy.",
    )
    seed: int = Field(
        0, ge=0, le=2**63 - 1, description="Seed of weights, order of data, dropout and samples."
    )


class Start(Table):
    """The trained weights that training starts from, if any."""

    path: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Absolute path of the run, or of the folder with a model in safetensors "
        "(GPT-2, or one that hairpin exported), whose weights, shape and tokenizer are taken; "
        "unset: random weights. The peak learning rate is then lower unless it is set.",
    )
    weights: Literal["best", "last"] = Field(
        "best", description="For a run: the weights with the best validation loss, or the last."
    )
    hash: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 over the weights. Filled in by the run; a repeat refuses weights that "
        "differ.",
    )


class Finetune(Table):
    """Fine-tuning on records: CSV, TSV, JSON, JSONL or Parquet, the one file in `data.texts`."""

    kind: Literal["classify", "instruct"] | None = Field(
        None,
        description="Learn the label of a text, or the response to an instruction; unset: this is "
        "pretraining. Both need `start.path`.",
    )
    examples_per_update: Count | None = Field(
        None,
        le=1_000_000,
        description="Examples in one update, instead of `train.tokens_per_update`, which then "
        "counts each as a whole context; unset: 8.",
    )
    layers: int | None = Field(
        None,
        ge=0,
        le=512,
        description="How many of the last transformer blocks train, with the final norm and the "
        "head (unless it is tied to the embeddings, which stay); 0: only those two; unset: "
        "everything trains. The peak learning rate is then, unless "
        "it is set, that for random weights.",
    )
    too_long: Literal["error", "keep-start", "keep-end", "drop"] = Field(
        "error",
        description="What to do with an example longer than the context: stop and name it, keep "
        "its first or its last tokens, or drop it; a notice gives the number that were cut or "
        "dropped. Of an instruction only the input is shortened.",
    )
    no_answer: Literal["error", "drop"] = Field(
        "error",
        description="What to do with a record without a response or a label: stop and name it, or "
        "drop it; a notice gives the number that were dropped.",
    )
    text_column: Column = Field("text", description="The column of a text, for `classify`.")
    label_column: Column = Field("label", description="The column of its label.")
    labels: Names = Field(
        (),
        description="The labels, in the order of the classifier's outputs. Filled in by the run.",
    )
    instruction_column: Column = Field(
        "instruction", description="The column of an instruction, for `instruct`."
    )
    input_column: Column | None = Field(
        None,
        min_length=1,
        description="The column of what the instruction is about, if any; unset: `input`, or "
        "`context` in a file without an `input`.",
    )
    response_column: Column | None = Field(
        None,
        min_length=1,
        description="The column of the response; unset: `response`, or `output` in a record "
        "without a `response`.",
    )
    same_prompts: Literal["exact", "white-space"] | None = Field(
        None,
        description="Which prompts are the same one, so that their records stay on one side of the "
        "split: those that are equal, or those that are equal but for white space. Filled in by "
        "the run, with `white-space`; a run made before this setting keeps `exact`.",
    )
    template: str = Field(
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
        min_length=1,
        max_length=10_000,
        description="The prompt of `instruct`, which the response follows. `{instruction}` and "
        "`{input}` are filled in; a paragraph with `{input}` is left out where there is none.",
    )
    mask_prompt: bool = Field(
        True, description="Learn only the response; false: the prompt's tokens too."
    )


class Evaluate(Table):
    """Evaluations and samples during the run; neither changes training by a bit."""

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
        description="Sampling temperature of the samples; 0: always the most likely token.",
    )
    top_k: int = Field(
        50, ge=0, le=1_000_000, description="Sample from the K most likely tokens; 0: from all."
    )


class CheckpointTable(Table):
    """Checkpoints: when they are saved, and which are kept."""

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
        3,
        ge=1,
        le=1_000_000,
        description="Newest checkpoints kept; the best weights are kept as well.",
    )
    keep_every: Count | None = Field(
        None,
        description=(
            "Also keep each checkpoint whose number of updates is a multiple of this; unset: no "
            "others."
        ),
    )


def _without_credentials(uri: str | None) -> str | None:
    """Refuse a user or a password: a run's config is shown to people."""
    if uri is not None and "@" in urlsplit(uri).netloc:
        raise ValueError(
            "a user name or password must not be in a config; put it into "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return uri


def _possible_tracker(name: str) -> str:
    """Refuse what cannot be a name; one of a plugin that is not named in the call may be there."""
    if not is_name(name):
        raise ValueError(no_such_name("tracker", name))
    return name


class Track(Table):
    """Trackers that receive the numbers of metrics.jsonl; they change nothing in a run."""

    tools: Annotated[
        tuple[Annotated[str, AfterValidator(_possible_tracker)], ...], Field(strict=False)
    ] = Field(
        (),
        description="Names of trackers: "
        + ", ".join(f"`{name}`" for name in TRACKERS)
        + " (`pip install 'hairpin[wandb]'` and the like install what they need), or what a plugin "
        "registers. One that a config file alone names, and not the call, follows only if it does "
        "no more than write in the run's folder.",
    )
    project: str = Field(
        "hairpin",
        min_length=1,
        max_length=100,
        description="W&B's project, MLflow's experiment.",
    )
    name: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="The run's name in the tools; unset: the name of its folder.",
    )
    wandb_mode: Literal["offline", "online"] | None = Field(
        None,
        description="`online`: W&B sends the data; `offline`: it stays in the run's folder. Unset: "
        "the value of WANDB_MODE, else `online` where you are logged in, else `offline`.",
    )
    mlflow_uri: Annotated[str | None, AfterValidator(_without_credentials)] = Field(
        None,
        min_length=1,
        max_length=1000,
        description="Where MLflow keeps runs: a folder, or the address of a server; unset: the "
        "value of MLFLOW_TRACKING_URI, else the folder `mlruns` next to the run's.",
    )


class Execution(Table):
    """Device, precision and memory; stored so that a repeat computes the same bits."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where the model runs; `auto`: CUDA, else Apple's MPS, else the CPU."
    )
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = Field(
        "auto",
        description="Number format of the matrix products; weights and moments stay float32. "
        "`auto` times a step and takes bfloat16 only where it is faster; on a GPU without bfloat16 "
        "it takes float16, for which the loss is scaled.",
    )
    threads: Literal["auto", "all", "one"] = Field(
        "auto",
        description="Threads on a CPU: `all` that PyTorch takes (`OMP_NUM_THREADS`), or `one`. "
        "`auto` times both, and takes one where that is clearly faster: for very small models, and "
        "on machines that are busy with other work. The two give different bits.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Compile the blocks (`torch.compile`), which takes a minute at first and gives "
        "different bits. `auto`: on for CUDA; on a CPU timed, if a time budget of ten minutes or "
        "more leaves room for it, else off; off in fine-tuning. If compiling fails it is off.",
    )
    micro_batch: Count | None = Field(
        None,
        description="Sequences in one forward pass; unset: as many as fit. It changes memory and "
        "speed, not the result.",
    )
    memory_gigabytes: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="Memory that weights, moments and activations may take (10^9 bytes), from "
        "which `micro_batch` is derived; unset: 3, on CUDA 90% of what is free. A micro-batch "
        "that does not fit is halved.",
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="With several processes (torchrun): each has the whole model (`ddp`), or a "
        "part of its weights, gradients and moments (`fsdp`), for models that would not fit.",
    )
    activation_checkpointing: bool = Field(
        False,
        description="Compute a block's activations again in the backward pass instead of keeping "
        "them: a fraction of the memory, about a third more time.",
    )
    deterministic: bool = Field(
        False,
        description="The same command gives the same bits each time on one machine: precision, "
        "threads and compiling are not timed, where they are `auto`, but float32 with all threads "
        "and not compiled (on CUDA bfloat16 or float16, compiled), and CUDA takes only kernels "
        "that give the same bits each time, which is slower. A time budget still depends on "
        "measured speed: give updates, tokens or epochs.",
    )


class Plugin(Table):
    """A Python file of the user's that registers names (docs/plugins.md). An entry here runs
    nothing: the file has to be named with `--plugin` each time.
    """

    path: str = Field(description="Absolute path of the file when the run was made.")
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 of its bytes, in hex; the run needs these."
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
    checkpoint: CheckpointTable = CheckpointTable()
    track: Track = Track()
    execution: Execution = Execution()

"""Settings of what training starts from, and of fine-tuning."""

from typing import Annotated, Literal

from pydantic import Field

from hairpin.config.table import Count, Names, Table

Column = Annotated[str, Field(min_length=1, max_length=200)]


class Start(Table):
    """What training starts from, where that is not random weights."""

    path: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Absolute path of the run, or of the folder with a model in safetensors "
        "(GPT-2, or one that hairpin exported), whose weights, shape and tokenizer are taken; "
        "unset: random weights. The peak learning rate is then lower unless it is set.",
    )
    weights: Literal["best", "last"] = Field(
        "best", description="Of a run: the best validation's weights, or the last."
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
        description="Examples in one update, in place of `train.tokens_per_update`, which then "
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
        "its first or its last tokens, or drop it; how many were cut or dropped is said. Of an "
        "instruction only the input is shortened.",
    )
    no_answer: Literal["error", "drop"] = Field(
        "error",
        description="What to do with a record without a response or a label: stop and name it, or "
        "drop it and say how many were dropped.",
    )
    text_column: Column = Field("text", description="Where `classify` finds a text.")
    label_column: Column = Field("label", description="Where it finds the label.")
    labels: Names = Field(
        (),
        description="The labels, in the order of the classifier's outputs. Filled in by the run.",
    )
    instruction_column: Column = Field(
        "instruction", description="Where `instruct` finds an instruction."
    )
    input_column: Column | None = Field(
        None,
        min_length=1,
        description="Where it finds what the instruction is about, if any; unset: `input`, or "
        "`context` in a file without an `input`.",
    )
    response_column: Column | None = Field(
        None,
        min_length=1,
        description="Where it finds the response; unset: `response`, or `output` in a record "
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
        True, description="Only the response is learned; false: the prompt's tokens as well."
    )

"""Settings of the text, and of how it becomes tokens."""

from typing import Literal

from pydantic import Field

from hairpin.config.table import Names, Table


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

"""Settings of the text, and of how it becomes tokens."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from hairpin.config.formats import FORMATS
from hairpin.config.table import Table

CorpusName = Literal["stdlib", "python-docs", "verdict"]
if TYPE_CHECKING:
    Format = str
else:
    Format = Literal[FORMATS]
GLOB_CHARACTERS = frozenset("*?[")

_COLUMN = "The column of a table whose rows are the documents; unset: `text` if there is one, else "
_FORMAT = (
    "What the files hold; unset: what each one's name says. `dataset` is a folder that Hugging "
    "Face's `save_to_disk` wrote."
)
_SEPARATOR = (
    "The string that divides a text file into documents; unset: one document a file. On the "
    "command line `\\n`, `\\r`, `\\t` and `\\\\` stand for a newline, a return, a tab and a "
    "backslash. A newline is found where the text has CRLF, too."
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def _named_text(path: str) -> str:
    if not path.strip():
        raise ValueError("a path is empty (a variable that is not set?); name a file")
    return path


Texts = Annotated[tuple[Annotated[str, AfterValidator(_named_text)], ...], Field(strict=False)]


def unescaped(typed: str) -> str:
    r"""Return the separator that was typed in a shell, where \n arrives as a backslash and an n."""
    return re.sub(r"\\([nrt\\])", lambda found: _ESCAPES[found[1]], typed)


class Source(Table):
    """One of several sources of a mixture."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        max_length=40,
        description="What the source is called in the record and in plots.",
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
    """Which text, and how it is divided."""

    texts: Texts = Field(
        (),
        description="Absolute paths of the files and folders, or patterns such as "
        "`data/**/*.jsonl.gz`.",
    )
    corpus: CorpusName | None = Field(
        None,
        description="A corpus by name, in place of `texts`: the Python standard library's own "
        "source, Python's help topics, or the short story of the book (downloaded once).",
    )
    sources: Annotated[tuple[Source, ...], Field(strict=False)] = Field(
        (),
        description="Several texts with weights in place of `texts`, as tables "
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

    @property
    def is_named(self) -> bool:
        """Whether any text is named at all."""
        return bool(self.texts or self.corpus or self.sources)

    def parts(self) -> Iterator[tuple[Source, "Data"]]:
        """Each source of a mixture, with the settings of its text alone."""
        for source in self.sources:
            own = source.model_dump(exclude={"name", "weight"}, exclude_none=True)
            whole: dict[str, Any] = self.model_dump(exclude={"sources", "hash", "texts", "corpus"})
            yield source, Data.model_validate({**whole, **own})


def short_name(text: str) -> str:
    """A word for a file, a folder or a pattern: of a pattern the folder that it looks in."""
    path = Path(text)
    while {"*", "?"} & set(path.name):
        path = path.parent
    return path.name.split(".")[0] or path.name or "text"


def named(data: Data, most: int = 3) -> str:
    """The texts in a word or a few."""
    if data.corpus:
        return data.corpus
    if data.sources:
        names = [source.name for source in data.sources]
        return "-".join(names[:most]) + (f"-and-{len(names) - most}" if len(names) > most else "")
    return short_name(data.texts[0]) if data.texts else "text"


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

"""Read another text for an existing run as the run read its own.

The run's separator, column, format and treatment of bad bytes apply to the text too, so that the
same text gives the same numbers; a call may override them.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from hairpin.config.checks import value_of
from hairpin.config.formats import format_of
from hairpin.config.load import build_config, parse_override
from hairpin.config.settings import GLOB_CHARACTERS, Data, Format
from hairpin.data.corpus import Corpus, open_corpus
from hairpin.data.encoding import token_blocks
from hairpin.data.order import Indices
from hairpin.data.tables.columns import table_words
from hairpin.data.tables.spool import is_table, spool
from hairpin.data.tokenizers import Tokenizer
from hairpin.errors import ConfigError, CorpusError

READING = ("data.column", "data.format", "data.separator", "data.on_bad_bytes")
RECORDS = (
    "data.on_bad_bytes",
    "finetune.text_column",
    "finetune.label_column",
    "finetune.instruction_column",
    "finetune.input_column",
    "finetune.response_column",
    "finetune.too_long",
    "finetune.no_answer",
)


def reading_settings(
    overrides: Iterable[str], settings: Mapping[str, Any], known: Sequence[str] = READING
) -> dict[str, Any]:
    """Return the settings of a call for reading a text, as dotted key → value.

    Args:
        overrides: "key=value" strings.
        settings: dotted key → value.
        known: the keys for reading.

    Raises:
        ConfigError: a key or a value is invalid, or is not about reading.
    """
    overrides = tuple(overrides)
    keys = dict.fromkeys([*(parse_override(text)[0] for text in overrides), *settings])
    asked = build_config(overrides=overrides, flags=settings)
    if others := [key for key in keys if key not in known]:
        raise ConfigError(
            f"{key}: does not change how a text is read; here {', '.join(known)} can be set"
            for key in others
        )
    return {key: value_of(asked, key) for key in keys}


def as_list(texts: Any) -> list[Any]:
    """Return one text or several as a list: paths, and rows held by Python.

    Raises:
        CorpusError: a path is empty.
    """
    is_one = isinstance(texts, str | os.PathLike) or is_table(texts)
    found = [texts] if is_one else list(texts)
    if any(isinstance(text, str) and not text for text in found):
        raise CorpusError("a text's name is empty (a variable that is not set?); name a file")
    return found


def files_of(texts: Iterable[Any]) -> list[Path]:
    """Return the paths of files of records.

    Raises:
        CorpusError: one is not a file of records.
    """
    found = list(texts)
    if others := [text for text in found if not isinstance(text, str | os.PathLike)]:
        raise CorpusError(
            f"a {type(others[0]).__name__} is not a file; write its records to a file, and "
            "name that"
        )
    return [Path(text) for text in found]


def open_like_run(own: Data, texts: Iterable[Any], said: Mapping[str, Any]) -> list[Corpus]:
    """Open texts as a run reads its own, in their order.

    Args:
        own: the run's settings.
        texts: as from `as_list`; rows are written to disk first.
        said: as from `reading_settings`, which takes precedence.

    Raises:
        CorpusError: a line for each that cannot be read; or a column is named without a table.
    """
    changed = {key.partition(".")[2]: value for key, value in said.items()}
    corpora: list[Corpus] = []
    problems: list[str] = []
    for data in _joined_sources([_reading_settings(own, text, changed) for text in texts]):
        try:
            corpora.append(open_corpus(data))
        except CorpusError as error:
            problems += error.problems
    tables = [s for corpus in corpora for s in corpus.sources if s.format != "text"]
    if changed.get("column") and not tables and not problems:
        problems.append(f"--column {changed['column']}: none of the texts is a table; leave it out")
    if problems:
        raise CorpusError(problems)
    return corpora


def _reading_settings(own: Data, text: Any, changed: Mapping[str, Any]) -> Data:
    """Return the settings for reading one text: the call's, else the run's."""
    if isinstance(text, str | os.PathLike):
        return _how(own, Path(text).absolute()).model_copy(update=changed)
    column = changed.get("column") or own.column
    return Data(texts=(str(spool(text, column)),), on_bad_bytes=own.on_bad_bytes)


class InMemory:
    """A stream of tokens that fits in memory."""

    def __init__(self, ids: Indices) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, start: int, count: int) -> Indices:
        """Return `count` ids from index `start` on; indices are taken modulo the length."""
        return self._ids.take(np.arange(start, start + count), mode="wrap")


def tokens_of(corpora: Iterable[Corpus], tokenizer: Tokenizer) -> InMemory:
    """Return the tokens of all documents, an end-of-text before each."""
    documents = chain.from_iterable(corpus.documents() for corpus in corpora)
    blocks = [ids for ids, _ in token_blocks(documents, tokenizer)]
    return InMemory(np.concatenate(blocks).astype(np.int64) if blocks else np.empty(0, np.int64))


def pass_notices(corpus: Corpus) -> list[str]:
    """Return lines about what was left out or replaced in the last pass."""
    column = corpus.data.column if corpus.rows else None
    of_tables = table_words(column, tuple(corpus.unused), corpus.rows, corpus.empty)
    return [*([of_tables] if of_tables else []), *corpus.notices()]


def _how(own: Data, path: Path) -> Data:
    """Return the run's settings for a text: of the source that has it, or those shared by all."""
    parts = [part for _, part in own.parts()] or [own]
    same = next((part for part in parts if _has(part, path)), None)
    if same is None:
        same, *others = parts
        differing = [
            name
            for name in ("column", "separator")
            if any(getattr(other, name) != getattr(same, name) for other in others)
        ]
        same = same.model_copy(update={name: getattr(own, name) for name in differing})
    format_ = _format(parts if len(parts) > 1 and not _has(same, path) else [same], path)
    fresh = {"texts": (str(path),), "corpus": None, "sources": (), "hash": None, "format": format_}
    return same.model_copy(update=fresh)


def _has(part: Data, path: Path) -> bool:
    """True if a text is one of a source's, or in one of its folders."""
    return any(path == Path(text) or path.is_relative_to(text) for text in part.texts)


def _format(parts: Sequence[Data], path: Path) -> Format | None:
    """Return the format of a text; None: its name decides.

    A run's config has the format of its files whether it was set or not. It was set if a file's
    own name implies another, and then it applies to another text with a similar name.
    """
    said = format_of(path)
    for part in parts:
        if part.format == "text":
            return "text"
        names = [Path(text) for text in part.texts]
        if part.format and said in {format_of(name) for name in names if _is_file(name)}:
            return part.format
    return None


def _is_file(name: Path) -> bool:
    """True if a path is a file, existing or gone; files in a folder are known by their names."""
    if name.exists():
        return name.is_file()
    return bool(name.suffix) and not GLOB_CHARACTERS & set(str(name))


def _joined_sources(ways: Sequence[Data]) -> list[Data]:
    """Join consecutive texts that are read alike."""
    together: list[Data] = []
    for data in ways:
        last = together[-1] if together else None
        if last and last.model_copy(update={"texts": data.texts}) == data:
            texts = tuple(dict.fromkeys(chain(last.texts, data.texts)))
            together[-1] = data.model_copy(update={"texts": texts})
        else:
            together.append(data)
    return together

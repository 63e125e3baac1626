"""A run's file of records as training and validation examples: divided alike each time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.data.records import Row, read_rows
from hairpin.data.tokenizers import Tokenizer
from hairpin.errors import ConfigError, CorpusError
from hairpin.files import sha256_of
from hairpin.finetuning.examples import Example
from hairpin.finetuning.instructions import instruction_examples, prompt_of, read_instructions
from hairpin.finetuning.labelled import label_of, labelled_examples, labels_of, lonely_labels
from hairpin.finetuning.split import stratified

_OTHER_COLUMNS = "name yours with --set finetune.text_column=… and finetune.label_column=…"
_SPLIT_SEED = 0  # the same halves whatever `train.seed` is, so that seeds can be compared


@dataclass(frozen=True)
class Divided:
    """Examples, and the config with what was learned from them filled in.

    Args:
        config: with the file's hash, and a classifier's labels.
        train, val: the two halves.
        val_rows: the rows of `val`.
        notices: lines that people should read.
    """

    config: Config
    train: list[Example]
    val: list[Example]
    val_rows: list[Row]
    notices: tuple[str, ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(len(example.inputs) for example in (*self.train, *self.val))


def divide(config: Config, tokenizer: Tokenizer) -> Divided:
    """The examples of the run's file.

    Args:
        config: with `finetune.kind`, one file, and a context.
        tokenizer: the run's.

    Raises:
        CorpusError: the file cannot be read, or its records are not fit to learn from.
        ConfigError: the file is not the one that the run began with.
    """
    path = Path(config.data.texts[0])
    digest = sha256_of(path) if path.is_file() else None  # reading says what is wrong with it
    if digest and config.data.hash not in (None, digest):
        raise ConfigError(
            f"{path}: not the file that this config was made with (data.hash); restore it, or "
            "remove the key"
        )
    found = _read(path, config, tokenizer)
    if len(set(found.keys)) < 2:
        raise CorpusError(
            f"{path}: all its {len(found.keys):,} texts are the same; one that differs is needed, "
            "to be kept for validation"
        )
    halves = stratified(found.classes, found.keys, config.data.validation_fraction, _SPLIT_SEED)
    for half, name in zip(halves, ("training", "validation"), strict=True):
        if not half:
            raise CorpusError(f"{path}: too few records: none is left for {name}; add some")
    train, val = halves
    return Divided(
        with_values(found.config, {"data.hash": digest}),
        [found.examples[index] for index in train],
        [found.examples[index] for index in val],
        [found.rows[index] for index in val],
        found.notices,
    )


@dataclass(frozen=True)
class _Found:
    """What a file has in it; `classes` and `keys` decide how it is divided."""

    config: Config
    rows: Sequence[Row]
    examples: list[Example]
    classes: list[str]
    keys: list[str]
    notices: tuple[str, ...]


def _read(path: Path, config: Config, tokenizer: Tokenizer) -> _Found:
    read = _read_labelled if config.finetune.kind == "classify" else _read_instructions
    return read(path, config, tokenizer)


def _read_labelled(path: Path, config: Config, tokenizer: Tokenizer) -> _Found:
    asked = config.finetune
    rows = read_rows(path, [asked.text_column, asked.label_column], advice=_OTHER_COLUMNS)
    labels = asked.labels or labels_of(rows, asked.label_column)
    lonely = lonely_labels(rows, asked.label_column)
    examples, cut = labelled_examples(rows, labels, tokenizer, config)
    return _Found(
        with_values(config, {"finetune.labels": list(labels)}),
        rows,
        examples,
        classes=[label_of(row, asked.label_column) for row in rows],
        keys=[" ".join(row.fields[asked.text_column].split()) for row in rows],
        notices=(*((lonely,) if lonely else ()), *cut_notice(cut, len(rows), config)),
    )


def _read_instructions(path: Path, config: Config, tokenizer: Tokenizer) -> _Found:
    rows, column = read_instructions(path, config.finetune)
    examples, cut = instruction_examples(rows, column, tokenizer, config)
    return _Found(
        config,
        rows,
        examples,
        classes=[""] * len(rows),
        keys=[prompt_of(row, config.finetune) for row in rows],
        notices=cut_notice(cut, len(rows), config),
    )


def cut_notice(cut: int, count: int, config: Config) -> tuple[str, ...]:
    """A line that says how many of so many examples were cut, if any was."""
    if not cut:
        return ()
    return (
        f"{cut:,} of {count:,} examples were longer than the context and were cut "
        f"(finetune.too_long = {config.finetune.too_long})",
    )


def other_examples(
    path: Path, config: Config, tokenizer: Tokenizer
) -> tuple[list[Example], tuple[str, ...]]:
    """All examples of another file, to measure a fine-tuned run on, and what people should read.

    Raises:
        CorpusError: the file cannot be read, or has labels that the run does not know.
    """
    found = _read(path, config, tokenizer)
    return found.examples, found.notices

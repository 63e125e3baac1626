"""A run's records as training and validation examples, split the same way each time."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.data.tables.arrow import files_of_split, is_saved_dataset
from hairpin.data.tables.records import Row, Wanted, read_records
from hairpin.data.tokenizers import Tokenizer
from hairpin.errors import ConfigError, CorpusError
from hairpin.system.files import sha256_of
from hairpin.tasks.classification import (
    label_of,
    labelled_examples,
    labels_of,
    lonely_labels,
    names_of_labels,
)
from hairpin.tasks.examples import Example
from hairpin.tasks.instructions import (
    instruction_examples,
    plain_prompt_of,
    prompt_of,
    read_instructions,
)
from hairpin.tasks.template import NAMES, unknown_names

_OTHER_COLUMNS = "name yours with --set finetune.text_column=… and finetune.label_column=…"
_EXAMPLE = '{"text": "…", "label": "…"}'
_SPLIT_SEED = 0  # the same split for every `train.seed`, so that seeds can be compared


@dataclass(frozen=True)
class Used:
    """Usage of a file of records.

    Args:
        records: their total number.
        columns: each field, and the column that it was found in.
        unused: nonempty columns that are not used, and the number of records with a value there.
        unanswered: records dropped for lack of a response or label.
        cut, dropped: examples longer than the context.
        replaced: U+FFFD characters that replace bad bytes.
    """

    records: int
    columns: Mapping[str, str]
    unused: Mapping[str, int] = field(default_factory=dict)
    unanswered: int = 0
    cut: int = 0
    dropped: int = 0
    replaced: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the counts for the run's record, without those that are zero."""
        facts = {key: value for key, value in asdict(self).items() if value}
        return {"count": facts.pop("records"), **facts}

    def notices(self, config: Config) -> tuple[str, ...]:
        """Return lines about the records that were dropped or cut."""
        asked, lines = config.finetune, []
        if self.replaced:
            lines.append(
                f"{self.replaced:,} characters of the file replace bytes that are not UTF-8 "
                "(data.on_bad_bytes = replace)"
            )
        if self.unanswered:
            what = "label" if asked.kind == "classify" else "response"
            lines.append(
                f"{self.unanswered:,} of {self.records:,} records have no {what} and were dropped "
                f"(finetune.no_answer = {asked.no_answer})"
            )
        for count, done in ((self.cut, "cut"), (self.dropped, "dropped")):
            if count:
                lines.append(
                    f"{count:,} of {self.records - self.unanswered:,} examples were longer than "
                    f"the context and were {done} (finetune.too_long = {asked.too_long})"
                )
        return tuple(lines)


@dataclass(frozen=True)
class Divided:
    """Examples, and the config filled in from them.

    Args:
        config: with the file's hash, the comparison of prompts, and a classifier's labels.
        train, val: the two parts.
        val_rows: the rows of `val`.
        used: usage of the file.
        notices: lines that users should read.
    """

    config: Config
    train: list[Example]
    val: list[Example]
    val_rows: list[Row]
    used: Used
    notices: tuple[str, ...]

    @property
    def longest(self) -> int:
        """Tokens in the longest example."""
        return max(len(example.inputs) for example in (*self.train, *self.val))


def divide_records(config: Config, tokenizer: Tokenizer) -> Divided:
    """Split the run's file into examples.

    Args:
        config: with `finetune.kind`, one file, and a context.
        tokenizer: the run's.

    Raises:
        CorpusError: the file cannot be read, or its records are unfit for training.
        ConfigError: the file is not the one that the run began with.
    """
    path = Path(config.data.texts[0])
    digest = _hash_of(path)
    if digest and config.data.hash not in (None, digest):
        raise ConfigError(
            f"{path}: not the file that this config was made with (data.hash differs); restore "
            "it, or remove the key"
        )
    if config.data.hash is None:  # an older run keeps what it was made with
        _require_known_names(config)
    config = _comparing_prompts(config)
    found = _read(path, config, tokenizer)
    _require_some(path, found)
    if len(set(found.keys)) < 2:
        raise CorpusError(
            f"{path}: all its {len(found.keys):,} texts are the same; a different one is needed "
            "for validation"
        )
    halves = stratified(found.classes, found.keys, config.data.validation_fraction, _SPLIT_SEED)
    for half, name in zip(halves, ("training", "validation"), strict=True):
        if not half:
            raise CorpusError(f"{path}: no record is left for {name}: {_reason_for_none(found)}")
    train, val = halves
    return Divided(
        with_values(found.config, {"data.hash": digest}),
        [found.examples[index] for index in train],
        [found.examples[index] for index in val],
        [found.rows[index] for index in val],
        found.used,
        found.notices,
    )


def _hash_of(path: Path) -> str | None:
    """Return the hash of a file, or of all files of a saved dataset; None: reading reports what is
    wrong with it.
    """
    if path.is_file():
        return sha256_of(path)
    if not is_saved_dataset(path):
        return None
    whole = hashlib.sha256()
    for file in files_of_split(path):
        whole.update(bytes.fromhex(sha256_of(file)))
    return whole.hexdigest()


def _require_known_names(config: Config) -> None:
    unknown = unknown_names(config.finetune.template)
    if config.finetune.kind == "instruct" and unknown:
        raise ConfigError(
            f"finetune.template: {', '.join(unknown)} would appear unchanged in every prompt; the "
            f"names that are filled in are {' and '.join(NAMES)}"
        )


def _comparing_prompts(config: Config) -> Config:
    """Return the config with the comparison of prompts filled in. A run older than this setting,
    which already has its file's hash, keeps the split that it was made with, and its config.
    """
    asked = config.finetune
    if asked.kind != "instruct" or asked.same_prompts or config.data.hash:
        return config
    return with_values(config, {"finetune.same_prompts": "white-space"})


@dataclass(frozen=True)
class _Found:
    """Contents of a file; `classes` and `keys` decide the split."""

    config: Config
    rows: Sequence[Row]
    examples: list[Example]
    classes: list[str]
    keys: list[str]
    used: Used
    notices: tuple[str, ...]


def _require_some(path: Path, found: _Found) -> None:
    if not found.examples:
        raise CorpusError(f"{path}: no record is left: {'; '.join(found.notices)}")


def _reason_for_none(found: _Found) -> str:
    lonely = lonely_labels(found.classes, found.keys)
    if lonely and set(lonely) == set(found.classes) and lonely != [""]:
        return (
            f"each label has only one text ({names_of_labels(lonely)}), which training takes; "
            "give labels two different texts or more, or name another column with "
            "--set finetune.label_column=…"
        )
    return f"too few records ({len(found.rows):,}); add some"


def _read(path: Path, config: Config, tokenizer: Tokenizer) -> _Found:
    read = _read_labelled if config.finetune.kind == "classify" else _read_instructions
    return read(path, config, tokenizer)


def _read_labelled(path: Path, config: Config, tokenizer: Tokenizer) -> _Found:
    asked = config.finetune
    text, label = asked.text_column, asked.label_column
    records = read_records(path, (text, label), config.data.on_bad_bytes)
    may_drop = asked.no_answer == "drop" and label in records.columns
    required, optional = ((text,), (label,)) if may_drop else ((text, label), ())
    everyone = records.rows(Wanted(required, optional, _OTHER_COLUMNS, _EXAMPLE))
    rows = [row for row in everyone if label_of(row, label) or not may_drop]
    labels = asked.labels or labels_of(rows, label)
    made = labelled_examples(rows, labels, tokenizer, config)
    used = Used(
        len(everyone),
        {"text": text, "label": label},
        records.unused({text, label}),
        len(everyone) - len(rows),
        made.cut,
        made.dropped,
        records.replaced,
    )
    classes = [label_of(row, label) for row in made.rows]
    keys = [" ".join(row.fields[text].split()) for row in made.rows]
    lonely = lonely_labels(classes, keys)
    line = "labels with one text, which cannot be in both training and validation: "
    return _Found(
        with_values(config, {"finetune.labels": list(labels)}),
        made.rows,
        made.examples,
        classes,
        keys,
        used,
        (*([line + names_of_labels(lonely)] if lonely else []), *used.notices(config)),
    )


def _read_instructions(path: Path, config: Config, tokenizer: Tokenizer) -> _Found:
    asked = config.finetune
    found = read_instructions(path, config)
    made = instruction_examples(found.rows, tokenizer, config)
    used = Used(
        len(found.rows) + found.unanswered,
        found.columns,
        found.unused,
        found.unanswered,
        made.cut,
        made.dropped,
        found.replaced,
    )
    prompts = [prompt_of(row, asked) for row in made.rows]
    plain = [plain_prompt_of(row, asked) for row in made.rows]
    return _Found(
        config,
        made.rows,
        made.examples,
        classes=[""] * len(made.rows),
        keys=_one_of_each(prompts, plain) if asked.same_prompts == "white-space" else prompts,
        used=used,
        notices=used.notices(config),
    )


def _one_of_each(prompts: Sequence[str], plain: Sequence[str]) -> list[str]:
    """Return the prompts, replacing those whose plain forms are equal by one of them.

    A unique one stays as it is, and so does its place in the split.
    """
    first: dict[str, str] = {}
    for prompt, key in zip(prompts, plain, strict=True):
        first[key] = min(prompt, first.get(key, prompt))
    return [first[key] for key in plain]


def other_examples(
    path: Path, config: Config, tokenizer: Tokenizer
) -> tuple[list[Example], tuple[str, ...]]:
    """Return all examples of another file, to evaluate a fine-tuned run on, and its notices.

    Raises:
        CorpusError: the file cannot be read, or has labels unknown to the run.
    """
    found = _read(path, config, tokenizer)
    _require_some(path, found)
    return found.examples, found.notices


# --- the split: a share of each class, and no text in both halves ---
#
# A text's rank is the hash of (seed, text). Of each class, the lowest ranks are for validation. So
# the order of the file does not matter, and a new example moves few others.


@dataclass(frozen=True, order=True)
class _Group:
    """The examples with one text: they stay together."""

    rank: bytes
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)


def stratified(
    labels: Sequence[str], keys: Sequence[str], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Return the indices of training and of validation examples, each in ascending order.

    Every class with at least two different texts has an example in each half; one with a single
    text is for training. A text with several labels counts towards its most frequent.

    Args:
        labels: the class of each example; all the same for data without classes.
        keys: the text of each example; those with equal texts go to the same half.
        fraction: the share of validation; 0 leaves all to training.
        seed: a different one gives a different split.

    Raises:
        ValueError: the fraction is not at least 0 and below 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"a validation share of {fraction} is not in [0, 1)")
    classes = _classes(labels, keys, seed)
    wanted = _shares(
        {label: sum(map(len, each)) for label, each in classes.items()}, fraction, seed
    )
    chosen: set[int] = set()
    for label, groups in classes.items():
        for group in _first(groups, wanted[label]) if fraction else ():
            chosen.update(group.indices)
    everyone = range(len(labels))
    return [i for i in everyone if i not in chosen], sorted(chosen)


def _classes(labels: Sequence[str], keys: Sequence[str], seed: int) -> dict[str, list[_Group]]:
    """Return the groups of each class, in order of rank."""
    same: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        same[key].append(index)
    classes: dict[str, list[_Group]] = defaultdict(list)
    for key, indices in same.items():
        counts = Counter(labels[index] for index in indices)
        label = min(counts, key=lambda label: (-counts[label], label))
        classes[label].append(_Group(_rank(seed, key), tuple(indices)))
    return {label: sorted(groups) for label, groups in classes.items()}


def _shares(sizes: Mapping[str, int], fraction: float, seed: int) -> dict[str, int]:
    """Return the number of validation examples for each class, by largest remainder: each within
    one of its share, and in total the share of the whole, rounded.
    """
    wanted = {label: int(size * fraction) for label, size in sizes.items()}
    missing = round(sum(sizes.values()) * fraction) - sum(wanted.values())

    def urgency(label: str) -> tuple[float, bytes]:
        return wanted[label] - sizes[label] * fraction, _rank(seed, label)

    for label in sorted(sizes, key=urgency)[: max(missing, 0)]:
        wanted[label] += 1
    return wanted


def _first(groups: list[_Group], wanted: int) -> list[_Group]:
    """Return groups with about `wanted` examples: at least one if there are two, and not all."""
    if len(groups) == 1:
        return []
    taken, count = [], 0
    for group in groups:
        if 2 * count + len(group) < 2 * wanted:  # closer with the group than without
            taken.append(group)
            count += len(group)
    smallest = min(groups, key=len)
    if len(taken) == len(groups):
        taken.remove(smallest)
    return taken or [smallest]


def _rank(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).digest()

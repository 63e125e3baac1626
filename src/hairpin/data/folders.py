"""Choosing a folder's text: which of its files, and which folders hold none.

LeftOut               counts what is left out of a text
of_a_folder(…)        texts or tables, and which split of a data set
recognise_folder(…)   hairpin's own folders, caches and other programs' folders
"""

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hairpin.config.settings import GLOB_CHARACTERS, Format
from hairpin.data.recognising import Kind, useless

# Texts next to the tables of a data set that only describe it.
_ABOUT = re.compile(
    r"(?:readme|licen[cs]e|copying|notice|authors|citation|changelog|contributing|datasheet"
    r"|dataset_infos?)(?:[._-].*)?",
    re.IGNORECASE,
)
# As on Hugging Face's hub: `train-00000-of-00001.parquet`, `data/test.csv`, `validation/1.jsonl`.
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}

_CARD_CHARS = 100_000
_CARD = re.compile(
    r"---\s*\n(?:(?!---).*\n)*?(?:dataset_info|configs|task_categories|task_ids|size_categories):"
)
_ABOUT_TABLES = Kind(
    "text about the tables",
    "",
    "give its name to include it",
    many="texts about the tables",
)
_TABLES = Kind(
    "table next to texts",
    "",
    "--column NAME includes them, --set data.format=text reads them as plain text",
    many="tables next to texts",
)
_MAX_NAMES = 3


@dataclass(frozen=True)
class FoundFile:
    """A file in a folder.

    Args:
        path: where it is.
        name: its place in the folder, for messages.
        format: what it holds.
    """

    path: Path
    name: str
    format: Format


@dataclass
class _Entry:
    """The count of one kind, and the first few names."""

    count: int
    names: list[str]


class LeftOut:
    """Files and folders left out of a text, counted by kind."""

    def __init__(self) -> None:
        self._entries: dict[Kind, _Entry] = {}

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, kind: Kind, name: str) -> None:
        """Count one more.

        Args:
            kind: its kind.
            name: its name, for messages.
        """
        entry = self._entries.setdefault(kind, _Entry(0, []))
        entry.count += 1
        entry.names.append(name)
        del entry.names[_MAX_NAMES:]

    def take(self, other: "LeftOut") -> None:
        """Add another's counts."""
        for kind, entry in other._entries.items():
            mine = self._entries.setdefault(kind, _Entry(0, []))
            mine.count += entry.count
            mine.names = (mine.names + entry.names)[:_MAX_NAMES]

    @property
    def total(self) -> int:
        """The number of files and folders left out."""
        return sum(entry.count for entry in self._entries.values())

    def counts(self) -> dict[str, int]:
        """Return the count of each kind by name."""
        found: dict[str, int] = {}
        for kind, entry in self._entries.items():
            found[kind.name] = found.get(kind.name, 0) + entry.count
        return found

    def lines(self) -> Iterator[str]:
        """Yield a line with advice for each kind that contains text, and one line for the rest."""
        others: dict[str, tuple[Kind, _Entry]] = {}
        for kind, entry in self._entries.items():
            if kind.has_text:
                yield f"left out: {_counted(kind, entry)}: {kind.advice}"
            else:
                _, same = others.setdefault(kind.name, (kind, _Entry(0, [])))
                same.count += entry.count
                same.names += entry.names
        if others:
            by_count = sorted(others.values(), key=lambda other: -other[1].count)
            counted = (
                _counted(kind, entry) if entry.count <= _MAX_NAMES else kind.counted(entry.count)
                for kind, entry in by_count
            )
            yield f"left out: {', '.join(counted)}"


def _counted(kind: Kind, entry: _Entry) -> str:
    names = ", ".join(entry.names[:_MAX_NAMES])
    more = entry.count - _MAX_NAMES
    return f"{kind.counted(entry.count)} ({names}{f' and {more:,} more' if more > 0 else ''})"


def of_a_folder(
    found: list[FoundFile], left_out: LeftOut, *, takes_tables: bool
) -> list[FoundFile]:
    """Return the files that make up a folder's text: its texts, or its tables if the only texts
    are about them. Of tables in splits, return the train split.

    Args:
        found: all readable files, in order.
        left_out: counts the others.
        takes_tables: whether to include tables that lie among texts.
    """
    tables = [one for one in found if one.format != "text"]
    texts = [one for one in found if one.format == "text"]
    if not tables:
        return found
    if all(_ABOUT.fullmatch(one.path.name) for one in texts) or any(map(_is_card, texts)):
        _leave_out(texts, _ABOUT_TABLES, left_out)
        return _train_split(tables, left_out)
    if takes_tables:
        taken = {one.path for one in (*texts, *_train_split(tables, left_out))}
        return [one for one in found if one.path in taken]
    _leave_out(tables, _TABLES, left_out)
    return texts


def _is_card(one: FoundFile) -> bool:
    """Tell whether a text is a data set card, as repositories on the hub have."""
    if one.name.lower() != "readme.md":
        return False
    try:
        with one.path.open(encoding="utf-8", errors="replace") as file:
            return _CARD.match(file.read(_CARD_CHARS)) is not None
    except OSError:
        return False


def _leave_out(those: Sequence[FoundFile], kind: Kind, left_out: LeftOut) -> None:
    for one in those:
        left_out.add(kind, one.name)


def _train_split(tables: list[FoundFile], left_out: LeftOut) -> list[FoundFile]:
    """Drop tables of other splits where names show both train and another split."""
    splits = {one.path: _split_of(one.name) for one in tables}
    others = sorted({split for split in splits.values() if split and split != "train"})
    if "train" not in splits.values() or not others:
        return tables
    kind = Kind(
        f"table of the split {' or '.join(others)}",
        "",
        "only the split train is read; name a file to include it",
        many=f"tables of the split{'s' if len(others) > 1 else ''} {' and '.join(others)}",
    )
    _leave_out([one for one in tables if splits[one.path] in others], kind, left_out)
    return [one for one in tables if splits[one.path] not in others]


def _split_of(name: str) -> str | None:
    """Return the split named by the file's own name, else by the nearest folder that names one."""
    for part in reversed(name.lower().split("/")):
        for word in re.split(r"[^a-z]+", part):
            if word in _SPLIT_OF:
                return _SPLIT_OF[word]
    return None


# --- folders that are no text ---

_RUN = useless("run folder", "the folder of a hairpin run")
_EXPERIMENT = useless("run folder", "the folder of a hairpin experiment")
_TOKENS = useless("folder of tokens", "a folder of tokens, as prepare writes it")
_MODEL_FOLDER = useless("model folder", "a model's folder, as `hairpin export` writes it")
OWN_FOLDERS = (_RUN, _EXPERIMENT, _TOKENS, _MODEL_FOLDER)
_TRACKER = useless("tracker's folder", "a tracker's folder")
_ENVIRONMENT = useless("virtual environment", "a Python virtual environment")
CACHE = useless("cache", "a cache")
# Patterns of which each matches the name of something in such a folder.
_FOLDERS: tuple[tuple[tuple[str, ...], Kind], ...] = (
    (("config.toml", "metrics.jsonl"), _RUN),
    (("config.toml", "environment.json"), _RUN),
    (("experiment.json", "results.json"), _EXPERIMENT),
    (("experiment.json", "runs"), _EXPERIMENT),
    (("shards.json", "tokenizer"), _TOKENS),
    (("config.json", "*.safetensors"), _MODEL_FOLDER),
    (("config.json", "pytorch_model*.bin"), _MODEL_FOLDER),
    (("tokenizer.json", "tokenizer_config.json"), _MODEL_FOLDER),
    (("pyvenv.cfg",), _ENVIRONMENT),
    (("CACHEDIR.TAG",), CACHE),
)
# What every programmer has, by name.
_NAMED: dict[str, tuple[str, Kind]] = {
    "__pycache__": ("*", CACHE),
    "node_modules": ("*", useless("folder of packages", "a folder of packages")),
    "wandb": ("*run-*", _TRACKER),
    "mlruns": ("[0-9]*", _TRACKER),
}


class Inside:
    """Finds out whether a pattern's matches lie in a folder that holds no text.

    Args:
        pattern: folders before its first wildcard were named, and are searched whatever they are.
    """

    def __init__(self, pattern: Path) -> None:
        parts = pattern.parts
        wild = next(n for n, part in enumerate(parts) if GLOB_CHARACTERS & set(part))
        self._base = Path(*parts[:wild])
        self._known: dict[Path, Kind | None] = {}

    def folder_of(self, path: Path) -> tuple[Path, Kind] | None:
        """Return the outermost such folder that contains the path, with its kind."""
        inner = path if path.is_dir() else path.parent
        for folder in reversed((inner, *inner.parents)):
            if folder == self._base or not folder.is_relative_to(self._base):
                continue
            if folder not in self._known:
                self._known[folder] = recognise_folder(folder.name, names_in(folder))
            if kind := self._known[folder]:
                return folder, kind
        return None


def names_in(folder: Path) -> list[str]:
    """List a folder; a folder that cannot be read gives no names, and is reported elsewhere."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - names alone
    except OSError:
        return []


def recognise_folder(name: str, entries: Sequence[str]) -> Kind | None:
    """Return the kind of a folder that holds no text of the user's, or None.

    Args:
        name: the folder's name.
        entries: names of the files and folders in it.
    """
    pattern, kind = _NAMED.get(name, ("", CACHE))
    known = (*_FOLDERS, ((pattern,), kind)) if pattern else _FOLDERS
    there = frozenset(entries)
    for patterns, kind in known:
        if all(one in there or ("*" in one and fnmatch.filter(entries, one)) for one in patterns):
            return kind
    return None

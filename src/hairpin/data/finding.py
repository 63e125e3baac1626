"""Finding text: files, folders and patterns, and the format of each file."""

import glob
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from hairpin.config.formats import format_of
from hairpin.config.settings import GLOB_CHARACTERS, Data, Format
from hairpin.data.folders import (
    CACHE,
    OWN_FOLDERS,
    FoundFile,
    Inside,
    LeftOut,
    names_in,
    of_a_folder,
    recognise_folder,
)
from hairpin.data.reading import kind_of_file, opening_of, refusal
from hairpin.data.recognising import BINARY, Kind, by_suffix
from hairpin.data.tables.arrow import files_of_split, is_saved_dataset
from hairpin.data.tables.json import begins_like_rows
from hairpin.errors import CorpusError
from hairpin.system.files import cache_folder, shown

_LEGACY_COMPRESSED = (".bz2", ".xz")  # left out by name before files were recognised by content
_HIDDEN = Kind("hidden file or folder", "", "", has_text=False, many="hidden files or folders")
_SPECIAL = Kind(
    "broken link or special file", "", "", has_text=False, many="broken links or special files"
)
_OTHER_FORMAT = Kind(
    "file of another format", "", "", has_text=False, many="files of another format"
)


@dataclass(frozen=True)
class TextSource:
    """The source of a file's text: a file on disk, a folder that is one dataset, or a text held by
    Python.

    Args:
        name: for messages.
        path, text: one of the two.
        format: of the file.
        data: its reading settings, if they differ from the corpus's.
        is_found: whether it was found in a folder, not named.
        is_beside_texts: for a found table, whether its folder has texts too.
    """

    name: str
    path: Path | None = None
    text: str | None = None
    format: Format = "text"
    data: Data | None = None
    is_found: bool = False
    is_beside_texts: bool = False

    def files(self) -> list[Path]:
        """Return the files that determine the text."""
        if self.path is None:
            return []
        if self.format != "dataset":
            return [self.path]
        return files_of_split(self.path)


class Search:
    """Finds files of text below the named paths; collects every problem before it stops.

    From a folder with texts and tables it takes the texts; both if the tables' column is named.

    Args:
        asked: the format of all files; None: by each one's name.
        takes_tables: whether to include tables that lie among texts.
        checks_named: whether to refuse named files that are not text, as their reader does later.

    Attributes:
        sources: the files found, in order.
        problems: lines.
        left_out: found files and folders that are not text.
    """

    def __init__(
        self,
        asked: Format | None = None,
        *,
        takes_tables: bool = False,
        checks_named: bool = True,
    ) -> None:
        self._asked = asked
        self._takes_tables = takes_tables
        self._checks_named = checks_named
        self.sources: list[TextSource] = []
        self.problems: list[str] = []
        self.left_out = LeftOut()
        self._taken: set[Path] = set()

    def add(self, path: Path) -> None:
        """Add a file, the contents of a folder, or the matches of a pattern."""
        if GLOB_CHARACTERS & set(str(path)) and not _exists(path):
            self._add_matches(path)
            return
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                self._add_folder(path)
            elif stat.S_ISREG(mode):
                self._add_file(path)
            else:
                self.problems.append(
                    f"{shown(path)}: is neither a file nor a folder; "
                    "write its text to a file, and name that"
                )
        except FileNotFoundError:
            self.problems.append(_missing_error(path))
        except (OSError, ValueError) as error:
            self._refuse(path, error)

    def _add_file(self, path: Path) -> None:
        with path.open("rb"):
            format_ = self._asked or format_of(path)
        if self._checks_named and format_ == "text" and (kind := kind_of_file(path)):
            self.problems.extend(refusal(path, kind).problems)
        else:
            self._take(path, format_)

    def _add_matches(self, pattern: Path) -> None:
        before = len(self.problems) + len(self._taken) + self.left_out.total
        found = glob.glob(str(pattern), recursive=True)  # noqa: PTH207 - pathlib's shows hidden files
        inside, own = self.inside(pattern), set()
        for match in sorted(map(Path, found), key=Path.as_posix):
            if inside and (there := inside.folder_of(match)):
                own.add(there)
            elif not match.is_dir():
                left_out, name = self.left_out, shown(match.name)
                if format_ := self._format_of_found(match, left_out, name, is_named=True):
                    self._take(match, format_)
            elif "**" not in pattern.parts:
                self._add_folder(match)
        for folder, kind in sorted(own, key=lambda one: one[0]):
            self.left_out.add(kind, shown(folder))
        if len(self.problems) + len(self._taken) + self.left_out.total == before:
            self.problems.append(
                f"{shown(pattern)}: no file matches this pattern; check it (** matches any folders)"
            )

    def _add_folder(self, root: Path) -> None:
        if self._asked in (None, "dataset") and is_saved_dataset(root):
            self._take(root, "dataset")
            return
        kind = self.kind_of_folder(root, names_in(root))
        if self._checks_named and kind and kind in OWN_FOLDERS:
            self.problems.append(f"{shown(root)}: is {kind.words}, not text: {kind.advice}")
            return
        before, problems_before = len(self.sources), len(self.problems)
        already_taken, left_out = len(self._taken), LeftOut()
        found: list[FoundFile] = []
        for path in self._walk(root, left_out):
            name = shown(path.relative_to(root).as_posix())
            if format_ := self._format_of_found(path, left_out, name, is_named=False):
                found.append(FoundFile(path, name, format_))
        chosen = self.chosen(found, left_out)
        is_mixed = len({one.format == "text" for one in chosen}) == 2
        for one in chosen:
            self._take(one.path, one.format, is_found=True, is_beside_texts=is_mixed)
        # A folder whose files were all named before adds nothing, which is not an error.
        nothing_new = len(self.sources) == before and not (already_taken and found)
        if nothing_new and len(self.problems) == problems_before:
            why = f" ({'; '.join(left_out.lines())})" if left_out else ""
            self.problems.append(
                f"{shown(root)}: no text files in this folder{why}; "
                "name a folder with text, or the files themselves"
            )
        else:
            self.left_out.take(left_out)

    def _format_of_found(
        self, path: Path, left_out: LeftOut, name: str, *, is_named: bool
    ) -> Format | None:
        """Return a found file's format if it is text or a table, else count it as left out.

        Args:
            path: the file, or a folder that is one dataset.
            left_out: counts the file otherwise.
            name: the file's name, for messages.
            is_named: whether a pattern matched the file itself.
        """
        try:
            if path.is_dir():
                return "dataset"
            if not path.is_file():
                left_out.add(_SPECIAL, name)
                return None
            format_ = self._asked if self._asked == "text" else format_of(path)
            if format_ == "json" and not (is_named or self._asked or begins_like_rows(path)):
                format_ = "text"
            if self._asked not in (None, format_):
                left_out.add(_OTHER_FORMAT, name)
                return None
            if format_ == "text" and (kind := self.kind_of_found(path)):
                left_out.add(kind, name)
                return None
        except OSError as error:
            self._refuse(path, error)
            return None
        return format_

    def inside(self, pattern: Path) -> Inside | None:
        """Return the test for matches that lie in a folder without text."""
        return Inside(pattern)

    def kind_of_folder(self, place: Path, entries: list[str]) -> Kind | None:
        """Return the kind of a folder without text, else None; `entries` are the names in it."""
        return recognise_folder(place.name, entries)

    def kind_of_found(self, path: Path) -> Kind | None:
        """Return the kind of a found file that is not text, else None."""
        return by_suffix(path) or kind_of_file(path, is_found=True)

    def chosen(self, found: list[FoundFile], left_out: LeftOut) -> list[FoundFile]:
        """Return the files that make up a folder's text, and count the others."""
        return of_a_folder(found, left_out, takes_tables=self._takes_tables)

    def _walk(self, root: Path, left_out: LeftOut) -> list[Path]:
        files: list[Path] = []
        seen: set[tuple[int, int]] = set()
        cache = _identity(cache_folder())
        walk = os.walk(root, followlinks=True, onerror=lambda error: self._refuse(root, error))
        for folder, subfolders, names in walk:
            place = Path(folder)
            identity = _identity(place)
            # A link to a folder above would otherwise be walked without end.
            if identity is None or identity in seen:
                subfolders.clear()
                continue
            seen.add(identity)
            kind = CACHE if identity == cache else None
            kind = kind or self.kind_of_folder(place, subfolders + names)
            if kind and place != root:
                left_out.add(kind, shown(place.relative_to(root).as_posix()))
                subfolders.clear()
                continue
            for name in subfolders + names:
                if name.startswith("."):
                    left_out.add(_HIDDEN, shown((place / name).relative_to(root).as_posix()))
            if {"blobs", "snapshots"} <= set(subfolders):  # the hub's cache: links lead to blobs
                subfolders[:] = ["snapshots"]
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            saved = [name for name in subfolders if is_saved_dataset(place / name)]
            if self._asked in (None, "dataset"):
                files += [place / name for name in saved]
                subfolders[:] = [name for name in subfolders if name not in saved]
            files += [place / name for name in names if not name.startswith(".")]
        return sorted(files, key=lambda path: path.relative_to(root).as_posix())

    def _take(
        self, path: Path, format_: Format, *, is_found: bool = False, is_beside_texts: bool = False
    ) -> None:
        absolute = path.absolute()
        if absolute not in self._taken:
            self._taken.add(absolute)
            self.sources.append(
                TextSource(
                    shown(path),
                    absolute,
                    format=format_,
                    is_found=is_found,
                    is_beside_texts=is_beside_texts,
                )
            )

    def _refuse(self, path: Path, error: Exception) -> None:
        where = getattr(error, "filename", None) or path
        reason = getattr(error, "strerror", None) or error
        self.problems.append(
            f"{shown(os.fsdecode(where))}: cannot be read ({reason}); "
            "check its permissions, or leave it out"
        )


class FormerSearch(Search):
    """A search by the rules in use before files were recognised by content: it takes every file
    with the name of a text or table and no NUL in its opening.
    """

    def inside(self, pattern: Path) -> None:
        return None

    def kind_of_folder(self, place: Path, entries: list[str]) -> Kind | None:
        return None

    def kind_of_found(self, path: Path) -> Kind | None:
        if path.suffix.lower() in _LEGACY_COMPRESSED:
            return BINARY
        try:
            has_nul = b"\0" in opening_of(path)
        except CorpusError:
            has_nul = False
        return by_suffix(path) or (BINARY if has_nul else None)

    def chosen(self, found: list[FoundFile], left_out: LeftOut) -> list[FoundFile]:
        return found


def require_there(data: Data) -> None:
    """Check that the files and folders named in settings exist, without reading any.

    Raises:
        CorpusError: a line for each that is missing.
    """
    parts = [part for _, part in data.parts()] or [data]
    named = [Path(text) for part in parts for text in part.texts]
    missing = [
        _missing_error(path)
        for path in dict.fromkeys(named)
        if not GLOB_CHARACTERS & set(str(path)) and not os.path.lexists(path)
    ]
    if missing:
        raise CorpusError(missing)


def _missing_error(path: Path) -> str:
    return f"{shown(path)}: no such file or folder; check the path"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the folder's identity, whatever path leads to it, or None if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino

"""Kinds of columns: texts, ids, links, chats, …, recognised by the name and the first rows."""

import math
import numbers
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

Row = TypeVar("Row")

TEXT, NOTHING, CHATS, FILES = "text", "nothing but null", "chats", "names of files"

SAMPLE_ROWS = 100
_SAMPLE_CHARS = 4_000_000
_PROSE_CHARS = 40  # mean length from which texts with blanks are not labels, whatever their name
_LABEL_ROWS, _LABEL_CHARS, _LABEL_SHARE = 10, 40, 0.25
_MAX_SAMPLE_CHARS = 2000  # of a link, or a name of a file
_DEEPEST = 8  # levels of lists and objects that are examined

_DATES = (
    r"\d{4}-\d\d?(?:-\d\d?)?(?:[T ]\d\d?:\d\d\S*(?: \S+)?)?",
    r"\d\d?[./-]\d\d?[./-]\d{2,4}(?:,? \d\d?:\d\d\S*(?: [ap]m)?)?",
    r"\d{4}[/.]\d\d?[/.]\d\d?",
    r"\d\d?:\d\d(?::\d\d\S*)?",
    r"(?:[a-z]{3,9},? )?\d\d?\.? [a-z]{3,9}\.?,? \d{4}(?: \d\d?:\d\d.{0,20})?",
    r"(?:[a-z]{3,9},? )?[a-z]{3,9}\.? \d\d?,? \d{4}(?: \d\d?:\d\d.{0,20})?",
)
_VALUE_PATTERNS = tuple(
    (looks, re.compile(pattern, re.IGNORECASE))
    for looks, pattern in (
        ("links", r"(?:[a-z][a-z0-9+.-]*://|www\.)\S+"),
        ("addresses", r"(?:mailto:)?[^\s@]+@[^\s@]+\.[a-z]+"),
        ("true or false", r"true|false|yes|no"),
        ("dates", "|".join(_DATES)),
        ("ids", r"(?:0x)?[0-9a-f]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4,12}){1,4}"),
        ("ids", r"[a-z._/:#-]*\d+"),
        ("numbers", r"[-+]?[$€£]?\d[\d.,]*(?:e[-+]?\d+)? ?[%€$£]?"),
        (FILES, r"[^\s:]+\.(?:png|jpe?g|gif|webp|mp[34]|wav|ogg|pdf|html?|txt|json|py)"),
    )
)
# The last word of a column's name -> its kind, unless the values read like prose.
_NAMED = {
    word: looks
    for looks, words in {
        "ids": "id ids uuid guid uid idx index pk key hash sha sha1 sha256 md5 digest checksum",
        "links": "url urls uri uris link links href permalink domain host website",
        "dates": "date datetime time timestamp ts created updated published modified at year",
        "roles": "role roles from sender recipient speaker",
        "names": "name names author authors user username creator email file filename filepath "
        "path",
        "labels": "label labels class category categories tag tags type kind topic sentiment "
        "rating split subset source dataset model lang language locale license licence status "
        "version format country city gender",
    }.items()
    for word in words.split()
}
_HALVES = (
    "question questions prompt instruction input query answer answers choices response output "
    "completion reply chosen rejected"
)
_SPEAKER = frozenset(("role", "from", "speaker", "sender", "author"))
_SPOKEN = frozenset(("content", "value", "text", "message", "parts", "utterance"))
_ASKING, _ANSWERING = frozenset(("human", "user")), frozenset(("assistant", "gpt", "bot", "ai"))
_CHAT_NAMES = "messages conversation conversations dialog dialogs dialogue dialogues turns chat"


# A list of turns, or an object with one, as JSON or as Python writes it.
_CHAT_IN_CELL = re.compile(
    r"""\s*(?:\{\s*["']\w+["']\s*:\s*)?\[\s*\{\s*["'](?:role|from|speaker|content|value)["']\s*:"""
)


@dataclass(frozen=True)
class ColumnKind:
    """The kind of a column.

    Args:
        kind: in words; only `TEXT` can be read.
        looks_like: of `TEXT`, its kind if it is not the text of documents; None: it may be that.
        chars: characters of text in the examined rows, including lists and objects.
    """

    kind: str
    looks_like: str | None = None
    chars: int = 0

    @property
    def words(self) -> str:
        """Description for a message."""
        return self.looks_like or self.kind


def column_kind(name: str, kind: str, values: Iterable[Any]) -> ColumnKind:
    """Return the kind of a column.

    Args:
        name: of the column.
        kind: of its values.
        values: of some rows.
    """
    there = [value for value in values if not is_missing(value)]
    if kind == TEXT:
        texts = [value for value in there if isinstance(value, str) and value.strip()]
        return ColumnKind(TEXT, _looks_like(name, texts), sum(map(len, texts)))
    nested = [value for value in there if isinstance(value, list | tuple | Mapping)]
    if nested and (name.lower() in _CHAT_NAMES.split() or any(map(_is_chat, nested))):
        kind = CHATS
    return ColumnKind(kind, None, sum(len(text) for value in nested for text in _texts_in(value)))


def first_rows(rows: Iterable[Row], values_of: Callable[[Row], Iterable[Any]]) -> Iterator[Row]:
    """Yield the rows used to recognise a table's columns: a hundred, or fewer if they are long.

    Args:
        rows: of the table.
        values_of: gives the values of a row.
    """
    chars = 0
    for row in islice(rows, SAMPLE_ROWS):
        yield row
        chars += sum(len(text) for value in values_of(row) for text in _texts_in(value))
        if chars > _SAMPLE_CHARS:
            return


def is_one_side_of_pair(name: str) -> bool:
    """True if a column of this name is usually read together with another."""
    return _words_of(name)[-1] in _HALVES.split()


def kind_word(value: Any) -> str:
    """Return the kind of a Python value: `TEXT`, `NOTHING`, "numbers", …."""
    if isinstance(value, str):
        return TEXT
    if is_missing(value):
        return NOTHING
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return "true or false"
    if isinstance(value, numbers.Number):  # NumPy's too
        return "numbers"
    if isinstance(value, Mapping):
        return "objects"
    is_list = isinstance(value, list | tuple) or type(value).__name__ in ("ndarray", "Tensor")
    return "lists" if is_list else f"a {type(value).__name__}"


def is_missing(value: Any) -> bool:
    """True if a value is missing: None, NaN, and pandas' own."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and math.isnan(value)


def _looks_like(name: str, texts: list[str]) -> str | None:
    if not texts:
        return None
    if all(_CHAT_IN_CELL.match(text) for text in texts):
        return CHATS
    if max(map(len, texts)) <= _MAX_SAMPLE_CHARS:
        for looks, pattern in _VALUE_PATTERNS:
            if all(pattern.fullmatch(text.strip()) for text in texts):
                return looks
    if _is_prose(texts):
        return None
    if (named := _NAMED.get(_words_of(name)[-1])) is not None:
        return named
    short = max(map(len, texts)) <= _LABEL_CHARS
    few = len(texts) >= _LABEL_ROWS and len(set(texts)) <= _LABEL_SHARE * len(texts)
    return "labels" if short and few else None


def _is_prose(texts: Collection[str]) -> bool:
    """True if texts are too long for names and labels, and have more than one word."""
    blanks = sum(any(map(str.isspace, text.strip())) for text in texts)
    return sum(map(len, texts)) >= _PROSE_CHARS * len(texts) and 2 * blanks > len(texts)


def _words_of(name: str) -> list[str]:
    """Return a name's words in lower case: `createdAt` and `created_at` are the same."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W_]+", apart.lower()) or [""]


def _is_chat(value: Any, depth: int = 0) -> bool:
    """True if a list or an object contains chat turns: a speaker and a message."""
    if isinstance(value, Mapping):
        keys = {key.lower() for key in value if isinstance(key, str)}
        if (keys & _SPEAKER and keys & _SPOKEN) or (keys & _ASKING and keys & _ANSWERING):
            return True
    return depth < _DEEPEST and any(_is_chat(part, depth + 1) for part in _parts(value))


def _texts_in(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < _DEEPEST:
        for part in _parts(value):
            yield from _texts_in(part, depth + 1)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()

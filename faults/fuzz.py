"""Values and bytes that programs stumble over."""

import gzip
import math
import unicodedata
from random import Random
from typing import Any

import zstandard

STRINGS = (
    "",
    " ",
    "auto",
    "off",
    "nan",
    "../x",
    "/dev/null",
    "a\nb",
    "a\0b",
    "\x1b[2J\x1b]0;x\x07",
    "\u202eabc\u2066",
    "\ufeff",
    "\u2028",
    "<script>alert(1)</script>",
    "</script>",
    '" onerror="x',
    "x" * 5_000,
    "🙂é漢",
    "%s%n{0}",
)
NUMBERS: tuple[float, ...] = (
    0,
    -1,
    1,
    2,
    3,
    10**6,
    2**31,
    2**63,
    -(2**63),
    10**30,
    0.0,
    -0.0,
    0.5,
    1e-320,
)
NUMBERS += (1e308, math.inf, -math.inf, math.nan, -1.5, 1e15)


def any_value(rng: Random, depth: int = 0) -> Any:
    """A value that TOML and JSON can hold."""
    kind = rng.randrange(7 if depth < 3 else 4)
    if kind == 0:
        return rng.choice(STRINGS)
    if kind in (1, 2):
        return rng.choice(NUMBERS)
    if kind == 3:
        return rng.random() < 0.5
    if kind == 4:
        return [any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(STRINGS) or "a": any_value(rng, depth + 1) for _ in range(rng.randrange(3))}


def damaged(content: bytes, rng: Random) -> bytes:
    """The bytes with something wrong with them, or nothing."""
    at = rng.randrange(len(content) + 1)
    return rng.choice(
        [
            content,
            content[:at],
            b"\xef\xbb\xbf" + content,
            content[:at] + b"\0" + content[at:],
            content[:at] + rng.choice([b"\xff\xfe", b"\xc3", b"\xed\xa0\x80"]) + content[at:],
            content[:at] + bytes(rng.randrange(256) for _ in range(8)) + content[at:],
            content.decode(errors="ignore").encode("utf-16"),
            content.replace(b"\n", b"\r"),
            content.replace(b"\n", b""),
            content[:at] + b'"' + content[at:],
            b"",
            b"\n" * 100,
            b"[" * 100_000,
            bytes(1000),
        ]
    )


def packed(content: bytes, suffix: str, rng: Random) -> bytes:
    """The bytes as a file of that suffix has them; what is compressed is sometimes cut."""
    if suffix.endswith(".gz"):
        content = gzip.compress(content)
    elif suffix.endswith(".zst"):
        content = zstandard.compress(content)
    else:
        return content
    return content[: rng.randrange(len(content))] if rng.random() < 0.4 else content


def acting(text: str) -> list[str]:
    """The characters in a program's output that could act on a terminal."""
    return sorted({repr(character) for character in text if _acts(character)})


def _acts(character: str) -> bool:
    """A control character, a line break of Unicode's, or one that turns the direction."""
    kind, direction = unicodedata.category(character), unicodedata.bidirectional(character)
    turns = direction in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return character != "\n" and (kind in ("Cc", "Zl", "Zp", "Cs") or turns)

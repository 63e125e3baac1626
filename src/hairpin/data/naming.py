"""Names of columns in a message: quoted, cut, counted, and the nearest of those that are there."""

import difflib
from collections.abc import Sequence
from functools import lru_cache

_SHOWN_CHARS, _SHOWN_NAMES = 40, 8


@lru_cache(maxsize=100)  # every record of a file may lack the same
def nearest(missing: tuple[str, ...], there: tuple[str, ...]) -> str:
    """` (did you mean "text" for "txet"?)`, or nothing where no name is near."""
    plain = {name.lower(): name for name in there}
    pairs = ((name, difflib.get_close_matches(name.lower(), plain, n=1)) for name in missing)
    close = [f"{quoted(plain[near[0]])} for {quoted(name)}" for name, near in pairs if near]
    return f" (did you mean {', '.join(close)}?)" if close else ""


def names_of(names: Sequence[str]) -> str:
    """Some names, quoted, and how many more there are."""
    shown = [quoted(name) for name in names]
    if len(shown) > _SHOWN_NAMES:
        shown[_SHOWN_NAMES:] = [f"and {len(shown) - _SHOWN_NAMES} more"]
    return ", ".join(shown) or "nothing"


def quoted(name: str) -> str:
    """A name in quotes, cut where it is long."""
    return f'"{name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "…"}"'


def counted(number: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

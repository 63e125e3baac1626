"""Names of columns in messages: quoted, cut, counted, and the nearest existing one."""

import difflib
from collections.abc import Sequence
from functools import lru_cache

_SHOWN_CHARS, _SHOWN_NAMES = 40, 8


@lru_cache(maxsize=100)  # every record of a file may lack the same name
def nearest(missing: tuple[str, ...], there: tuple[str, ...]) -> str:
    """Return ` (did you mean "text" for "txet"?)`, or "" if no name is near."""
    plain = {name.lower(): name for name in there}
    pairs = ((name, difflib.get_close_matches(name.lower(), plain, n=1)) for name in missing)
    close = [f"{quoted(plain[near[0]])} for {quoted(name)}" for name, near in pairs if near]
    return f" (did you mean {', '.join(close)}?)" if close else ""


def names_of(names: Sequence[str]) -> str:
    """Return some names, quoted, and the number of others."""
    shown = [quoted(name) for name in names]
    if len(shown) > _SHOWN_NAMES:
        shown[_SHOWN_NAMES:] = [f"and {len(shown) - _SHOWN_NAMES} more"]
    return ", ".join(shown) or "nothing"


def quoted(name: str) -> str:
    """Return a name in quotes, cut if it is long."""
    return f'"{name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "…"}"'


def counted(number: int, noun: str) -> str:
    """Return `1 cell`, `2 cells`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

"""Parse counts as users write them: "7B", "140B", "1.5e9", "300M", "8,16,32"."""

import math
import re

from hairpin.errors import ConfigError

_COUNT = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([kKmMbBtTgG]?)")
_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_LARGEST = 10**16


def parse_count(text: str | int, option: str) -> int:
    """Parse a count of at least 1.

    Raises:
        ConfigError: it is not a count.
    """
    found = _COUNT.fullmatch(str(text).strip().replace(",", "").replace("_", ""))
    value = float(found[1]) * _SCALES[found[2].lower()] if found else math.nan
    if not 1 <= value <= _LARGEST:
        raise ConfigError(f"{option} {text}: write a count such as 124M, 7B or 1000000, at least 1")
    return round(value)


def parse_counts(text: str, option: str) -> tuple[int, ...]:
    """Parse counts separated by commas.

    Raises:
        ConfigError: one of them is not a count.
    """
    return tuple(parse_count(part, option) for part in text.split(","))

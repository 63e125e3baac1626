"""Lengths of time as people write them: 90s, 10m, 1h30m, 2d."""

import re

from hairpin.errors import ConfigError

_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_PATTERN = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?"
)
_LONGEST_SECONDS = 366 * 86_400


def parse_duration(text: str, option: str = "--budget", otherwise: str = "") -> float:
    """Seconds.

    Args:
        text: as people write it.
        option: where they wrote it.
        otherwise: what else may stand there, for the error.

    Raises:
        ConfigError: not a length of time from a second to a year.
    """
    found = _PATTERN.fullmatch(text.strip().lower())
    parts = found.groups() if found else ()
    seconds = sum(
        float(part) * _SECONDS[unit] for part, unit in zip(parts, _SECONDS, strict=False) if part
    )
    if not 1 <= seconds <= _LONGEST_SECONDS:
        raise ConfigError(
            f"{option} {text}: write {otherwise}a length of time such as 90s, 10m, 1h30m or 2d, "
            "from a second to a year"
        )
    return seconds

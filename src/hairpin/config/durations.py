"""Lengths of time as people write them: 90s, 10m, 1h30m, 2d."""

import re
from datetime import timedelta

from hairpin.errors import ConfigError
from hairpin.system.arguments import Time, plain_number

_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_PATTERN = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?"
)
_MAX_SECONDS = 366 * 86_400


def parse_duration(given: Time, option: str = "--budget", otherwise: str = "") -> float:
    """Return a duration in seconds.

    Args:
        given: the duration as typed; from Python also a number of seconds, or a `timedelta`.
        option: the option it was given for.
        otherwise: other accepted values, for the error.

    Raises:
        ConfigError: not a length of time from a second to a year.
    """
    text = _as_written(given)
    found = _PATTERN.fullmatch(text.strip().lower())
    parts = found.groups() if found else ()
    seconds = sum(
        float(part) * _SECONDS[unit] for part, unit in zip(parts, _SECONDS, strict=False) if part
    )
    if not 1 <= seconds <= _MAX_SECONDS:
        raise ConfigError(
            f"{option} {given}: write {otherwise}a length of time such as 90s, 10m, 1h30m or 2d, "
            "from a second to a year"
        )
    return seconds


def _as_written(given: Time) -> str:
    if isinstance(given, timedelta):
        return f"{given.total_seconds()}s"
    number = plain_number(given)
    return f"{number:f}s" if type(number) in (int, float) else str(given)

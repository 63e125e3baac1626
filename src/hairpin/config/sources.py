"""Sources of a mixture as people write them: `NAME=PATH`, `NAME=PATH:WEIGHT`, `NAME=@CORPUS`."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hairpin.errors import ConfigError

# A weight follows the last colon; C:\data has a colon too, without a number after it.
_WEIGHT = re.compile(r"(.+):([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?nan|[-+]?inf)", re.I)


def parse_sources(texts: Iterable[str]) -> list[dict[str, Any]]:
    """Return `data.sources` as tables.

    Raises:
        ConfigError: a line for each that is not a name, an equals sign and a path.
    """
    tables: list[dict[str, Any]] = []
    problems: list[str] = []
    for text in texts:
        try:
            tables.append(parse_source(text))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return tables


def parse_source(text: str) -> dict[str, Any]:
    """Parse one source: its name, its file, folder, pattern or corpus, and its weight if given.

    Raises:
        ConfigError: it has another form, or the weight is not a number.
    """
    name, equals, rest = text.partition("=")
    if not (equals and name and rest) or set(name) & set("/\\:"):
        raise ConfigError(f"--source {text}: write it as --source NAME=PATH, or NAME=PATH:WEIGHT")
    table: dict[str, Any] = {"name": name}
    if found := _WEIGHT.fullmatch(rest):
        rest, weight = found[1], float(found[2])
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(
                f"--source {text}: a weight is a number above 0, not {found[2]}; of 0.7 and 0.3 "
                "the first gives 70% of the training tokens"
            )
        table["weight"] = weight
    if rest.startswith("@"):
        return table | {"corpus": rest[1:]}
    return table | {"texts": [str(Path(rest).absolute())]}

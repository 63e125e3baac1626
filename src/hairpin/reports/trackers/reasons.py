"""Description of a tracker's failure in a line without secrets."""

import os
import re

from hairpin.errors import one_line

_SECRETS = (
    "WANDB_API_KEY",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "DATABRICKS_TOKEN",
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_LONGEST = 200


def reason_of(error: BaseException) -> str:
    """Return the error's type and its first line, without passwords."""
    words = str(error).strip()
    for name in _SECRETS:
        if secret := os.environ.get(name):
            words = words.replace(secret, f"({name})")
    words = _CREDENTIALS.sub("", words)
    first = words.splitlines()[0][:_LONGEST] if words else ""
    return one_line(f"{type(error).__name__}: {first}" if first else type(error).__name__)

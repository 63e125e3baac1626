"""hairpin trains GPT language models on your own text.

    import hairpin

    run = hairpin.train("book.txt", budget="10m")
    print(run.summary().best)

The names below are imported when they are first used, so that importing hairpin costs nothing. It
sets one variable of the environment, if none of its kind is set (see `system.spinning`).
"""

import re
import sys

# `python -m hairpin` puts the working folder first: a text.py there is no module of anybody's.
if (
    sys.argv[:1] == ["-m"]
    and not sys.flags.safe_path
    and any(re.match(r"(-\w*m)?hairpin(\.|$)", argument) for argument in sys.orig_argv)
):
    del sys.path[0]

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hairpin.system.spinning import limit_spinning

if TYPE_CHECKING:
    from hairpin import schedules
    from hairpin.api import finetune, load, plan, report, resume, train
    from hairpin.experiments.api import ablate, compare, find_lr
    from hairpin.optim.lr_scheduler import ScheduleLR
    from hairpin.run import Run
    from hairpin.runs.watcher import Quiet
    from hairpin.system.version import __version__
    from hairpin.weights.convert.verbs import export, import_model

limit_spinning()  # read when torch is loaded, which any of the names below may do

_HOMES = {
    "Quiet": "hairpin.runs.watcher",
    "Run": "hairpin.run",
    "ScheduleLR": "hairpin.optim.lr_scheduler",
    "ablate": "hairpin.experiments.api",
    "compare": "hairpin.experiments.api",
    "find_lr": "hairpin.experiments.api",
    "export": "hairpin.weights.convert.verbs",
    "finetune": "hairpin.api",
    "import_model": "hairpin.weights.convert.verbs",
    "load": "hairpin.api",
    "plan": "hairpin.api",
    "report": "hairpin.api",
    "resume": "hairpin.api",
    "train": "hairpin.api",
    "__version__": "hairpin.system.version",
}

__all__ = [
    "Quiet",
    "Run",
    "ScheduleLR",
    "__version__",
    "ablate",
    "compare",
    "export",
    "find_lr",
    "finetune",
    "import_model",
    "load",
    "plan",
    "report",
    "resume",
    "schedules",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "schedules":
        return import_module("hairpin.schedules")
    raise AttributeError(f"module 'hairpin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

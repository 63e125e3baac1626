"""hairpin trains GPT language models on your own text.

    import hairpin

    run = hairpin.train("book.txt", budget="10m")
    print(run.summary().best)

The names below are imported when they are first used, so that importing hairpin costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hairpin import schedules
    from hairpin.api import finetune, load, plan, resume, train
    from hairpin.run import Run
    from hairpin.version import __version__
    from hairpin.watch import Quiet

_HOMES = {
    "Quiet": "hairpin.watch",
    "Run": "hairpin.run",
    "finetune": "hairpin.api",
    "load": "hairpin.api",
    "plan": "hairpin.api",
    "resume": "hairpin.api",
    "train": "hairpin.api",
    "__version__": "hairpin.version",
}

__all__ = [
    "Quiet",
    "Run",
    "__version__",
    "finetune",
    "load",
    "plan",
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

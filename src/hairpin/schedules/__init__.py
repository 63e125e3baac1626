"""Learning-rate schedules: update → learning rate, and what follows when a run is extended."""

from hairpin.schedules.curves import (
    CURVES,
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    inverse_sqrt,
    linear,
    wsd,
)

__all__ = [
    "CURVES",
    "Schedule",
    "constant",
    "cosine",
    "cosine_restarts",
    "inverse_sqrt",
    "linear",
    "wsd",
]

"""Names that a user's own code registers: schedules, optimizers, models, losses, trackers."""

from hairpin.plugins.registry import (
    register_loss,
    register_model,
    register_optimizer,
    register_schedule,
    register_tracker,
)

__all__ = [
    "register_loss",
    "register_model",
    "register_optimizer",
    "register_schedule",
    "register_tracker",
]

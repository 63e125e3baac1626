"""A learning rate that falls with the square of what is left of the run.

hairpin schedule --updates 1000 --schedule.kind quadratic --plugin examples/plugins/quadratic.py
"""

from hairpin.plugins import register_schedule
from hairpin.schedules import Schedule


def quadratic(schedule: Schedule, update: int) -> float:
    """At the peak after warmup, at the minimum in the last update."""
    return schedule.between((1 - schedule.progress(update)) ** 2)


register_schedule("quadratic", quadratic)

"""Schedule of a run's evaluations and saves."""

from dataclasses import dataclass

from hairpin.config.settings import Config


@dataclass(frozen=True)
class Milestones:
    """Intervals, in updates, of a run's evaluations and saves; `ends`: earlier ends of a run that
    was extended, which are evaluated too.
    """

    evaluate_every: int
    checkpoint_every: int
    ends: tuple[int, ...] = ()

    @staticmethod
    def of(config: Config) -> "Milestones":
        """Return those of a config that is filled in."""
        assert config.evaluate.every_updates and config.checkpoint.every_updates
        ends = tuple(extension.at for extension in config.schedule.extensions)
        return Milestones(config.evaluate.every_updates, config.checkpoint.every_updates, ends)


def due(update: int, every: int) -> bool:
    """Return True if something done every `every` updates is due after `update`."""
    return update % every == 0

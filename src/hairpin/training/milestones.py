"""When a run evaluates and saves."""

from dataclasses import dataclass

from hairpin.config.settings import Config


@dataclass(frozen=True)
class Milestones:
    """How often, in updates, a run evaluates and saves; `ends`: where it ended before it was made
    longer, which is evaluated too.
    """

    evaluate_every: int
    checkpoint_every: int
    ends: tuple[int, ...] = ()

    @staticmethod
    def of(config: Config) -> "Milestones":
        """Those of a settled config."""
        assert config.evaluate.every_updates and config.checkpoint.every_updates
        ends = tuple(extension.at for extension in config.schedule.extensions)
        return Milestones(config.evaluate.every_updates, config.checkpoint.every_updates, ends)


def due(update: int, every: int) -> bool:
    """Whether something done every so many updates is done after this many."""
    return update % every == 0

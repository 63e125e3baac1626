"""All trackers of a run, beside its record: whoever drains the loop hands them each event."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hairpin.config.layers import flat
from hairpin.config.settings import Config
from hairpin.config.shared import shared_tree
from hairpin.run import Run
from hairpin.runs import events
from hairpin.tracking.feed import Opening
from hairpin.tracking.follower import Follower
from hairpin.tracking.kept import Kept
from hairpin.tracking.reasons import reason_of
from hairpin.tracking.tools import TOOLS
from hairpin.tracking.tracker import Tracked


class Trackers:
    """The trackers that a run's settings name, none of which can stop or change it.

    Args:
        run: whose events they are told.
        tools: those of them that are agreed to (`tools.followed`).
        notice: is told in a line why one was given up.
    """

    def __init__(self, run: Run, tools: Sequence[str], notice: Callable[[str], None]) -> None:
        self._run = run
        self._tools = tools
        self._notice = notice
        self._followers: list[Follower] = []

    def follow(self, event: events.Event) -> None:
        """Take note of the run's next event, which is in its record already."""
        if isinstance(event, events.Plan | events.Resume):
            try:
                self._open(event)
            except Exception as error:  # a tracker is not worth a run
                self._notice(f"track: {reason_of(error)}; the run goes on without trackers")
            return
        for follower in self._followers:
            follower.tell(event)

    def close(self) -> None:
        """Wait a little until they have everything; the last event was an `End`."""
        for follower in self._followers:
            follower.close()

    def _open(self, event: events.Plan | events.Resume) -> None:
        config = self._run.config
        if not self._tools:
            return
        kept, history = Kept(self._run.path), self._run.events()
        for tool in self._tools:
            follower = Follower(tool, TOOLS[tool].make, kept, self._summary, self._notice)
            tracked = Tracked(
                path=self._run.path,
                asked=config.track,
                name=config.track.name or self._run.path.absolute().name,
                config=shown_config(config),
                kept=event.update if isinstance(event, events.Resume) else 0,
                written=kept.written(tool),
                identity=kept.identity(tool),
                notice=follower.say,
            )
            follower.tell(Opening(tracked, history, config.guard.rewinds))
            self._followers.append(follower)

    def _summary(self) -> dict[str, float]:
        """What the run came to, as numbers."""
        found = self._run.summary()
        best = found.best
        numbers = {
            "updates": found.updates,
            "tokens": found.tokens,
            "seconds": found.seconds,
            "tokens_per_second": found.tokens_per_second,
            "clipped_fraction": found.clipped_share,
            "best_update": best.update if best else None,
            "best_val_loss": best.val_loss if best else None,
            "best_val_bits_per_byte": best.val_bits_per_byte if best else None,
        }
        return {name: float(number) for name, number in numbers.items() if number is not None}


def shown_config(config: Config) -> Mapping[str, Any]:
    """The settings as dotted key → plain value, of paths their last names; how it is tracked is no
    setting of training.
    """
    tree = {table: values for table, values in shared_tree(config).items() if table != "track"}
    return flat(tree)

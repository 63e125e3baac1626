"""All trackers of a run: the consumer of the loop hands them each event after its record."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hairpin.config.layers import flat
from hairpin.config.settings import Config
from hairpin.config.shared import shared_tree
from hairpin.reports.history import History, history
from hairpin.reports.summary import summarize
from hairpin.reports.trackers.feed import Kept, Opening
from hairpin.reports.trackers.thread import Follower, reason_of
from hairpin.reports.trackers.tools import maker_of
from hairpin.reports.trackers.tracker import Tracked
from hairpin.runs import events
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import read_record


class Trackers:
    """The trackers that a run's settings name, none of which can stop or change it.

    Args:
        run: the run whose events they receive.
        tools: the agreed ones (`tools.followed`).
        notice: called with one line that says why a tracker was given up.
    """

    def __init__(
        self, run: RunDirectory, tools: Sequence[str], notice: Callable[[str], None]
    ) -> None:
        self._run = run
        self._tools = tools
        self._notice = notice
        self._followers: list[Follower] = []

    def follow(self, event: events.Event) -> None:
        """Hand the trackers the run's next event, which is in its record already."""
        if isinstance(event, events.Plan | events.Resume):
            try:
                self._open(event)
            except Exception as error:  # a tracker is not worth a run
                self._notice(f"track: {reason_of(error)}; the run continues without trackers")
            return
        for follower in self._followers:
            follower.tell(event)

    def close(self) -> None:
        """Wait briefly until they have everything; the last event was an `End`."""
        for follower in self._followers:
            follower.close()

    def _open(self, event: events.Plan | events.Resume) -> None:
        config = self._run.read_config()
        if not self._tools:
            return
        kept, history = Kept(self._run.path), self._history()
        for tool in self._tools:
            follower = Follower(tool, maker_of(tool), kept, self._summary, self._notice)
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

    def _history(self) -> History:
        """Return the events that are still valid."""
        return history(read_record(self._run.metrics))

    def _summary(self) -> dict[str, float]:
        """Return the run's results as numbers."""
        found = summarize(self._history())
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
    """Return the settings as dotted key → plain value, with paths cut to their last names and
    without the tracking settings, which do not affect training.
    """
    tree = {table: values for table, values in shared_tree(config).items() if table != "track"}
    return flat(tree)

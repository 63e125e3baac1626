"""What a run looks like on a terminal, from its plan to its summary."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hairpin.analysis.formats import format_count, format_duration, harmless
from hairpin.runs import events
from hairpin.runs.events import Event
from hairpin.terminal.display import Display, Stages, standard_console


class Terminal:
    """A watcher of runs: stages, plan, live bar, samples, summary."""

    def __init__(self) -> None:
        self._console = standard_console()
        self._stages: Stages | None = None
        self._display: Display | None = None

    def stage(self, name: str, done: int, total: int) -> None:
        """Preparation has come to `done` of `total` bytes."""
        if self._stages is None:
            self._stages = Stages(console=self._console).__enter__()
        self._stages(name, done, total)

    def notice(self, line: str) -> None:
        """A line that people should read, above whatever is live."""
        self._console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def show(self, event: Event) -> None:
        """The next event of the run."""
        if self._display is None:
            self.close()
            if isinstance(event, events.Plan):
                self._console.print(plan_line(event), markup=False, highlight=False, soft_wrap=True)
            self._display = Display(console=self._console).__enter__()
        self._display.show(event)
        if isinstance(event, events.End):
            self.close()

    def finish(self, path: Path, summary: Sequence[str]) -> None:
        """The summary of the run at `path`, where things are, and what to type next."""
        self.close()
        lines = ["", *summary, "", *_next_steps(path)]
        for line in lines:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take whatever is live off the screen."""
        for shown in (self._stages, self._display):
            if shown is not None:
                shown.__exit__(None, None, None)
        self._stages = self._display = None


def plan_line(plan: events.Plan) -> str:
    """What is going to happen, in a sentence, with the time by the clock when it will end."""
    ends = time.strftime("%H:%M:%S", time.localtime(plan.ends))
    return (
        f"plan: {harmless(plan.text)}; {format_count(plan.parameters)} parameters, "
        f"{plan.updates:,} updates of {plan.tokens_per_update:,} tokens ({plan.warmup:,} of "
        f"warmup), {plan.epochs:.2g} passes over {format_count(plan.train_tokens)} training "
        f"tokens; about {format_duration(plan.seconds)}, until {ends}"
    )


def _next_steps(run: Path) -> list[str]:
    return [
        f"plots     {run / 'plots'}",
        f"record    {run / 'metrics.jsonl'}",
        f"next      hairpin sample {run}          let it write",
        f"          hairpin evaluate {run} FILE   measure it on any text",
        f"          hairpin train --config {run / 'config.toml'}   repeat the run",
    ]


@contextmanager
def counting_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, shown only where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)

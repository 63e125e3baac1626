"""Display of a run on a terminal, from its plan to its summary."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hairpin.reports.event_text import plan_text
from hairpin.reports.formats import safe_text
from hairpin.reports.terminal.display import Display, Stages
from hairpin.reports.terminal.live import is_terminal, standard_console
from hairpin.runs import events
from hairpin.runs.events import Event
from hairpin.runs.folder import RunDirectory
from hairpin.system.shell import command


class Terminal:
    """A watcher of runs: stages, plan, live bar, samples, summary.

    Args:
        on_stderr: print to standard error, when standard output carries a result.
    """

    only_shows = True

    def __init__(self, *, on_stderr: bool = False) -> None:
        self._console = standard_console(on_stderr=on_stderr)
        self._stages: Stages | None = None
        self._display: Display | None = None
        self._report: Path | None = None

    def stage(self, name: str, done: int, total: int) -> None:
        """Show that `done` of `total` bytes of a stage of preparation are done."""
        if self._display is not None:  # while it trains
            self._display.stage(name)
            return
        if self._stages is None:
            self._stages = Stages(console=self._console).__enter__()
        self._stages(name, done, total)

    def notice(self, line: str) -> None:
        """Print a line that people should read, above anything live."""
        line = safe_text(line)  # it may contain the name of another user's folder
        self._console.print(line, style="yellow", soft_wrap=True)

    def begin(self, path: Path) -> None:
        """Remember the run at `path`, which begins or resumes; its page is named with its plan."""
        self._report = RunDirectory(path).report

    def show(self, event: Event) -> None:
        """Show the next event of the run."""
        if self._display is None:
            self.close()
            if isinstance(event, events.Plan):
                self._line(plan_text(event))
            if isinstance(event, events.Plan | events.Resume) and self._report:
                self._line(safe_text(f"page: {self._report}"))
            self._display = Display(console=self._console).__enter__()
        self._display.show(event)
        if isinstance(event, events.End):
            self.close()

    def finish(self, path: Path, summary: Sequence[str]) -> None:
        """Print the summary of the run at `path`, where its files are, and what to type next."""
        self.close()
        lines = ["", *summary, "", *_next_steps(path)]
        for line in map(safe_text, lines):
            self._line(line)

    def _line(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def close(self) -> None:
        """Remove everything live from the screen."""
        live = [shown for shown in (self._stages, self._display) if shown is not None]
        self._stages = self._display = None
        for shown in live:
            shown.__exit__(None, None, None)


def _next_steps(run: Path) -> list[str]:
    commands = [
        (command("sample", run), "generate text"),
        (command("evaluate", run, "FILE"), "evaluate it on any text"),
        (command("train", "--config", run / "config.toml"), "repeat the run"),
    ]
    kind = RunDirectory(run).read_config().finetune.kind
    if kind == "classify":
        commands[0] = (command("predict", run, "TEXT"), "predict the label of a text")
    elif kind == "instruct":
        commands[0] = (command("sample", run), "follow instructions")
    if kind:
        commands[1] = (command("evaluate", run, "FILE"), "evaluate it on other records")
    width = max(len(command) for command, _ in commands)
    return [
        f"page      {RunDirectory(run).report}",
        f"plots     {run / 'plots'}",
        f"record    {run / 'metrics.jsonl'}",
        *(
            f"{name:<10}{command:<{width}}   {words}"
            for name, (command, words) in zip(("next", "", ""), commands, strict=True)
        ),
    ]


@contextmanager
def counting_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with the time left on standard error if that is a terminal.

    Output printed meanwhile appears above the bar if it goes to the terminal too.
    """
    from rich.progress import Progress

    console = standard_console(on_stderr=True)
    with Progress(
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=is_terminal(sys.stdout),
    ) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)

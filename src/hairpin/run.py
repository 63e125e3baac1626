"""A run as an object: its folder and its operations.

PyTorch is imported only by methods that need it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hairpin.config.settings import Config
from hairpin.errors import RunError
from hairpin.reports.diagnostics import Diagnostics, diagnose, lines_with
from hairpin.reports.history import History, history
from hairpin.reports.summary import Summary, summarize
from hairpin.runs.entries import refuse_links
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import read_record
from hairpin.system.shell import command

if TYPE_CHECKING:
    from hairpin.model.products import Precision
    from hairpin.reports.plots import Pictures
    from hairpin.tasks.inference import Trained, TrainedClassifier
    from hairpin.training.evaluate import Measured


@dataclass(frozen=True)
class Run:
    """A run folder with its operations."""

    directory: RunDirectory

    @property
    def path(self) -> Path:
        """The folder."""
        return self.directory.path

    def __fspath__(self) -> str:
        """Return the folder, so that a run can be used wherever a path can."""
        return str(self.path)

    @property
    def config(self) -> Config:
        """All settings."""
        return self.directory.read_config()

    def record(self) -> list[dict[str, Any]]:
        """Return every event of metrics.jsonl, oldest first."""
        return list(read_record(self.directory.metrics))

    def events(self) -> History:
        """Return the events that are still valid, in little memory."""
        return history(read_record(self.directory.metrics))

    def summary(self) -> Summary:
        """Return the results."""
        return summarize(self.events())

    def diagnostics(self) -> Diagnostics:
        """Return the record's findings on clipping, step sizes, overfitting and memorised text,
        with advice.
        """
        return diagnose(self.events(), self.config)

    def lines(self) -> list[str]:
        """Return the summary with the diagnostics, for display."""
        events = self.events()
        return lines_with(summarize(events), diagnose(events, self.config))

    def trained(self, *, weights: str = "best", device: str = "auto") -> "Trained":
        """Return its model, ready to generate and be evaluated; of a classifier, to predict labels.

        Args:
            weights: "best" (by validation loss) or "last".
            device: of the model.

        Raises:
            RunError: nothing was saved yet, or what was saved is damaged.
        """
        from hairpin.tasks.inference import load_trained

        return load_trained(self.directory, weights=weights, device=device)

    def evaluate(
        self,
        *texts: Any,
        column: str | None = None,
        settings: Mapping[str, Any] | None = None,
        weights: str = "best",
        device: str = "auto",
    ) -> "Measured":
        """Measure loss, perplexity and bits per byte on texts; by default on the validation text.

        Args:
            texts: files, folders and rows held by Python, as in `hairpin.train`; they are read as
                the run read its own. Of a fine-tuned run: files of records.
            column: of tables, the one that holds the text; None: the run's.
            settings: for reading the texts, such as {"data.separator": "~~~"}.
            weights, device: as in `trained`.

        Raises:
            RunError: nothing was saved yet, or what was saved is damaged.
            CorpusError: a text cannot be read, or is empty.
            ConfigError: a setting is not about reading texts.
        """
        trained = self.trained(weights=weights, device=device)
        return trained.measure(texts, column=column, settings=settings)

    def writer(
        self,
        *,
        weights: str = "best",
        device: str = "auto",
        precision: "Precision" = "float32",
    ) -> "Trained":
        """Return its model, prepared for fast generation (`Trained.for_writing`).

        Args:
            weights, device: as in `trained`.
            precision: of the weights while generating on a CPU: "float32" is exact; "float16" and
                "bfloat16" read half as much, "int8" a quarter, and round.

        Raises:
            ConfigError: this processor or device does not support the precision.
            RunError: it is a classifier, nothing was saved yet, or what was saved is damaged.
        """
        if self.config.finetune.kind == "classify":
            raise RunError(
                f"{self.path}: a classifier, which does not generate text; "
                f"`{command('predict', self.path, 'TEXT')}` predicts labels"
            )
        return self.trained(weights=weights, device=device).for_writing(precision)

    def classifier(self, *, weights: str = "best", device: str = "auto") -> "TrainedClassifier":
        """Return its model, ready to predict labels.

        Raises:
            RunError: it is no classifier, nothing was saved yet, or what was saved is damaged.
        """
        from hairpin.tasks.inference import TrainedClassifier

        if self.config.finetune.kind != "classify":
            raise RunError(
                f"{self.path}: not a classifier; make one with "
                f"`{command('finetune', 'classify', '--from', self.path, '--data', 'FILE')}`"
            )
        trained = self.trained(weights=weights, device=device)
        assert isinstance(trained, TrainedClassifier)
        return trained

    def write_plots(self) -> list[Path]:
        """Draw loss, learning rate and gradient norm as PNG files in `plots/`.

        Raises:
            RunError: something in the run's folder is a link.
        """
        from hairpin.reports.plots import write_plots

        refuse_links(self.path)
        return write_plots(self.events(), self.directory.plots, self.config)

    def plot(self, *names: str) -> "Pictures":
        """Return the same plots, which a notebook shows inline.

        Args:
            names: "loss", "learning-rate", "gradient-norm", a classifier's "accuracy" and
                "confusion"; none: all there are.

        Raises:
            RunError: this run has no such plot.
        """
        from hairpin.reports.plots import Pictures, run_figures

        figures = run_figures(self.events(), self.config)
        if missing := [name for name in names if name not in figures]:
            raise RunError(
                f"{self.path}: there is no plot {missing[0]!r}; choose from {', '.join(figures)}"
            )
        return Pictures.of({name: figures[name] for name in names or figures})

    def _repr_html_(self) -> str:
        """Return HTML for a notebook: the summary, and the plots if there is an update to plot."""
        from hairpin.reports.plots import page_of

        has_updates = bool(self.events().updates)
        return page_of(str(self.path), self.lines(), self.plot() if has_updates else None)

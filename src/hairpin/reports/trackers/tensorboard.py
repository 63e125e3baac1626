"""TensorBoard: event files in the run's folder, `tensorboard/`."""

from collections.abc import Mapping, Sequence
from typing import Any

from hairpin.reports.trackers.tracker import Point, Tracked, Tracker, Written

FOLDER = "tensorboard"


class TensorBoard(Tracker):
    """Write event files. Points discarded by a resume or a rewind are purged: readers drop what was
    written from that update on, and it is written again.
    """

    can_rewind = True

    def open(self, run: Tracked) -> tuple[str, Written]:
        start = 0
        if run.written:
            start = min(run.kept, run.written.updates, run.written.others)
        self._folder = str(run.path / FOLDER)
        self._begin(start if run.written else None)
        self._writer.add_text("config", _as_code([f"{k} = {v!r}" for k, v in run.config.items()]))
        self._show_hparams(run.config)
        return FOLDER, Written(start, start)

    def write(self, points: Sequence[Point]) -> None:
        for point in points:
            for name, value in point.values.items():
                self._writer.add_scalar(name, value, point.update)
            if point.text is not None:
                self._writer.add_text("sample", _as_code(point.text.splitlines()), point.update)
        self._writer.flush()

    def rewind(self, update: int) -> None:
        self._writer.close()
        self._begin(update)

    def close(self, status: str, summary: Mapping[str, float]) -> None:
        _, _, end = _hparams({"status": status}, {})
        self._writer.file_writer.add_summary(end)
        step = int(summary.get("updates", 0))
        for name, value in summary.items():
            self._writer.add_scalar(f"summary/{name}", value, step)
        self._writer.close()

    def _begin(self, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(self._folder, purge_step=purge_step)

    def _show_hparams(self, config: Mapping[str, Any]) -> None:
        """Write the settings as TensorBoard's hyperparameters, with the metrics that judge them."""
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in config.items()
        }
        experiment, start, _ = _hparams(plain, {"val/loss": 0.0, "val/bits_per_byte": 0.0})
        self._writer.file_writer.add_summary(experiment)
        self._writer.file_writer.add_summary(start)


def _hparams(settings: Mapping[str, Any], metrics: Mapping[str, float]) -> Any:
    """Return TensorBoard's three records of a run: its settings, its beginning, its end."""
    from torch.utils.tensorboard import summary

    untyped: Any = summary
    return untyped.hparams(dict(settings), dict(metrics))


def _as_code(lines: Sequence[str]) -> str:
    """Indent lines so that Markdown shows them verbatim."""
    return "\n".join(f"    {line}" for line in lines) or "    "

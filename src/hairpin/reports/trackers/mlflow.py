"""MLflow: on a server, or in a folder of its own next to the run's."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hairpin.reports.trackers.tracker import UPDATE, Point, Tracked, Tracker, Written

_STATUS = {"finished": "FINISHED", "interrupted": "KILLED"}
# MLflow's own limits per call, and per value.
_MOST_METRICS, _MOST_PARAMS, _LONGEST_PARAM = 1000, 100, 6000
_LOCAL = "mlruns"

T = TypeVar("T")


class MLflow(Tracker):
    """Log metrics with the update as their step.

    MLflow cannot discard points. When a run repeats updates, which give the same numbers, those
    that MLflow has are not sent again; MLflow itself reports how much of a run it has.
    """

    def open(self, run: Tracked) -> tuple[str, Written]:
        uri = tracking_uri(run.asked.mlflow_uri, run.path)
        if "://" not in uri or uri.startswith("file:"):
            # Newer versions keep runs in a folder only if explicitly allowed.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        self._client: Any = MlflowClient(tracking_uri=uri)
        if run.identity is None:
            made = self._client.create_run(self._experiment(run.asked.project), run_name=run.name)
            self._id: str = made.info.run_id
            written = Written()
        else:
            self._id = run.identity
            self._client.update_run(self._id, status="RUNNING")
            last = self._last("train/loss")
            written = Written(last + 1, run.written.others if run.written else 0)
        self._log_params(run.config)
        return self._id, written

    def write(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(name, float(value), now, point.update)
            for point in points
            for name, value in point.values.items()
        ]
        metrics += [
            Metric("tokens", float(point.tokens), now, point.update)
            for point in points
            if point.kind == UPDATE
        ]
        for some in _parts(metrics, _MOST_METRICS):
            self._client.log_batch(self._id, metrics=some)
        for point in points:
            if point.text is not None:
                self._client.log_text(self._id, point.text, f"samples/{point.update:08d}.txt")

    def close(self, status: str, summary: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now, step = int(time.time() * 1000), int(summary.get("updates", 0))
        metrics = [Metric(f"summary/{k}", float(v), now, step) for k, v in summary.items()]
        self._client.log_batch(self._id, metrics=metrics)
        self._client.set_terminated(self._id, _STATUS.get(status, "FAILED"))

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _last(self, metric: str) -> int:
        """Return the last step of a metric in MLflow; -1: none."""
        history = self._client.get_metric_history(self._id, metric)
        return max((int(entry.step) for entry in history), default=-1)

    def _log_params(self, config: Mapping[str, Any]) -> None:
        """Log the settings. MLflow lets none change, so a run resumed with other settings keeps
        those of its beginning.
        """
        from mlflow.entities import Param

        there = self._client.get_run(self._id).data.params
        params = [
            Param(key, str(value)[:_LONGEST_PARAM])
            for key, value in config.items()
            if key not in there
        ]
        for some in _parts(params, _MOST_PARAMS):
            self._client.log_batch(self._id, params=some)


def tracking_uri(asked: str | None, run: Path) -> str:
    """Return where to store runs: as requested, else MLFLOW_TRACKING_URI, else next to the run."""
    uri = asked or os.environ.get("MLFLOW_TRACKING_URI")
    return uri or (run.absolute().parent / _LOCAL).as_uri()


def _parts(entries: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(entries), size):
        yield list(entries[start : start + size])

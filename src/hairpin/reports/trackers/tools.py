"""Tracking tools for a run; none is imported before it is used."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from hairpin.config.settings import Track
from hairpin.errors import UserError
from hairpin.reports.trackers.mlflow import MLflow
from hairpin.reports.trackers.tensorboard import TensorBoard
from hairpin.reports.trackers.tracker import Tracker
from hairpin.reports.trackers.wandb import WeightsAndBiases


@dataclass(frozen=True)
class Tool:
    """A tracking tool.

    Args:
        module: the one that its extra installs.
        make: makes a tracker that has not started.
        stays_here: True if it only writes files in the run's folder.
    """

    module: str
    make: Callable[[], Tracker]
    stays_here: bool = False


TOOLS = {
    "tensorboard": Tool("tensorboard", TensorBoard, stays_here=True),
    "wandb": Tool("wandb", WeightsAndBiases),
    "mlflow": Tool("mlflow", MLflow),
}


def followed(asked: Track, named: Iterable[str], notice: Callable[[str], None]) -> tuple[str, ...]:
    """Return the tools of a config that follow the run. A config may have come from anywhere and
    must not make this machine send data: a tool that does is named in the call, or left out.

    Args:
        asked: the config's tracking settings.
        named: tools that the call names.
        notice: called for each tool left out, and for an address that the config gives.
    """
    agreed = set(named)
    tools = tuple(t for t in dict.fromkeys(asked.tools) if t in agreed or TOOLS[t].stays_here)
    for line in _words(asked, tools):
        notice(line)
    return tools


def _words(asked: Track, tools: tuple[str, ...]) -> Iterator[str]:
    for tool in dict.fromkeys(asked.tools):
        if tool not in tools:
            yield (
                f"track: {tool} does not follow this run: its config names it, and this call does "
                f"not; to have it, add --track {tool}"
            )
    if "mlflow" in tools and asked.mlflow_uri and "://" in asked.mlflow_uri:
        yield f"track: mlflow writes to {asked.mlflow_uri}, as track.mlflow_uri says"


def require_installed(tools: Iterable[str]) -> None:
    """Check that the packages the tools need are installed.

    Raises:
        UserError: a line for each that is missing.
    """
    missing = [
        f"track.tools: {name} is not installed: pip install 'hairpin[{name}]', or take it out"
        for name in tools
        if find_spec(TOOLS[name].module) is None
    ]
    if missing:
        raise UserError(missing)

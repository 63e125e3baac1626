"""The tools that a run can be followed with; none is imported before it is used."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from hairpin.errors import UserError
from hairpin.tracking.mlflow import MLflow
from hairpin.tracking.tensorboard import TensorBoard
from hairpin.tracking.tracker import Tracker
from hairpin.tracking.wandb import WeightsAndBiases


@dataclass(frozen=True)
class Tool:
    """A tool.

    Args:
        module: that its extra installs.
        make: gives a tracker that has not begun.
    """

    module: str
    make: Callable[[], Tracker]


TOOLS = {
    "tensorboard": Tool("tensorboard", TensorBoard),
    "wandb": Tool("wandb", WeightsAndBiases),
    "mlflow": Tool("mlflow", MLflow),
}


def require_installed(tools: Iterable[str]) -> None:
    """Nothing, if what the tools need is there.

    Raises:
        UserError: a line for each that is not.
    """
    missing = [
        f"track.tools: {name} is not installed: pip install 'hairpin[{name}]', or take it out"
        for name in tools
        if find_spec(TOOLS[name].module) is None
    ]
    if missing:
        raise UserError(missing)

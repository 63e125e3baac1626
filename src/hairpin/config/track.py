"""Settings of trackers: what follows a run beside its record."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from hairpin.config.table import Table

Tool = Literal["tensorboard", "wandb", "mlflow"]


def _without_credentials(uri: str | None) -> str | None:
    """A run's config is shown to people, so that no password belongs there."""
    if uri is not None and "@" in urlsplit(uri).netloc:
        raise ValueError(
            "a user or password is not to be in a config; put it into MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    return uri


class Track(Table):
    """Trackers that are told what metrics.jsonl is told; they change nothing in a run."""

    tools: Annotated[tuple[Tool, ...], Field(strict=False)] = Field(
        (),
        description="Any of `tensorboard`, `wandb` and `mlflow`; each needs its extra, as in "
        "`pip install 'hairpin[wandb]'`.",
    )
    project: str = Field(
        "hairpin",
        min_length=1,
        max_length=100,
        description="W&B's project, MLflow's experiment.",
    )
    name: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="What the tools call the run; unset: the name of its folder.",
    )
    wandb_mode: Literal["offline", "online"] | None = Field(
        None,
        description="Whether W&B sends anything; unset: what WANDB_MODE says, else `online` where "
        "you are logged in, else `offline`, which keeps it all in the run's folder.",
    )
    mlflow_uri: Annotated[str | None, AfterValidator(_without_credentials)] = Field(
        None,
        min_length=1,
        max_length=1000,
        description="Where MLflow keeps runs: a folder, or the address of a server; unset: what "
        "MLFLOW_TRACKING_URI says, else the folder `mlruns` beside the run's.",
    )

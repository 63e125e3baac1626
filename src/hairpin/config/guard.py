"""Settings of the guard: what is done about an update that goes wrong."""

from typing import Literal

from pydantic import Field

from hairpin.config.table import Table


class Guard(Table):
    """What is done about an update whose loss or gradient is not finite, or far above the usual.

    A skipped update uses up its samples and its learning rate, and leaves weights and moments
    alone. A rewind goes back to the last checkpoint and on with the samples after the bad batch.
    """

    on_non_finite: Literal["stop", "skip", "rewind"] = Field(
        "stop",
        description="What to do when a loss or a gradient is NaN or infinite. Weights, moments and "
        "checkpoints never take it in.",
    )
    most_skips: int = Field(
        3,
        ge=1,
        le=1_000_000,
        description="Updates in a row that may be skipped; one more stops the run without saving.",
    )
    on_spike: Literal["record", "off", "stop", "skip", "rewind"] = Field(
        "record",
        description="What to do about a spike: a loss or gradient norm above the mean of the last "
        "updates by more than `spike_deviations`. `record` writes it down and trains on as if "
        "nothing was; `off` does not look.",
    )
    spike_deviations: float = Field(
        6.0,
        ge=1,
        le=1_000_000,
        description="Standard deviations above the mean of the last updates at which a spike "
        "begins. A deviation of less than 1% of the mean counts as 1%.",
    )
    spike_window: int = Field(
        128,
        ge=8,
        le=100_000,
        description="Updates that mean and deviation are taken over, skipped ones not among them; "
        "nothing is a spike until half as many were made. A recorded spike counts there as no "
        "more than the limit it broke.",
    )
    most_rewinds: int = Field(
        3,
        ge=1,
        le=1_000_000,
        description="How often a run may go back to one of its checkpoints; where one more rewind "
        "is due it stops.",
    )

    @property
    def rewinds(self) -> bool:
        """Whether a run may go back to a checkpoint."""
        return "rewind" in (self.on_non_finite, self.on_spike)

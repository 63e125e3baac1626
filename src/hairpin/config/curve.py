"""Settings of the learning rate's curve."""

from typing import Annotated, Literal

from pydantic import Field

from hairpin.config.table import Count, Fraction, LearningRate, Table
from hairpin.plugins.registry import BUILT_IN


class Extension(Table):
    """How a run goes on that was made longer."""

    at: int = Field(
        ge=2, le=10**15, description="The first update of this part, where the run ended before."
    )
    policy: Literal["rewarm", "constant", "cooldown"] = Field(
        description="Back to the peak and down the curve again; the last learning rate goes on; "
        "from there straight down to zero."
    )


class Schedule(Table):
    """The learning rate as a function of the update: linear warmup, then a curve."""

    kind: str | None = Field(
        None,
        description="The curve after warmup: "
        + ", ".join(f"`{curve}`" for curve in BUILT_IN["schedule"])
        + ", or what a plugin registers; unset: `wsd` where a time budget chooses the length, else "
        "`cosine`.",
    )
    peak_lr: LearningRate | None = Field(
        None, description="The learning rate at the end of warmup; unset: chosen from the width."
    )
    initial_lr: float | None = Field(
        None, ge=0, le=10, description="The learning rate of update 0; unset: peak / warmup."
    )
    min_lr: float | None = Field(
        None,
        ge=0,
        le=10,
        description="The learning rate of the last update, for curves that decay; unset: a tenth "
        "of the peak.",
    )
    warmup_updates: int | None = Field(None, ge=0, le=10**15, description="Warmup, in updates.")
    warmup_tokens: int | None = Field(None, ge=0, le=10**18, description="Warmup, in tokens.")
    warmup_fraction: Fraction | None = Field(
        None,
        description="Warmup, as a fraction of all updates. At most one of the three warmup keys "
        "is set; none: 5% of the run.",
    )
    decay_updates: Count | None = Field(None, description="Final decay of `wsd`, in updates.")
    decay_tokens: Count | None = Field(None, description="Final decay of `wsd`, in tokens.")
    decay_fraction: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Final decay of `wsd`, as a fraction of all updates. At most one of the three "
        "decay keys is set; none: 20% of the run, or 60% where a time budget chooses the length.",
    )
    cycles: int = Field(
        4, ge=1, le=10_000, description="Cosine cycles after warmup, for `cosine-restarts`."
    )
    extensions: Annotated[tuple[Extension, ...], Field(strict=False)] = Field(
        (),
        description="Parts that follow the curve, in order, as tables `[[schedule.extensions]]`. "
        "The curve above is then as long as the first part's `at`, and `train.updates` is the "
        "length of the whole. `hairpin resume RUN --extend 10m` writes them.",
    )

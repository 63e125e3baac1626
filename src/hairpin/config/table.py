"""Base class of the tables of settings, and the types that several of them use."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hairpin.system.arguments import plain_number

Count = Annotated[int, Field(ge=1, le=10**15)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
Names = Annotated[tuple[str, ...], Field(strict=False)]


class Table(BaseModel):
    """A frozen table whose unknown keys are errors and whose numbers are finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return plain_number(value)

"""The costs of a run as an object that says them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hairpin.data.checking.check import CorpusCheck
from hairpin.estimating.costs import Costs, costs_of
from hairpin.estimating.filled import Filled
from hairpin.estimating.values import plan_values
from hairpin.estimating.words import plan_lines


@dataclass(frozen=True)
class Plan(Costs):
    """What a run will cost; its numbers are those of `Costs`."""

    def lines(self, *, color: bool = False) -> list[str]:
        """All of it in words."""
        return plan_lines(self, color=color)

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values."""
        return plan_values(self)


def plan_of(filled: Filled, check: CorpusCheck | None, folder: Path) -> Plan:
    """The plan of a config that is filled in; arguments as in `costs_of`."""
    return Plan(**vars(costs_of(filled, check, folder)))

"""The costs of a run as an object that presents them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hairpin.data.checking.check import CorpusCheck
from hairpin.planning.plan.costs import Costs, costs_of
from hairpin.planning.plan.filled import FilledPlan
from hairpin.planning.plan.values import plan_values
from hairpin.planning.plan.words import plan_lines


@dataclass(frozen=True)
class Plan(Costs):
    """The cost of a run; its numbers are those of `Costs`."""

    def lines(self, *, color: bool = False) -> list[str]:
        """Return the plan in words."""
        return plan_lines(self, color=color)

    def as_json(self) -> dict[str, Any]:
        """Return the plan in plain values."""
        return plan_values(self)


def plan_of(filled: FilledPlan, check: CorpusCheck | None, folder: Path) -> Plan:
    """Return the plan of a filled-in config; arguments as in `costs_of`."""
    return Plan(**vars(costs_of(filled, check, folder)))

"""Update ratios: the change that one update makes, from a sample of weights before and after.

RMS of the change over RMS of the weights, by part of the network, shows if the learning rate
fits: Karpathy's rule of thumb is about 1e-3 (CS231n, "Ratio of weights:updates"). Measuring
draws no random number, touches no weight, and waits for no device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hairpin.optim.adamw import Named
from hairpin.training.step import send_scalars

_MOST_ENTRIES = 65_536  # of one parameter


@dataclass(frozen=True)
class WeightSample:
    """Copies of some entries of every trainable parameter, from before an update."""

    entries: dict[str, Tensor]

    @torch.no_grad()
    def compare(
        self, model: Named, total: Callable[[Tensor], Tensor] | None = None
    ) -> Callable[[], dict[str, float]]:
        """Read the same entries after the update; return a function that waits for the ratios, with
        four digits. A part whose weights were all 0 has none.

        Args:
            model: the one that the sample is of.
            total: sums a tensor over processes, if parameters are sharded; None: they are whole.
        """
        sums: dict[
            str, list[Tensor]
        ] = {}  # of squares, of changes and of weights, over all entries
        device = "cpu"
        for name, parameter in model.named_parameters():
            if name in self.entries:
                before, device = self.entries[name], parameter.device.type
                both = torch.stack([_some_entries(parameter) - before, before])
                squares = both.square().sum(1) * (parameter.numel() / max(1, both.size(1)))
                sums.setdefault(part_of(name), []).append(squares)
        totals = [torch.stack(pairs).sum(0) for pairs in sums.values()]
        if total:
            totals = list(total(torch.stack(totals)))
        arrived = send_scalars([total for pair in totals for total in pair.sqrt()], device)

        def read() -> dict[str, float]:
            values = arrived()
            found = zip(sums, values[::2], values[1::2], strict=True)
            ratios = {part: change / weight for part, change, weight in found if weight > 0}
            return {p: float(f"{r:.4g}") for p, r in ratios.items() if math.isfinite(r)}

        return read


@torch.no_grad()
def sample_weights(model: Named) -> WeightSample:
    """Copy up to 65,536 entries of each trainable parameter, evenly spread."""
    named = model.named_parameters()
    return WeightSample({n: _some_entries(p).clone() for n, p in named if p.requires_grad})


def part_of(name: str) -> str:
    """Return the part of the network that a parameter belongs to, by its name."""
    if "norm." in name:
        return "norm"
    for part in ("attention", "mlp", "position", "embedding", "head"):
        if part in name:
            return part
    return "other"


def _some_entries(parameter: Tensor) -> Tensor:
    # An odd stride: with an even one a matrix 1,024 wide would be seen in a few columns only.
    stride = -(-parameter.numel() // _MOST_ENTRIES) | 1
    return parameter.detach().flatten()[::stride]

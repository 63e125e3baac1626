"""Content of a checkpoint, before it is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from hairpin.checkpoints.pieces import Piece


@dataclass(frozen=True)
class Snapshot:
    """The content of a checkpoint.

    Args:
        step: updates completed.
        tensors: group → name → tensor; each group becomes `<group>.safetensors`.
        values: plain JSON values, for state.json.
        files: other files, name → content.
        pieces: group → name → the rows of a tensor that this process holds, where every process has
            some; all other tensors are the first process's.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    values: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    pieces: Mapping[str, Mapping[str, Piece]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """The approximate number of bytes to write."""
        return sum(tensor.nbytes for group in self.tensors.values() for tensor in group.values())

    def copied(self) -> "Snapshot":
        """Return a copy in memory of its own, on the CPU, so that training can continue."""
        copies = {
            group: {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            for group, tensors in self.tensors.items()
        }
        return replace(self, tensors=copies)

    def pieces_only(self) -> "Snapshot":
        """Return the pieces alone."""
        tensors = {
            group: {name: self.tensors[group][name] for name in pieces}
            for group, pieces in self.pieces.items()
        }
        return Snapshot(self.step, tensors, pieces=self.pieces)

    def not_finite(self) -> str | None:
        """Return the name of a tensor that contains a NaN or an infinity; None: there is none."""
        for group in self.tensors.values():
            for name, tensor in group.items():
                if tensor.is_floating_point() and tensor.numel():
                    # Both ends are NaN where any entry is: one pass, 25 times as fast as isfinite.
                    ends = torch.stack(torch.aminmax(tensor))
                    if not torch.isfinite(ends).all():
                        return name
        return None

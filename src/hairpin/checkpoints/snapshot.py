"""What a checkpoint is made of, before it is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from hairpin.checkpoints.pieces import Piece


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint is made of.

    Args:
        step: updates completed.
        tensors: group → name → tensor; a group becomes `<group>.safetensors`.
        values: plain JSON values, for state.json.
        files: other files, name → content.
        pieces: group → name → which rows of a tensor these are, where every process has some;
            the others of such a group, and all other groups, are the first process's.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    values: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    pieces: Mapping[str, Mapping[str, Piece]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """How much there is to write, about."""
        return sum(tensor.nbytes for group in self.tensors.values() for tensor in group.values())

    def copied(self) -> "Snapshot":
        """The same in memory of its own, on the CPU, so that training may go on."""
        copies = {
            group: {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            for group, tensors in self.tensors.items()
        }
        return replace(self, tensors=copies)

    def without_what_is_whole(self) -> "Snapshot":
        """The pieces alone."""
        tensors = {
            group: {name: self.tensors[group][name] for name in pieces}
            for group, pieces in self.pieces.items()
        }
        return Snapshot(self.step, tensors, pieces=self.pieces)

    def not_finite(self) -> str | None:
        """The name of a tensor with a NaN or an infinity in it."""
        for group in self.tensors.values():
            for name, tensor in group.items():
                if tensor.is_floating_point() and tensor.numel():
                    # Both ends are NaN where any entry is: one pass, 25 times as fast as isfinite.
                    ends = torch.stack(torch.aminmax(tensor))
                    if not torch.isfinite(ends).all():
                        return name
        return None

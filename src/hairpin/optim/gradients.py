"""Gradient clipping that is seen, and that never waits for the device.

The global norm is the L2 norm of all gradients as one long vector (Pascanu et al. 2013). It is
taken after accumulation and before clipping, at every update from the first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clipped:
    """What clipping saw, all still on the device.

    Args:
        norm: the global norm before clipping, a float32 scalar.
        clipped: whether gradients are too large, a boolean scalar.
        parameter_norms: the norm of each gradient, [number of parameters].
        divisor: what makes gradients small enough, a float32 scalar; exactly 1 where they are. The
            scale that they were measured with is in it.
    """

    norm: Tensor
    clipped: Tensor
    parameter_norms: Tensor
    divisor: Tensor


class Clipper:
    """Clips gradients in place.

    Args:
        kind: "norm" scales all gradients so that their global norm is at most the threshold;
            "value" limits each entry to ± threshold; "off" only measures.
        threshold: the largest norm or entry, above 0.

    Usable in any loop: after `backward()`, before `optimizer.step()`:

        clipped = Clipper("norm", 1.0)([p.grad for p in model.parameters() if p.grad is not None])
    """

    def __init__(self, kind: str = "norm", threshold: float = 1.0) -> None:
        if kind not in ("norm", "value", "off"):
            raise ValueError(f"clip by 'norm', 'value' or 'off', not {kind!r}")
        if not threshold > 0:
            raise ValueError(f"a clipping threshold is above 0, not {threshold}")
        self.kind = kind
        self.threshold = threshold

    @torch.no_grad()
    def __call__(self, gradients: Sequence[Tensor]) -> Clipped:
        """Measure, clip, and say what was done."""
        clipped = self.measure(gradients)
        if self.kind == "norm":
            torch._foreach_div_(list(gradients), clipped.divisor)
        return clipped

    @torch.no_grad()
    def measure(
        self,
        gradients: Sequence[Tensor],
        scale: Tensor | None = None,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> Clipped:
        """Measure, and leave scaling to whoever reads the gradients next, who divides them by
        `divisor`: a fused optimizer does that on the way. Clipping by value is done here.

        Args:
            gradients: as they were accumulated.
            scale: by which they are too large, a scalar on the device; None: 1.
            total: sums a tensor over processes, where each has a part of every gradient; None: the
                gradients are whole.
        """
        parameter_norms = torch.stack(torch._foreach_norm(list(gradients)))
        if total:
            parameter_norms = total(parameter_norms.square()).sqrt()
        limit: float | Tensor = self.threshold
        if scale is not None:
            parameter_norms = parameter_norms / scale
            limit = self.threshold * scale
        norm = torch.linalg.vector_norm(parameter_norms)
        divisor = torch.ones_like(norm)
        if self.kind == "norm":
            clipped = norm > self.threshold
            # A non-finite norm scales nothing: such gradients are never used, and dividing would
            # spread the NaN over the evidence.
            divisor = torch.where(clipped & torch.isfinite(norm), norm / self.threshold, divisor)
        elif self.kind == "value":
            above = torch.stack([(gradient.abs() > limit).any() for gradient in gradients]).any()
            clipped = total(above.float()) > 0 if total else above
            for gradient in gradients:
                gradient.clamp_(-limit, limit)  # type: ignore[arg-type]  # both of a kind
        else:
            clipped = torch.zeros_like(norm, dtype=torch.bool)
        if scale is not None:
            divisor = divisor * scale
        return Clipped(norm, clipped, parameter_norms, divisor)

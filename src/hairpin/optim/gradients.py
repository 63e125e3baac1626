"""Gradient clipping that reports what it did and never waits for the device.

The global norm is the L2 norm of all gradients as one long vector (Pascanu et al. 2013). It is
taken after accumulation and before clipping, at every update from the first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clipped:
    """Measurements made by clipping, all still on the device.

    Args:
        norm: the global norm before clipping, a float32 scalar; 0 without any gradient.
        clipped: true if gradients are too large, a boolean scalar.
        parameter_norms: the norm of each gradient, float32 [number of parameters].
        divisor: makes gradients small enough, a float32 scalar; exactly 1 where they are. It
            includes the scale that they were measured with.

    All are float32 whatever the gradients are. They are computed in float32, and of float64
    gradients in float64.
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
        """Measure, clip, and return the measurements.

        Finite gradients whose norm is too large for its format become zeros, as PyTorch's
        `clip_grad_norm_` has it. Where a gradient is not finite, all stay as they are.
        """
        clipped = self._measure(gradients, None, None)
        if self.kind == "norm" and gradients:
            largest = _norms([each for each in gradients if each.numel()], torch.inf)
            overflows = torch.isinf(clipped.norm) & torch.isfinite(largest).all()
            clipped = replace(clipped, divisor=torch.where(overflows, torch.inf, clipped.divisor))
            torch._foreach_div_(list(gradients), clipped.divisor)
        return _narrow(clipped)

    @torch.no_grad()
    def measure(
        self,
        gradients: Sequence[Tensor],
        scale: Tensor | None = None,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> Clipped:
        """Measure, and leave scaling to the next reader of the gradients, which divides them by
        `divisor`: a fused optimizer does so as it reads them. Clipping by value is done here.

        Args:
            gradients: as they were accumulated.
            scale: the factor by which they are too large, a scalar on the device; None: 1.
            total: sums a tensor over processes, where each has a part of every gradient; None: the
                gradients are whole.
        """
        return _narrow(self._measure(gradients, scale, total))

    def _measure(
        self,
        gradients: Sequence[Tensor],
        scale: Tensor | None,
        total: Callable[[Tensor], Tensor] | None,
    ) -> Clipped:
        """Measure in the gradients' own format, or in float32 if that is wider."""
        parameter_norms = _norms(gradients)
        if total:
            parameter_norms = total(parameter_norms.square()).sqrt()
        limit: float | Tensor = self.threshold
        if scale is not None:
            parameter_norms = parameter_norms / scale
            limit = self.threshold * scale
        norm = torch.linalg.vector_norm(parameter_norms)
        divisor = torch.ones_like(norm)
        clipped = torch.zeros_like(norm, dtype=torch.bool)
        if self.kind == "norm":
            clipped = norm > self.threshold
            # A non-finite norm scales nothing: such gradients are never used, and dividing would
            # spread the NaN over the evidence.
            divisor = torch.where(clipped & torch.isfinite(norm), norm / self.threshold, divisor)
        elif self.kind == "value" and gradients:
            above = torch.stack([(gradient.abs() > limit).any() for gradient in gradients]).any()
            clipped = total(above.float()) > 0 if total else above
            for gradient in gradients:
                gradient.clamp_(-limit, limit)  # type: ignore[arg-type]  # same type
        if scale is not None:
            divisor = divisor * scale
        return Clipped(norm, clipped, parameter_norms, divisor)


def _norms(gradients: Sequence[Tensor], order: float = 2.0) -> Tensor:
    """Return the norm of each, in the widest of their formats that is at least float32."""
    if not gradients:
        return torch.zeros(0)
    if all(gradient.dtype in (torch.float32, torch.float64) for gradient in gradients):
        return torch.stack(torch._foreach_norm(list(gradients), order))
    return torch.stack(
        [
            torch.linalg.vector_norm(
                gradient, order, dtype=torch.promote_types(gradient.dtype, torch.float32)
            )
            for gradient in gradients
        ]
    )


def _narrow(clipped: Clipped) -> Clipped:
    """Return the same in float32, the only format that fused optimizers accept for a divisor."""
    return Clipped(
        clipped.norm.float(),
        clipped.clipped,
        clipped.parameter_norms.float(),
        clipped.divisor.float(),
    )

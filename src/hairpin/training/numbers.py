"""An update's numbers on their way from the device to the host.

On CUDA they are one small tensor, copied to pinned memory behind the update's own work. Reading
them, an update later, waits for that copy and for nothing after it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hairpin.optim.gradients import Clipped
from hairpin.optim.guard import Verdict


@dataclass(frozen=True)
class Numbers:
    """The host's numbers of an update.

    Args:
        loss: mean nats per target.
        grad_norm: before clipping.
        loss_scale: the factor of the loss; None: not scaled.
        clipped: True if the norm was above the threshold.
        skip, halted, non_finite, spike, overflow: as in `Verdict`.
        leader: the parameter whose gradient has the largest norm, and `leader_share`: its share
            of the squared global norm, in four digits; None where that norm is 0 or not finite.
    """

    loss: float
    grad_norm: float
    loss_scale: float | None
    clipped: bool
    skip: bool
    halted: bool
    non_finite: bool
    spike: bool
    overflow: bool
    leader: str | None = None
    leader_share: float | None = None


def send(
    loss: Tensor,
    clipped: Clipped,
    verdict: Verdict,
    loss_scale: Tensor | None,
    names: Sequence[str],
) -> Callable[[], Numbers]:
    """Send an update's numbers to the host; return a function that waits for them.

    Args:
        loss, clipped, verdict, loss_scale: of the update.
        names: of the parameters whose norms are in `clipped`.
    """
    said = (verdict.skip, verdict.halted, verdict.non_finite, verdict.spike, verdict.overflow)
    scale = () if loss_scale is None else (loss_scale,)
    norms = clipped.parameter_norms
    leader = (norms.argmax(), (norms.max() / clipped.norm).square())
    scalars = (*leader, loss, clipped.norm, *scale, clipped.clipped, *said)
    arrived = send_scalars(scalars, loss.device.type)

    def read() -> Numbers:
        index, share, mean, norm, *rest = arrived()
        scaled_by = rest.pop(0) if scale else None
        above, skip, halted, non_finite, spike, overflow = map(bool, rest)
        known = math.isfinite(share)
        led = (names[int(index)], float(f"{share:.4g}")) if known else (None, None)
        return Numbers(
            mean, norm, scaled_by, above, skip, halted, non_finite, spike, overflow, *led
        )

    return read


def send_scalars(scalars: Sequence[Tensor], device: str) -> Callable[[], list[float]]:
    """Send scalars, of any type, to the host; return a function that waits for them.

    Args:
        scalars: on the device, integers below 2^24; nobody changes them in place.
        device: its type.
    """
    if device != "cuda":
        return lambda: [float(scalar) for scalar in scalars]
    on_host = torch.empty(len(scalars), pin_memory=True)
    on_host.copy_(torch.stack([scalar.float() for scalar in scalars]), non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def read() -> list[float]:
        copied.synchronize()
        values: list[float] = on_host.tolist()
        return values

    return read

"""Loss scaling for float16 (Micikevicius et al. 2018), decided on the device without a wait.

float16 has no numbers below 6e-8, where many gradients are. So the loss is scaled up before the
backward pass as far as possible, and the gradients are divided again where they are used. When they
leave float16's range, the update is skipped and the scale halved; after 2,000 sound updates it is
doubled: the constants of PyTorch's GradScaler, which waits for the device at every update.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_START = 2.0**16
_GROWTH_UPDATES = 2000
_SMALLEST, _LARGEST = 1.0, 2.0**32
_NAMES = ("loss_scale", "loss_scale_sound_updates")


@dataclass(frozen=True)
class Overflow:
    """Overflow of an update's scaled gradients: boolean scalars on the device.

    Args:
        happened: they left the range.
        spent: they did, and the scale cannot shrink: the gradients themselves are to blame.
    """

    happened: Tensor
    spent: Tensor


class LossScale:
    """The loss scale, adjusted after every update.

    Args:
        device: the device of the losses.
        start: the first scale.
        growth_updates: sound updates in a row after which the scale is doubled.

    Usable in any loop: `(loss * scaling.scale).backward()`, then

        clipped = clipper.measure(gradients, scaling.scale)
        overflow = scaling.judge(loss, clipped.norm)
        step_unless(guard.judge(loss, clipped.norm, overflow).skip, optimizer, lr, clipped.divisor)
    """

    def __init__(
        self,
        device: str | torch.device,
        start: float = _START,
        growth_updates: int = _GROWTH_UPDATES,
    ) -> None:
        self.scale = torch.full((), start, device=device)
        self._sound = torch.zeros((), dtype=torch.int64, device=device)
        self._growth_updates = growth_updates

    @torch.no_grad()
    def judge(self, loss: Tensor, norm: Tensor) -> Overflow:
        """Return the update's overflow, and set the scale for the next update.

        A non-finite loss is not caused by the scale: it is left to the guard.

        Args:
            loss: the loss before scaling.
            norm: the norm of all its gradients.
        """
        is_sound = torch.isfinite(norm)
        happened = torch.isfinite(loss) & ~is_sound
        spent = happened & (self.scale / 2 < _SMALLEST)
        sound = torch.where(happened, 0, self._sound + is_sound)
        grows = sound >= self._growth_updates
        grown = torch.where(grows, self.scale * 2, self.scale)
        self.scale = torch.where(happened, self.scale / 2, grown).clamp(_SMALLEST, _LARGEST)
        self._sound = torch.where(grows, 0, sound)
        return Overflow(happened, spent)

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the state that later updates depend on."""
        return dict(zip(_NAMES, (self.scale, self._sound), strict=True))

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Load what `state_tensors` returned. If the scale is missing, as in the checkpoint of a
        run that was not in float16 before, it stays as it is.
        """
        if _NAMES[0] in tensors:
            scale, sound = (tensors[name] for name in _NAMES)
            self.scale = scale.to(self.scale.device, copy=True)
            self._sound = sound.to(self.scale.device, copy=True)

"""The guard: which updates may touch the weights, decided on the device without waiting for it.

An update is bad where its loss or gradient norm is not finite, or is a spike: more than so many
standard deviations above the mean of the last updates, which is how OLMo-core's SkipStep optimizers
find one. What is done about each is a setting; the guard only says whether the update counts, and
whether training has come to a halt.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hairpin.config.guard import Guard as GuardSettings
from hairpin.optim.scaling import Overflow

# A deviation smaller than this share of the mean counts as this much: a loss that hardly moves has
# noise and no spikes.
_SMALLEST_DEVIATION = 0.01


@dataclass(frozen=True)
class Verdict:
    """What the guard says of one update: boolean scalars, all still on the device.

    Args:
        skip: this update must leave weights and moments alone.
        halted: so must every later one, until the guard is loaded again.
        non_finite: the loss or the gradient is not finite.
        spike: one of them is far above the usual.
        overflow: scaled gradients left float16's range, which is no fault of the update.
    """

    skip: Tensor
    halted: Tensor
    non_finite: Tensor
    spike: Tensor
    overflow: Tensor


class Guard:
    """Judges updates, one after another.

    Args:
        settings: what to do about which.
        device: where losses and norms are.

    Usable in any loop: after clipping, in place of `optimizer.step()`:

        guard = Guard(GuardSettings(on_non_finite="skip"), "cpu")
        ...
        verdict = guard.judge(loss, clipped.norm)
        step_unless(verdict.skip, optimizer, lr)
    """

    def __init__(self, settings: GuardSettings, device: str | torch.device) -> None:
        self.settings = settings
        size = settings.spike_window
        self._places = torch.arange(size, device=device)
        self._window = torch.zeros(2, size, device=device)  # losses and norms, a ring
        self._taken = torch.zeros((), dtype=torch.int64, device=device)
        self._in_a_row = torch.zeros((), dtype=torch.int64, device=device)
        self._halted = torch.zeros((), dtype=torch.bool, device=device)

    @torch.no_grad()
    def judge(self, loss: Tensor, norm: Tensor, overflow: Overflow | None = None) -> Verdict:
        """Say what is to become of the update with this loss and gradient norm, scalars both.

        Args:
            loss, norm: of the update.
            overflow: what the loss scale says of it. An update that overflowed is skipped, and
                counts here for nothing.
        """
        asked = self.settings
        values = torch.stack([loss.detach(), norm]).float()
        overflowed = overflow.happened if overflow else torch.zeros_like(self._halted)
        non_finite = ~overflowed & ~torch.isfinite(values).all()
        limits = self._limits()
        spike = ~overflowed & ~non_finite & (values > limits).any()
        skip = self._halted | non_finite
        if asked.on_spike not in ("record", "off"):
            skip = skip | spike
        in_a_row = torch.where(skip, self._in_a_row + 1, 0)
        self._in_a_row = torch.where(overflowed, self._in_a_row, in_a_row)
        skip = skip | overflowed
        self._halted = (
            self._halted
            | (non_finite & self._stops(asked.on_non_finite))
            | (spike & self._stops(asked.on_spike))
            | (overflow.spent if overflow else False)
        )
        # A recorded spike is taken in as the limit it broke: it hides no later one, and a rise
        # that stays becomes the usual.
        self._take(torch.minimum(values, limits), ~skip)
        return Verdict(skip, self._halted, non_finite, spike, overflowed)

    def state_tensors(self) -> dict[str, Tensor]:
        """What later decisions depend on. A halt is not among it: it is not to be saved."""
        return {"window": self._window, "taken": self._taken, "in_a_row": self._in_a_row}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Become what `state_tensors` gave, halted no more.

        Raises:
            RuntimeError: they are of a window of another size.
        """
        if tensors["window"].shape != self._window.shape:
            raise RuntimeError("the guard's window has another size than guard.spike_window")
        device = self._window.device
        self._window = tensors["window"].to(device, copy=True)
        self._taken = tensors["taken"].to(device, copy=True)
        self._in_a_row = tensors["in_a_row"].to(device, copy=True)
        self._halted = torch.zeros_like(self._halted)

    def _limits(self) -> Tensor:
        """Above which a loss and a norm are spikes, [2]; infinite while too few were seen."""
        size = self.settings.spike_window
        if self.settings.on_spike == "off":
            return torch.full((2,), torch.inf, device=self._window.device)
        seen = self._places < self._taken
        count = self._taken.clamp(1, size)
        mean = self._window.sum(1) / count  # what was not seen yet is 0
        squares = torch.where(seen, (self._window - mean[:, None]) ** 2, 0.0)
        deviation = (squares.sum(1) / count).sqrt()
        deviation = torch.maximum(deviation, _SMALLEST_DEVIATION * mean.abs())
        limits = mean + self.settings.spike_deviations * deviation
        return torch.where(2 * self._taken >= size, limits, torch.inf)

    def _stops(self, action: str) -> Tensor | bool:
        """Whether a bad update ends training for now, if this is what is done about such."""
        if action == "skip":
            return self._in_a_row > self.settings.most_skips
        return action in ("stop", "rewind")

    def _take(self, values: Tensor, taken: Tensor) -> None:
        """Put the values in place of the oldest, if they are `taken`."""
        # Chosen by a mask: an index that is a tensor would be waited for, and 0 * NaN is NaN.
        here = (self._places == self._taken % self.settings.spike_window) & taken
        self._window = torch.where(here, values[:, None], self._window)
        self._taken = self._taken + taken

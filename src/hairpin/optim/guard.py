"""The guard decides on the device, without waiting for it, if an update may touch the weights.

An update is bad where its loss or gradient norm is not finite, or is a spike: more than a set
number of standard deviations above the mean of the last updates, as in OLMo-core's SkipStep
optimizers. The action for each is a setting; the guard only decides if the update counts and if
training halts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hairpin.config.settings import Guard as GuardSettings
from hairpin.optim.scaling import Overflow

# Lower bound of the deviation, as a share of the mean: a loss that hardly moves has noise and no
# spikes.
_MIN_DEVIATION = 0.01


@dataclass(frozen=True)
class Verdict:
    """The guard's verdict on one update: boolean scalars, all still on the device.

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
        settings: the action for each kind of bad update.
        device: the device of losses and norms.

    Usable in any loop: after clipping, instead of `optimizer.step()`:

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
        """Return the verdict on the update with this loss and gradient norm, both scalars.

        Args:
            loss, norm: of the update.
            overflow: the loss scale's verdict. An update that overflowed is skipped and not
                counted here.
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
        # A recorded spike enters the window as the limit it broke: it hides no later one, and a
        # lasting rise becomes normal.
        self._take(torch.minimum(values, limits), ~skip)
        return Verdict(skip, self._halted, non_finite, spike, overflowed)

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the state that later decisions depend on. A halt is not part of it or saved."""
        return {"window": self._window, "taken": self._taken, "in_a_row": self._in_a_row}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Load what `state_tensors` returned, and clear any halt.

        Raises:
            RuntimeError: they belong to a window of another size.
        """
        if tensors["window"].shape != self._window.shape:
            raise RuntimeError("the size of the guard's window differs from guard.spike_window")
        device = self._window.device
        self._window = tensors["window"].to(device, copy=True)
        self._taken = tensors["taken"].to(device, copy=True)
        self._in_a_row = tensors["in_a_row"].to(device, copy=True)
        self._halted = torch.zeros_like(self._halted)

    def _limits(self) -> Tensor:
        """Return the spike thresholds of loss and norm, [2]; infinite while too few were seen."""
        size = self.settings.spike_window
        if self.settings.on_spike == "off":
            return torch.full((2,), torch.inf, device=self._window.device)
        seen = self._places < self._taken
        count = self._taken.clamp(1, size)
        mean = self._window.sum(1) / count  # entries not seen yet are 0
        squares = torch.where(seen, (self._window - mean[:, None]) ** 2, 0.0)
        deviation = (squares.sum(1) / count).sqrt()
        deviation = torch.maximum(deviation, _MIN_DEVIATION * mean.abs())
        limits = mean + self.settings.spike_deviations * deviation
        return torch.where(2 * self._taken >= size, limits, torch.inf)

    def _stops(self, action: str) -> Tensor | bool:
        """Return true if a bad update halts training under this action."""
        if action == "skip":
            return self._in_a_row > self.settings.most_skips
        return action in ("stop", "rewind")

    def _take(self, values: Tensor, taken: Tensor) -> None:
        """Overwrite the oldest values with these, if they are `taken`."""
        # Chosen by a mask: an index that is a tensor would be waited for, and 0 * NaN is NaN.
        here = (self._places == self._taken % self.settings.spike_window) & taken
        self._window = torch.where(here, values[:, None], self._window)
        self._taken = self._taken + taken

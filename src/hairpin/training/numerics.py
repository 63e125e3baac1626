"""The device, and the number format of its matrix products."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from hairpin.errors import ConfigError


@dataclass(frozen=True)
class Numerics:
    """Where the model runs and in which format it multiplies.

    Args:
        device: "cpu", "cuda" or "mps".
        precision: "float32", "tf32" or "bfloat16". Weights, moments, gradients and the loss are
            float32 under all of them.
    """

    device: str
    precision: str = "float32"

    def autocast(self) -> AbstractContextManager[object]:
        """Forward passes inside it multiply in the format; weights are cast once for all."""
        if self.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    def full_precision(self) -> AbstractContextManager[object]:
        """Inside `autocast`, for what is not a forward pass; the casts stay in its cache."""
        if self.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(self.device, enabled=False)

    def configure(self, *, deterministic: bool) -> None:
        """Set what PyTorch keeps for the whole process."""
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        if self.device == "cuda":
            torch.use_deterministic_algorithms(deterministic)

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()


def choose_device(asked: str) -> str:
    """The device for `asked`; "auto" takes CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: the machine has no such device.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if asked == "auto":
        return next(device for device, there in present.items() if there)
    if not present[asked]:
        there = ", ".join(device for device, is_there in present.items() if is_there)
        raise ConfigError(f"execution.device: this machine has no {asked}; it has {there}")
    return asked

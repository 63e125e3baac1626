"""The device, and the number format of its matrix products."""

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from hairpin.errors import ConfigError

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Numerics:
    """The model's device and the format of its products.

    Args:
        device: "cpu", "cuda" or "mps".
        precision: "float32", "tf32", "bfloat16" or "float16". Weights, moments, gradients and the
            loss are float32 under all of them.
        keeps_casts: True if `autocast` keeps its casts to the end of its block, which costs the
            memory of all weights in the format.
    """

    device: str
    precision: str = "float32"
    keeps_casts: bool = True

    @property
    def product_dtype(self) -> torch.dtype | None:
        """The format that weights are cast to for products; None: no cast."""
        return _AUTOCAST.get(self.precision)

    def autocast(self) -> AbstractContextManager[object]:
        """Run forward passes inside it in the format; weights are cast only once."""
        if self.precision not in _AUTOCAST:
            return nullcontext()
        return torch.autocast(
            self.device, _AUTOCAST[self.precision], cache_enabled=self.keeps_casts
        )

    def full_precision(self) -> AbstractContextManager[object]:
        """Disable `autocast` inside it, outside forward passes; the casts stay in its cache."""
        if self.precision not in _AUTOCAST:
            return nullcontext()
        return torch.autocast(self.device, enabled=False)

    def to_device(self, tensor: Tensor) -> Tensor:
        """Copy a host tensor to the device; on CUDA the copy is asynchronous to the host."""
        if self.device != "cuda":
            return tensor.to(self.device)
        return tensor.contiguous().pin_memory().to(self.device, non_blocking=True)

    def configure(self, *, deterministic: bool) -> None:
        """Set PyTorch's global options for the process."""
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        if self.device == "cuda":
            torch.use_deterministic_algorithms(deterministic)

    def synchronize(self) -> None:
        """Wait until the device has finished all its work."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Keep Python's garbage collector off existing objects inside the block: a full collection
        takes a tenth of a second or more, in which a GPU would run out of work.
        """
        if self.device != "cuda":
            yield
            return
        gc.collect()
        gc.freeze()
        try:
            yield
        finally:
            gc.unfreeze()


def formats(device: str) -> list[str]:
    """Return the precisions that `auto` chooses among, the safe one first.

    On a CPU bfloat16 may be emulated, and very slowly; so it is timed. A GPU without it (a T4)
    emulates it as well, which PyTorch counts as support by default.
    """
    if device == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ["float32", "bfloat16" if has_bfloat16 else "float16"]
    return ["float32"] if device == "mps" else ["float32", "bfloat16"]


def choose_device(requested: str) -> str:
    """Return the device for `requested`; "auto" takes CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: the machine has no such device.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if requested == "auto":
        return next(device for device, there in present.items() if there)
    if not present[requested]:
        there = ", ".join(device for device, is_there in present.items() if is_there)
        raise ConfigError(f"execution.device: this machine has no {requested}; it has {there}")
    return requested

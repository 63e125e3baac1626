"""Products that read further than they should, on any processor.

oneDNN's products in bfloat16 on AMX read each row of their left operand up to the next multiple of
32 columns and multiply what lies there by zero (uxlfoundation/oneDNN#5717): a NaN or an infinity
beside the row becomes a NaN in the result. `WideReads` does the same on other processors: every
product of the matrices that it sees is given the rows as such a kernel reads them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_TILE_COLUMNS = 32
# Overload packet → where its two factors are among the arguments.
_FACTORS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2), "addmm_": (1, 2),
            "baddbmm_": (1, 2)}  # fmt: skip


class WideReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, a product whose factors have something that is not finite within reach raises.

    `products` counts those that were looked at, `ragged` those that had a tail to read.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products = self.ragged = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._overloadpacket.__name__
        if name in _FACTORS:
            left, right = (args[place] for place in _FACTORS[name])
            self.products += 1
            for factor, inner in ((left, -1), (right, -2)):
                tail = tail_of(factor, inner)
                if tail is not None:
                    self.ragged += 1
                    if not tail.isfinite().all():
                        shapes = f"{list(left.shape)} x {list(right.shape)}"
                        raise AssertionError(f"{name} {shapes} can read what is not finite")
        return func(*args, **(kwargs or {}))


def tail_of(factor: Tensor, inner: int) -> Tensor | None:
    """Return what lies behind the inner dimension up to the next multiple of 32, as far as it is
    in the same storage; None: nothing is read there.
    """
    size, strides = factor.size(inner), factor.stride()
    beyond = -size % _TILE_COLUMNS
    if not beyond or factor.numel() == 0:
        return None
    storage = factor.untyped_storage()
    whole = factor.new_empty(0).set_(storage, 0, (len(storage) // factor.element_size(),), (1,))
    places = torch.tensor(factor.storage_offset())
    dimension = inner % factor.dim()
    for axis in range(factor.dim()):
        count = (
            torch.arange(size, size + beyond)
            if axis == dimension
            else torch.arange(factor.size(axis))
        )
        places = places[..., None] + count * strides[axis]
    return whole[places[places < len(whole)]]


@contextmanager
def filled_memory() -> Iterator[None]:
    """Inside, memory that nothing was written to is full of NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)

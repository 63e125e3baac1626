"""Product of a matrix and a vector on a CPU, in the formats in which weights can be stored.

Every weight is read once and used once, so a product takes as long as reading its weights from
memory, if all cores read. PyTorch's `mv` uses one core for float32 if its BLAS does (MKL on
processors other than Intel's), and oneDNN's products in bfloat16 are as slow: this module uses the
variants that keep all cores reading.

Shape suffixes: O outputs, I inputs; P parts that cores share, and J inputs, Q outputs of a part.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.backends.mkldnn import set_flags

from hairpin.errors import ConfigError

Precision = Literal["float32", "bfloat16", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Product = Callable[[Tensor], Tensor]  # [I] → [O], which the next call may overwrite
MakeProduct = Callable[[Tensor, Tensor | None], Product]  # of a weight [O, I] and a bias

_MAX_HALF = torch.finfo(torch.float16).max
_MAX_PARTS = 16


def product_maker(precision: Precision) -> MakeProduct:
    """Return the function that makes the products of a format."""
    makers: dict[Precision, MakeProduct] = {
        "float32": _plain,
        "bfloat16": lambda weight_OI, bias_O: _Half(weight_OI, bias_O, torch.bfloat16),
        "float16": lambda weight_OI, bias_O: _Half(weight_OI, bias_O, torch.float16),
        "int8": _Rounded,
    }
    return makers[precision]


def require_supported(precision: str, device: str) -> None:
    """Check that a device, and this processor, support products of one row in that format.

    Raises:
        ConfigError: they do not.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision: {precision!r} is none of {', '.join(PRECISIONS)}")
    if precision != "float32" and device != "cpu":
        raise ConfigError(f"precision: {precision} is for generating on a CPU, not on {device}")
    if precision == "int8" and not _eight_bits_are_exact():
        raise ConfigError("precision: int8 products overflow on this processor; use float16")


@contextmanager
def without_onednn() -> Iterator[None]:
    """Disable oneDNN inside the block, for bfloat16, whose products of one row take it twice as
    long as PyTorch's own.

    The switch applies to the process: other threads' products do without oneDNN meanwhile, too.
    """
    before, *_ = set_flags(_enabled=False, _fp32_precision=None)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        set_flags(_enabled=before, _fp32_precision=None)  # type: ignore[no-untyped-call]


def _plain(weight_OI: Tensor, bias_O: Tensor | None) -> Product:
    """Return a product in the model's own format, from its own weights."""
    weight_OI = weight_OI.detach()
    bias_O = None if bias_O is None else bias_O.detach()
    if _parts(weight_OI.size(1)) == 1:
        return _Plain(weight_OI, bias_O)
    if weight_OI.t().is_contiguous():
        return _ByInputs(weight_OI, bias_O)
    return _ByOutputs(weight_OI, bias_O) if weight_OI.is_contiguous() else _Plain(weight_OI, bias_O)


def _parts(size: int) -> int:
    """Return the number of equal parts that a matrix is split into so that every core has some."""
    threads = torch.get_num_threads()
    if threads == 1:
        return 1
    return math.gcd(size, min(_MAX_PARTS, 2 ** threads.bit_length()))


class _Plain:
    """The product of BLAS."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        self.weight_OI, self.bias_O = weight_OI, bias_O
        self.out_O = weight_OI.new_empty(weight_OI.size(0))

    def __call__(self, x_I: Tensor) -> Tensor:
        if self.bias_O is None:
            return torch.mv(self.weight_OI, x_I, out=self.out_O)
        return torch.addmv(self.bias_O, self.weight_OI, x_I, out=self.out_O)


class _ByInputs:
    """A product for a weight stored by inputs: parts have some of the inputs, and are added up."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        outputs, inputs = weight_OI.shape
        self.parts = _parts(inputs)
        self.weight_PJO = weight_OI.t().view(self.parts, -1, outputs)
        self.bias_O = bias_O
        self.sums_P1O = weight_OI.new_empty(self.parts, 1, outputs)
        self.out_1O = weight_OI.new_empty(1, outputs)
        self.out_O = self.out_1O[0]

    def __call__(self, x_I: Tensor) -> Tensor:
        torch.bmm(x_I.view(self.parts, 1, -1), self.weight_PJO, out=self.sums_P1O)
        torch.sum(self.sums_P1O, 0, out=self.out_1O)
        return self.out_O if self.bias_O is None else self.out_O.add_(self.bias_O)


class _ByOutputs:
    """A product for a weight stored by outputs: parts have some outputs each; a rest is apart."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        outputs, inputs = weight_OI.shape
        self.parts = _parts(inputs)
        shared = outputs - outputs % self.parts
        self.weight_PIQ = weight_OI[:shared].view(self.parts, -1, inputs).transpose(1, 2)
        self.rest_RI = weight_OI[shared:]
        self.bias_O = bias_O
        self.out_O = weight_OI.new_empty(outputs)
        self.shared_P1Q = self.out_O[:shared].view(self.parts, 1, -1)
        self.rest_R = self.out_O[shared:]
        self.shape = (self.parts, 1, inputs)

    def __call__(self, x_I: Tensor) -> Tensor:
        torch.bmm(x_I.expand(self.shape), self.weight_PIQ, out=self.shared_P1Q)
        if len(self.rest_R):
            torch.mv(self.rest_RI, x_I, out=self.rest_R)
        return self.out_O if self.bias_O is None else self.out_O.add_(self.bias_O)


class _Half:
    """A product of weights and inputs in 16 bits; the bias is added in float32."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, dtype: torch.dtype) -> None:
        weight_OI = weight_OI.detach()
        if dtype == torch.float16 and weight_OI.abs().max() > _MAX_HALF:
            raise ConfigError("precision: a weight is too large for float16; use bfloat16")
        self.dtype = dtype
        self.weight_OI = weight_OI.to(dtype, memory_format=torch.contiguous_format)
        self.bias_O = None if bias_O is None else bias_O.detach().clone()
        self.out_O = self.weight_OI.new_empty(weight_OI.size(0))

    def __call__(self, x_I: Tensor) -> Tensor:
        torch.mv(self.weight_OI, x_I.to(self.dtype), out=self.out_O)
        return self.out_O.float() if self.bias_O is None else self.bias_O + self.out_O


class _Rounded:
    """A product of int8 values up to 127: weights with a scale per output, inputs with one."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        weight_OI = weight_OI.detach().contiguous()
        largest_O = torch.linalg.vector_norm(weight_OI, torch.inf, dim=1)
        # Zeros stay zeros for any divisor.
        self.scale_O = largest_O.clamp_min_(torch.finfo(torch.float32).tiny * 127).div_(127)
        self.weight_IO = (weight_OI / self.scale_O[:, None]).round_().to(torch.int8).t()
        self.bias_O = None if bias_O is None else bias_O.detach().clone()
        self.x_1I = torch.empty(1, weight_OI.size(1), dtype=torch.int8)
        self.sums_1O = torch.empty(1, weight_OI.size(0), dtype=torch.int32)
        self.x_I, self.sums_O = self.x_1I[0], self.sums_1O[0]

    def __call__(self, x_I: Tensor) -> Tensor:
        largest = float(torch.linalg.vector_norm(x_I, torch.inf)) or 1.0
        self.x_I.copy_((x_I * (127 / largest)).round_())
        torch._int_mm(self.x_1I, self.weight_IO, out=self.sums_1O)
        if self.bias_O is None:
            return torch.mul(self.scale_O, self.sums_O).mul_(largest / 127)
        return torch.addcmul(self.bias_O, self.scale_O, self.sums_O, value=largest / 127)


def _eight_bits_are_exact() -> bool:
    """Check that the largest sums are exact: some processors saturate sums of pairs at 16 bits."""
    rows = torch.full((64, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(rows[:1], rows.t()) == 127 * 127 * 64).all())

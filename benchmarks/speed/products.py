"""The matrix products of an update: how many of which shape, and how long they take alone."""

import time

import torch

from hairpin.model.shape import Shape

TRIES = 3


def matrix_products(shape: Shape, batch: int) -> list[tuple[int, int, int, int]]:
    """(rows, inner, columns, how often) of an update's products, attention's apart.

    Each matrix [out, in] is multiplied three times: forward, for the gradient of its input, and for
    its own.
    """
    n, c = batch * shape.context, shape.width
    matrices = [
        (3 * c, c, shape.layers), (c, c, shape.layers), (4 * c, c, shape.layers),
        (c, 4 * c, shape.layers), (shape.vocabulary, c, 1),
    ]  # fmt: skip
    return [
        product
        for out, inner, count in matrices
        for product in ((n, inner, out, count), (n, out, inner, count), (out, n, inner, count))
    ]


def attention_products(shape: Shape, batch: int) -> list[tuple[int, int, int, int, float]]:
    """(heads of the batch, rows, inner, columns, how often) of an update's products in attention.

    Forward QKᵀ and PV; backward dP = dO Vᵀ, dV = Pᵀ dO, dQ = dS K and dK = dSᵀ Q. Half of each is
    counted: what lies above the diagonal is masked. The product that flash attention computes
    again in its backward pass is not counted.
    """
    t, head = shape.context, shape.width // shape.heads
    many = batch * shape.heads
    half_of = shape.layers / 2
    return [(many, t, head, t, 2 * half_of), (many, t, t, head, 4 * half_of)]


def time_products(shape: Shape, batch: int, device: str, dtype: torch.dtype) -> tuple[float, float]:
    """Seconds of an update's products, without attention's and attention's own.

    Each shape is timed by itself, into memory that is there already; the fastest of three counts.
    """

    def tensor(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, device=device).to(dtype)

    matrices = attention = 0.0
    for rows, inner, columns, count in matrix_products(shape, batch):
        out = torch.empty(rows, columns, device=device, dtype=dtype)
        matrices += count * _fastest(tensor(rows, inner), tensor(inner, columns), out)
    for many, rows, inner, columns, often in attention_products(shape, batch):
        out = torch.empty(many, rows, columns, device=device, dtype=dtype)
        one, other = tensor(many, rows, inner), tensor(many, inner, columns)
        attention += often * _fastest(one, other, out)
    return matrices, attention


def _fastest(one: torch.Tensor, other: torch.Tensor, out: torch.Tensor) -> float:
    """Seconds of the fastest of a few products into `out`, after one that warms up."""
    multiply = torch.mm if one.dim() == 2 else torch.bmm
    seconds = []
    for _ in range(1 + TRIES):
        begin = time.perf_counter()
        multiply(one, other, out=out)
        if out.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])

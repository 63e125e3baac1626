"""The GELU written by hand against PyTorch's, in twice the digits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hairpin.model.gpt import MLP
from hairpin.model.kernels import activations
from hairpin.model.kernels.activations import gelu
from hairpin.model.shape import Shape

ROUNDING = 1.01 * 2.0**-8  # what a bfloat16 is off by at most, in shares of itself


def value_and_gradient(
    function: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = function(x)
    torch.autograd.backward(y, gradient)
    assert x.grad is not None
    return y.detach(), x.grad


def plain(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


@pytest.mark.parametrize("piece", [7, 64, 2**18])  # a rest, none, all at once
@pytest.mark.parametrize("shape", [(3, 5, 64), (1,), (0, 4)])
def test_it_is_pytorchs_and_so_is_its_gradient(
    shape: tuple[int, ...], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "_PIECE_NUMBERS", piece)
    x, gradient = 3 * torch.randn(shape), torch.randn(shape)
    exact = value_and_gradient(plain, x.double(), gradient.double())
    for ours, theirs in zip(value_and_gradient(gelu, x, gradient), exact, strict=True):
        assert ours.dtype == torch.float32 and ours.shape == theirs.shape
        torch.testing.assert_close(ours.double(), theirs, atol=5e-6, rtol=1e-6)


def test_in_bfloat16_it_is_rounded_once() -> None:
    x, gradient = (3 * torch.randn(100, 64)).bfloat16(), torch.ones(100, 64).bfloat16()
    y, slope = value_and_gradient(gelu, x, gradient)
    exact_y, exact_slope = value_and_gradient(plain, x.double(), gradient.double())
    assert y.dtype == slope.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), exact_y, atol=1e-6, rtol=ROUNDING)
    torch.testing.assert_close(slope.double(), exact_slope, atol=1e-5, rtol=ROUNDING)


def test_a_slope_is_that_of_its_values() -> None:
    x = (2 * torch.randn(4, 9, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(gelu, (x,))


def test_far_from_nought_it_is_x_or_nothing() -> None:
    x = torch.tensor([-1e6, -50.0, -0.0, 0.0, 50.0, 1e6])
    y, slope = value_and_gradient(gelu, x, torch.ones(6))
    assert y.tolist() == [0, 0, 0, 0, 50, 1e6]
    assert slope.tolist() == [0, 0, 0.5, 0.5, 1, 1]


def test_what_does_not_lie_in_order_is_read_in_order() -> None:
    x, gradient = torch.randn(6, 4).t(), torch.randn(6, 4).t()
    ours, theirs = value_and_gradient(gelu, x, gradient), value_and_gradient(plain, x, gradient)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_model_takes_it_where_there_is_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Tensor] = []
    by_hand = activations._Gelu
    monkeypatch.setattr(by_hand, "apply", lambda x: plain(taken.append(x) or x))  # type: ignore[func-returns-value]
    mlp, x = MLP(Shape(10, 4, 1, 2, 8)), torch.randn(2, 3, 8)
    mlp(x)
    assert len(taken) == 1
    with torch.no_grad():
        mlp(x)
    assert len(taken) == 1

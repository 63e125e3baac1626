"""Attention in blocks against its definition in float64, and against PyTorch's own."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hairpin.model.gpt import GPT
from hairpin.model.kernels import attention
from hairpin.model.kernels.attention import attend, causal_attention
from hairpin.model.shape import Shape


def heads(T: int, dtype: torch.dtype = torch.float32, D: int = 8, size: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(T)
    return (size * torch.randn(3, 2, 3, T, D, generator=generator)).to(dtype)


def definition(qkv: Tensor) -> Tensor:
    q, k, v = qkv.double()
    T, D = q.shape[-2:]
    scores = (q @ k.mT / math.sqrt(D)).masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
    y: Tensor = scores.softmax(-1) @ v
    return y.transpose(1, 2).flatten(2)


def with_gradient(attends: object, qkv: Tensor) -> tuple[Tensor, Tensor]:
    assert callable(attends)
    inputs = qkv.detach().clone().requires_grad_()
    out = attends(inputs)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * weights.to(out.dtype)).sum().backward()
    assert inputs.grad is not None
    return out.detach(), inputs.grad


def torchs_own(qkv: Tensor) -> Tensor:
    q, k, v = qkv
    y: Tensor = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return y.transpose(1, 2).flatten(2)


# One position, one block, the edges of blocks, and several of them with a short last one.
@pytest.mark.parametrize("T", [1, 2, 127, 128, 129, 256, 300])
def test_outputs_and_gradients_are_those_of_the_definition(T: int) -> None:
    out, gradient = with_gradient(causal_attention, heads(T))
    expected, below = with_gradient(definition, heads(T).double())
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), below, rtol=1e-4, atol=1e-5)


def test_probabilities_computed_again_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = with_gradient(causal_attention, heads(300))
    monkeypatch.setattr(attention, "_KEPT_BYTES", 0)
    for one, other in zip(kept, with_gradient(causal_attention, heads(300)), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize(("size", "most"), [(1.0, 0.006), (3.0, 0.03)])
def test_bfloat16_is_near(size: float, most: float) -> None:
    """Rounding to 8 bits of queries, keys, scores and probabilities; scores of deviation 1, and of
    deviation 9, which give probabilities near 0 and 1.
    """
    qkv = heads(200, torch.bfloat16, D=32, size=size)
    expected = with_gradient(definition, qkv.double())
    for ours, exact in zip(with_gradient(causal_attention, qkv), expected, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.double() - exact).norm() < most * exact.norm()


@pytest.mark.parametrize("T", [64, 200])
def test_it_is_torchs_own(T: int) -> None:
    for ours, theirs in zip(
        with_gradient(causal_attention, heads(T)), with_gradient(torchs_own, heads(T)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_later_position_changes_nothing_before_it() -> None:
    one = heads(150)
    other = one.clone()
    other[..., 149, :] = 1e4
    assert causal_attention(one)[:, :149].equal(causal_attention(other)[:, :149])


def test_attention_with_dropout_or_a_cache_is_torchs_own() -> None:
    qkv = heads(20)
    torch.manual_seed(0)
    dropped = attend(qkv, dropout=0.5)
    assert not dropped.allclose(attend(qkv))
    cache = GPT(Shape(10, 20, 1, 3, 24)).empty_cache(2)[0]
    torch.testing.assert_close(attend(qkv, cache), attend(qkv), rtol=1e-5, atol=1e-6)
    assert cache.length == 20


def test_a_nan_is_not_hidden() -> None:
    qkv = heads(130)
    qkv[1, 0, 0, 5, 0] = math.nan
    out = causal_attention(qkv)
    assert out[0, 5:, :8].isnan().all() and out[1].isfinite().all()

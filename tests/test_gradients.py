import math

import pytest
import torch
from torch import Tensor, nn

from hairpin.model.shape import Shape
from hairpin.optim.gradients import Clipper
from hairpin.optim.optimizers import step_unless
from helpers import lively_model, random_ids

INF, NAN = math.inf, math.nan


def gradients_of(scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(5, 7), (7,), (2, 3, 4), (1,)]
    return [scale * torch.randn(shape, generator=generator) for shape in shapes]


def as_parameters(gradients: list[Tensor]) -> list[nn.Parameter]:
    parameters = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros_like(gradient))
        parameter.grad = gradient.clone()
        parameters.append(parameter)
    return parameters


def test_the_books_matrix_of_norm_5_is_scaled_by_a_fifth() -> None:
    matrix = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
    clipped = Clipper("norm", 1.0)([matrix])
    assert float(clipped.norm) == 5.0
    assert bool(clipped.clipped)
    torch.testing.assert_close(matrix, torch.tensor([[0.2, 0.4], [0.4, 0.8]]))


@pytest.mark.parametrize("scale", [1e-3, 0.05, 1.0, 1e4])
@pytest.mark.parametrize("threshold", [0.01, 1.0, 30.0])
def test_by_norm_it_does_what_pytorch_does(scale: float, threshold: float) -> None:
    gradients = gradients_of(scale)
    parameters = as_parameters(gradients)
    expected_norm = torch.nn.utils.clip_grad_norm_(parameters, threshold)
    clipped = Clipper("norm", threshold)(gradients)
    assert float(clipped.norm) == pytest.approx(float(expected_norm), rel=1e-6)
    assert bool(clipped.clipped) is (float(expected_norm) > threshold)
    for gradient, parameter in zip(gradients, parameters, strict=True):
        # PyTorch divides by the norm plus 1e-6; relative to the norm that is what may differ.
        slack = 1e-6 + 1e-6 / float(expected_norm)
        torch.testing.assert_close(gradient, parameter.grad, atol=0, rtol=slack)


def test_the_norm_is_that_of_all_entries_as_one_vector() -> None:
    gradients = gradients_of()
    squares = sum(float(x) ** 2 for gradient in gradients for x in gradient.flatten())
    clipped = Clipper("off")(gradients)
    assert float(clipped.norm) == pytest.approx(math.sqrt(squares), rel=1e-6)
    each = [math.sqrt(sum(float(x) ** 2 for x in gradient.flatten())) for gradient in gradients]
    assert clipped.parameter_norms.tolist() == pytest.approx(each, rel=1e-6)


@pytest.mark.parametrize("threshold", [0.1, 0.7, 100.0])
def test_by_value_it_does_what_pytorch_does(threshold: float) -> None:
    gradients = gradients_of()
    parameters = as_parameters(gradients)
    torch.nn.utils.clip_grad_value_(parameters, threshold)
    norm_before = float(Clipper("off")(gradients).norm)
    clipped = Clipper("value", threshold)(gradients)
    assert float(clipped.norm) == norm_before
    assert bool(clipped.clipped) is (threshold < 100)
    for gradient, parameter in zip(gradients, parameters, strict=True):
        assert parameter.grad is not None
        assert torch.equal(gradient, parameter.grad)


@pytest.mark.parametrize(("kind", "threshold"), [("off", 0.01), ("norm", 1e4), ("value", 1e4)])
def test_gradients_below_the_threshold_keep_every_bit(kind: str, threshold: float) -> None:
    gradients = gradients_of()
    clipped = Clipper(kind, threshold)(gradients)
    assert not bool(clipped.clipped)
    assert all(map(torch.equal, gradients, gradients_of()))


def test_a_norm_at_the_threshold_is_not_clipped() -> None:
    gradient = torch.tensor([3.0, 4.0])
    assert not bool(Clipper("norm", 5.0)([gradient]).clipped)
    assert gradient.tolist() == [3.0, 4.0]


def test_a_norm_a_little_above_the_threshold_is_clipped_to_it() -> None:
    gradient = torch.tensor([3.0, 4.0])
    assert bool(Clipper("norm", 4.0)([gradient]).clipped)
    assert gradient.tolist() == pytest.approx([2.4, 3.2])


def test_gradients_of_nothing_but_zeros_stay_zeros() -> None:
    gradient = torch.zeros(4)
    clipped = Clipper("norm", 1.0)([gradient])
    assert float(clipped.norm) == 0.0 and not bool(clipped.clipped)
    assert gradient.tolist() == [0.0] * 4


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("kind", ["norm", "off"])
def test_a_gradient_that_is_not_finite_is_seen_and_not_spread(bad: float, kind: str) -> None:
    gradients = [torch.tensor([2.0, 3.0]), torch.tensor([[bad, 5.0]])]
    clipped = Clipper(kind, 1.0)(gradients)
    assert not math.isfinite(float(clipped.norm))
    assert gradients[0].tolist() == [2.0, 3.0]
    assert torch.equal(gradients[1], torch.tensor([[bad, 5.0]])) or math.isnan(bad)
    assert float(gradients[1][0, 1]) == 5.0
    finite = torch.isfinite(clipped.parameter_norms).tolist()
    assert finite == [True, False]


@pytest.mark.parametrize("bad", [NAN, INF])
def test_by_value_a_gradient_that_is_not_finite_shows_in_the_norm(bad: float) -> None:
    gradients = [torch.tensor([0.5]), torch.tensor([bad])]
    assert not math.isfinite(float(Clipper("value", 1.0)(gradients).norm))
    assert gradients[0].tolist() == [0.5]


def test_the_norm_and_what_is_clipped_do_not_depend_on_accumulation() -> None:
    shape = Shape(64, 8, layers=1, heads=2, width=16)
    inputs, targets = random_ids(8, 8, seed=1), random_ids(8, 8, seed=2)
    seen = []
    for pieces in (1, 2, 8):
        model = lively_model(shape)
        for x, y in zip(inputs.chunk(pieces), targets.chunk(pieces), strict=True):
            (model(x, y)[0] / 64).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        clipped = Clipper("norm", 0.25)(gradients)
        assert bool(clipped.clipped)
        seen.append((float(clipped.norm), torch.cat([g.flatten() for g in gradients])))
    for norm, vector in seen[1:]:
        assert norm == pytest.approx(seen[0][0], rel=1e-6)
        assert float((vector - seen[0][1]).norm()) < 1e-6
    assert float(seen[0][1].norm()) == pytest.approx(0.25, rel=1e-5)


@pytest.mark.parametrize(("kind", "threshold"), [("l2", 1.0), ("norm", 0.0), ("norm", NAN)])
def test_a_clipper_that_cannot_be_is_refused(kind: str, threshold: float) -> None:
    with pytest.raises(ValueError, match="clip"):
        Clipper(kind, threshold)


def clipped_by_pytorch(gradients: list[Tensor]) -> list[Tensor]:
    parameters = as_parameters(gradients)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


@pytest.mark.parametrize(
    "gradients",
    [
        [torch.full((4,), 1e20)],
        [torch.tensor([3e38]), torch.tensor([3e38])],  # each has a norm, both together have none
        [torch.full((4,), 1e20), torch.tensor([0.5])],
        [torch.full((4,), 1e20, dtype=torch.bfloat16)],
        [torch.full((4,), 1e200, dtype=torch.float64)],
    ],
)
def test_where_the_norm_overflows_it_clips_as_pytorch_does(gradients: list[Tensor]) -> None:
    ours = [gradient.clone() for gradient in gradients]
    clipped = Clipper("norm", 1.0)(ours)
    assert all(map(torch.equal, ours, clipped_by_pytorch(gradients)))
    assert bool(clipped.clipped) and float(clipped.norm) == INF


def test_a_norm_that_only_float16_cannot_hold_is_clipped_to_the_threshold() -> None:
    gradient = torch.full((64, 1024), 300.0, dtype=torch.float16)
    clipped = Clipper("norm", 1.0)([gradient])
    assert float(clipped.norm) == pytest.approx(300 * 256, rel=1e-4)
    assert float(gradient.float().norm()) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("kind", ["norm", "value", "off"])
def test_without_any_gradient_the_norm_is_zero(kind: str) -> None:
    clipper = Clipper(kind, 1.0)
    for clipped in (clipper([]), clipper.measure([]), clipper.measure([], torch.tensor(4.0))):
        assert (float(clipped.norm), bool(clipped.clipped)) == (0.0, False)
        assert clipped.parameter_norms.shape == (0,)
    assert float(clipper([]).divisor) == 1.0


@pytest.mark.parametrize("others", [[], [torch.tensor([3.0, -4.0])], [torch.tensor(5.0)]])
def test_a_gradient_without_entries_counts_for_nothing(others: list[Tensor]) -> None:
    gradients = [torch.zeros(0), *(other.clone() for other in others)]
    clipped = Clipper("norm", 1.0)(gradients)
    assert float(clipped.norm) == (5.0 if others else 0.0)
    assert all(torch.allclose(a, b / 5) for a, b in zip(gradients[1:], others, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["norm", "value", "off"])
def test_scalars_are_float32_whatever_the_gradients_are(kind: str, dtype: torch.dtype) -> None:
    gradients = [gradient.to(dtype) for gradient in gradients_of(3.0)]
    exact = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
    clipper = Clipper(kind, 1.0)
    for clipped in (clipper.measure([g.clone() for g in gradients]), clipper(gradients)):
        scalars = (clipped.norm, clipped.divisor, clipped.parameter_norms)
        assert {scalar.dtype for scalar in scalars} == {torch.float32}
        assert float(clipped.norm) == pytest.approx(exact, rel=1e-6)
    assert {gradient.dtype for gradient in gradients} == {dtype}


def test_float64_gradients_are_clipped_in_float64() -> None:
    gradients = [gradient.double() for gradient in gradients_of(3.0)]
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    expected = [gradient / norm for gradient in gradients]
    Clipper("norm", 1.0)(gradients)
    for gradient, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, right, atol=0, rtol=1e-14)


def test_a_fused_optimizer_takes_the_divisor_of_float64_gradients() -> None:
    weights = []
    for dtype in (torch.float64, torch.float32):
        (parameter,) = as_parameters([torch.tensor([3.0, -4.0], dtype=dtype)])
        assert parameter.grad is not None
        optimizer = torch.optim.SGD([parameter], fused=True)
        clipped = Clipper("norm", 1.0).measure([parameter.grad])
        step_unless(torch.tensor(False), optimizer, 1.0, clipped.divisor)
        weights.append(parameter.tolist())
    assert weights == [pytest.approx([-0.6, 0.8], rel=1e-6)] * 2

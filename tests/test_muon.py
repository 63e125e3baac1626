"""Muon against PyTorch's own, a decomposition, and plain AdamW."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hairpin.config.settings import Optimizer
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.muon import MuonAdamW, orthogonalize
from hairpin.optim.optimizers import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    step_unless,
)

GO, HALT = torch.tensor(False), torch.tensor(True)
SHAPE = Shape.default("modern", vocabulary=64, context=16, layers=2, heads=2, width=16)
MUON = Optimizer(kind="muon", embedding_lr_scale=3.0, head_lr_scale=0.5, weight_decay=0.2)


def seeded(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def matrix_step(
    gradients: list[Tensor], products: torch.dtype = torch.float32, **options: float
) -> Tensor:
    """Where a matrix of zeros is after these gradients."""
    parameter = nn.Parameter(torch.zeros_like(gradients[0]))
    group = {"params": [parameter], "muon": True, **options}
    optimizer = MuonAdamW([group], lr=0.1, product_dtype=products)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def set_gradients(model: nn.Module, seed: int) -> None:
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = seeded(*parameter.shape, seed=1000 * seed + number)


def contents(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, bytes]:
    tensors = {**dict(model.named_parameters()), **optimizer_tensors(model, optimizer)}
    return {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("products", "largest_turn"), [(torch.float32, 1e-4), (torch.bfloat16, 0.12)]
)
@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 24), st.integers(1, 24), st.integers(1, 3), st.integers(0, 1000),
    st.sampled_from([1e-6, 1.0, 1e6]),
)  # fmt: skip
def test_singular_values_come_near_one_and_singular_vectors_stay(
    products: torch.dtype, largest_turn: float, rows: int, columns: int, count: int, seed: int,
    size: float,
) -> None:  # fmt: skip
    matrices = size * seeded(count, rows, columns, seed=seed)
    out = orthogonalize(matrices, products)
    assert out.shape == matrices.shape and out.dtype == torch.float32
    for before, after in zip(matrices.double().numpy(), out.double().numpy(), strict=True):
        u, s, vt = np.linalg.svd(before, full_matrices=False)
        inside = u.T @ after @ vt.T
        values = np.diag(inside)
        clear = s > 0.02 * np.linalg.norm(before)  # what starts far below has not yet risen
        assert ((values[clear] > 0.6) & (values[clear] < 1.3)).all()
        assert np.abs(inside - np.diag(values))[np.ix_(clear, clear)].max(initial=0) < largest_turn


def test_it_is_the_plain_iteration_in_float64() -> None:
    for shape in ((8, 8), (24, 6), (6, 24)):
        expected = plain_iteration(seeded(*shape)).float()
        torch.testing.assert_close(orthogonalize(seeded(1, *shape))[0], expected, atol=1e-4, rtol=0)


def plain_iteration(matrix: Tensor) -> Tensor:
    """Five plain steps in float64 from the matrix itself."""
    x: Tensor = matrix.double()
    x = x / max(float(x.norm()), 1e-7)
    for _ in range(5):
        if x.size(0) > x.size(1):
            gram = x.T @ x
            x = 3.4445 * x + x @ (-4.7750 * gram + 2.0315 * gram @ gram)
        else:
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def pytorchs_step(matrix: Tensor) -> Tensor:
    parameter = nn.Parameter(torch.zeros_like(matrix))
    parameter.grad = matrix
    optimizer = torch.optim.Muon([parameter], lr=1.0, momentum=0.0, weight_decay=0.0)
    optimizer.step()  # type: ignore[no-untyped-call]
    return parameter.detach() / -math.sqrt(max(1.0, matrix.size(0) / matrix.size(1)))


def with_spectrum(kind: str, rows: int, columns: int, seed: int) -> Tensor:
    """Singular values as random matrices have them, as many equal ones, as few large ones."""
    noise = seeded(rows, columns, seed=seed)
    if kind in ("random", "tiny"):
        return noise * (1e-20 if kind == "tiny" else 1.0)
    left, _, right = torch.linalg.svd(noise, full_matrices=False)
    ranks = torch.arange(1, min(rows, columns) + 1)
    values = {"equal": torch.ones_like(ranks), "power": 1 / ranks, "steep": 0.9**ranks}[kind]
    matrix: Tensor = left @ torch.diag(values.float()) @ right
    return matrix


@pytest.mark.parametrize("kind", ["random", "tiny", "equal", "power", "steep"])
@pytest.mark.parametrize(
    "shape", [(64, 64), (64, 256), (256, 64), (128, 128), (96, 128), (256, 512), (512, 256)]
)
def test_in_bfloat16_it_is_as_near_to_float64_as_pytorchs(
    shape: tuple[int, int], kind: str
) -> None:
    ours = theirs = 0.0
    for seed in range(2):
        matrix = with_spectrum(kind, *shape, seed=seed)
        exact = plain_iteration(matrix)
        ours += float((orthogonalize(matrix[None], torch.bfloat16)[0] - exact).norm())
        theirs += float((pytorchs_step(matrix) - exact).norm())
    assert ours <= 1.05 * theirs


def test_a_matrix_of_zeros_stays_and_nothing_is_nan() -> None:
    assert not orthogonalize(torch.zeros(2, 3, 5)).any()


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 48)])
def test_steps_are_those_of_pytorchs_muon(shape: tuple[int, int], products: torch.dtype) -> None:
    """Its products are bfloat16, hence the tolerance: a step is 0.1 times values around 0.25."""
    gradients = [seeded(*shape, seed=seed) for seed in range(4)]
    theirs = nn.Parameter(torch.zeros(shape))
    optimizer = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, momentum=0.95)
    for gradient in gradients:
        theirs.grad = gradient.clone()
        optimizer.step()  # type: ignore[no-untyped-call]
    ours = matrix_step(gradients, products, weight_decay=0.1)
    torch.testing.assert_close(ours, theirs.detach(), atol=0.01, rtol=0)
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), 0) > 0.999


def test_pieces_are_moved_as_if_they_were_matrices_of_their_own() -> None:
    gradients = [seeded(12, 4, seed=seed) for seed in range(3)]
    whole = matrix_step(gradients, pieces=3)
    for piece in range(3):
        rows = slice(4 * piece, 4 * piece + 4)
        alone = matrix_step([gradient[rows] for gradient in gradients])
        torch.testing.assert_close(whole[rows], alone)


def test_what_cannot_be_moved_by_muon_is_refused() -> None:
    with pytest.raises(ValueError, match="matrices"):
        MuonAdamW([{"params": [nn.Parameter(torch.zeros(3))], "muon": True}])
    with pytest.raises(ValueError, match="divide by 3"):
        MuonAdamW([{"params": [nn.Parameter(torch.zeros(4, 2))], "muon": True, "pieces": 3}])


def test_matrices_of_blocks_go_to_muon_and_the_rest_learns_at_its_own_rate() -> None:
    model = GPT(SHAPE)
    optimizer = build_optimizer(model, MUON)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: (group["muon"], group["pieces"], group["lr_scale"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert set(found) == set(names.values())
    for name, facts in found.items():
        if name == "token_embedding.weight":
            assert facts == (False, 1, 3.0)
        elif name == "head.weight":
            assert facts == (False, 1, 0.5)
        else:
            assert facts == (True, 3 if "query_key_value" in name else 1, 1.0), name


def test_the_rest_is_plain_adamw_to_the_bit() -> None:
    model = GPT(SHAPE)
    optimizer = build_optimizer(model, MUON)
    plain = nn.Parameter(model.token_embedding.weight.detach().clone())
    reference = torch.optim.AdamW(
        [plain], lr=0.03, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=True
    )
    for seed in range(3):
        set_gradients(model, seed)
        assert model.token_embedding.weight.grad is not None
        plain.grad = model.token_embedding.weight.grad.clone()
        step_unless(GO, optimizer, 0.01)
        reference.step()
    assert torch.equal(model.token_embedding.weight, plain)


def test_gradients_are_divided_on_the_way() -> None:
    results = []
    for divisor in (None, torch.tensor(4.0)):
        model = GPT(SHAPE)
        optimizer = build_optimizer(model, MUON)
        for seed in range(2):
            set_gradients(model, seed)
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad *= 1.0 if divisor is None else 4.0
            step_unless(GO, optimizer, 0.01, divisor)
        results.append(contents(model, optimizer))
    assert results[0] == results[1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1.0])
def test_a_halted_step_changes_no_byte(bad: float) -> None:
    model = GPT(SHAPE)
    optimizer = build_optimizer(model, MUON)
    set_gradients(model, 1)
    step_unless(GO, optimizer, 0.01)
    before = contents(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, bad)
    step_unless(HALT, optimizer, 0.01, torch.tensor(bad))
    assert contents(model, optimizer) == before


def test_moments_go_over_to_another_optimizer_by_name() -> None:
    model, copy = GPT(SHAPE), GPT(SHAPE)
    optimizer, other = build_optimizer(model, MUON), build_optimizer(copy, MUON)
    set_gradients(model, 1)
    step_unless(GO, optimizer, 0.01)
    copy.load_state_dict(model.state_dict())
    load_optimizer_tensors(copy, other, optimizer_tensors(model, optimizer))
    for each, its_optimizer in ((model, optimizer), (copy, other)):
        set_gradients(each, 2)
        step_unless(GO, its_optimizer, 0.01)
    assert contents(model, optimizer) == contents(copy, other)


@pytest.mark.parametrize("size", [(64, 64), (64, 256), (256, 64), (80, 112)])
@pytest.mark.parametrize("rank", [1, 4, None])
@pytest.mark.parametrize("precision", ["highest", "high", "bfloat16"])
def test_a_gradient_of_low_rank_gives_no_large_step(
    precision: str, rank: int | None, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a few singular values, or of many down to a millionth of the largest, as gradients have
    them in training.
    """
    generator = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(size, generator=generator), full_matrices=False)
    values = torch.logspace(0, -6, min(size))
    if rank:
        values = (torch.arange(min(size)) < rank) + 1e-7
    matrix = left @ torch.diag(values) @ right
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    if precision == "high":  # what it sets makes no difference on a CPU
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    (out,) = orthogonalize(matrix[None], dtype)
    assert torch.linalg.svdvals(out).max() < 1.3
    assert 0.6 < left[:, 0] @ out @ right[0] < 1.3


@pytest.mark.parametrize(
    ("precision", "products"),
    [("bfloat16", torch.bfloat16)]
    + [(each, torch.float32) for each in ("float32", "tf32", "float16")],
)
def test_muon_multiplies_as_the_run_does(precision: str, products: torch.dtype) -> None:
    model, copy = GPT(SHAPE), GPT(SHAPE)
    build = [(model, build_optimizer(model, MUON, precision=precision))]
    build.append((copy, build_optimizer(copy, MUON)))
    for each, optimizer in build:
        set_gradients(each, 1)
        step_unless(GO, optimizer, 0.01)
    same = contents(*build[0]) == contents(*build[1])
    assert same == (products == torch.float32)

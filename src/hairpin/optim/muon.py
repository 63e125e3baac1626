"""Muon for matrices, AdamW for the rest, in one optimizer (Jordan et al. 2024).

Muon takes the momentum of a matrix's gradient, brings all its singular values near 1, and steps in
that direction. Newton–Schulz iterations do it without a decomposition; here they run on the Gram
matrix of the shorter side, so that a long matrix is not multiplied twice at every iteration.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from hairpin.config.settings import Optimizer as OptimizerSettings
from hairpin.optim.adamw import Named, Uncompiled, lr_scale

# The quintic a·x + b·x³ + c·x⁵ of Jordan et al., steep at 0: five of them bring a singular value
# from anywhere above 0.01 to between 0.7 and 1.2.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_MIN_NORM = 1e-7


def orthogonalize(matrices: Tensor, product_dtype: torch.dtype = torch.float32) -> Tensor:
    """Return an approximation of U·Vᵀ of each matrix U·S·Vᵀ by five iterations.

    Args:
        matrices: float32 [n, rows, columns].
        product_dtype: the format they are multiplied in.

    Returns:
        float32, of the same shape; singular values lie between about 0.7 and 1.2.
    """
    is_tall = matrices.size(-2) > matrices.size(-1)
    if product_dtype != torch.float32:
        x = _normalized(matrices, product_dtype)
        for count in _rounded_counts(x):
            x = _iterate_rounded(x, count, is_tall)
        return x.float()
    wide = _normalized(matrices.mT if is_tall else matrices, product_dtype)
    for count in _counts(wide):
        wide = _iterate(wide, count)
    return wide.mT if is_tall else wide


def _normalized(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Divide by the Frobenius norm, so that no singular value is above 1."""
    norms: Tensor = torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True)
    divided = matrices / norms.clamp(min=_MIN_NORM)
    return divided.to(dtype, memory_format=torch.contiguous_format)


def _counts(wide: Tensor) -> tuple[int, ...]:
    """Return the numbers of iterations, of five, that share one Gram matrix.

    Rounding leaves it eigenvalues slightly below 0, which iterations make more negative. In float32
    that is negligible; in TF32, for gradients of low rank, two tolerate it, while all five gave
    singular values of 35, and training collapsed. Where a matrix is not much longer than wide, two
    save nothing.
    """
    if torch.get_float32_matmul_precision() == "highest":
        return (5,)
    return (2, 2, 1) if 2 * wide.size(-1) > 3 * wide.size(-2) else (1, 1, 1, 1, 1)


def _iterate(wide: Tensor, count: int) -> Tensor:
    """Do `count` iterations on the Gram matrix, then one product with the matrix itself."""
    gram = wide @ wide.mT
    total: Tensor | None = None  # the product of all steps' polynomials, which commute
    for iteration in range(count):
        step = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        step.diagonal(dim1=-2, dim2=-1).add_(_A)
        total = step if total is None else step @ total
        if iteration < count - 1:
            gram = step @ gram @ step
    assert total is not None
    return total @ wide


def _rounded_counts(x: Tensor) -> tuple[int, ...]:
    """Return the numbers of iterations, of five, that share one Gram matrix in low precision.

    Only the first two do, whose error the others correct, and only where that saves time and
    leaves the result as close to float64's as PyTorch's Muon is: large matrices, at least 1.5
    times as long as wide.
    """
    short, long = sorted(x.shape[-2:])
    return (2, 1, 1, 1) if short >= 256 and 2 * long > 3 * short else (1, 1, 1, 1, 1)


def _iterate_rounded(x: Tensor, count: int, is_tall: bool) -> Tensor:
    """Do one or two iterations in low precision.

    A matrix A·1 + B·G + C·G² would have A on its diagonal, rounded the same everywhere: in
    bfloat16 that alone is an error of 1e-3 in all singular values. So only B·G + C·G² is kept,
    and A is the factor of what it is multiplied with, which products take as a float32.

    Args:
        x: matrices, contiguous.
        count: 1 or 2.
        is_tall: True if x has more rows than columns, so that the Gram matrix is xᵀ·x.
    """
    gram = x.mT @ x if is_tall else x @ x.mT
    change = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
    beta, alpha = _A, 1.0
    if count == 2:
        half = torch.baddbmm(gram, change, gram, beta=_A)
        gram = torch.baddbmm(half, half, change, beta=_A)
        second = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        # (A + second)·(A + first) is A² + A·(first + second + second·first / A).
        change = torch.baddbmm(change + second, second, change, alpha=1 / _A)
        beta, alpha = _A * _A, _A
    factors = (x, change) if is_tall else (change, x)
    return torch.baddbmm(x, *factors, beta=beta, alpha=alpha)


class MatrixShards(Protocol):
    """Matrices sharded by rows over the processes."""

    def rows(self, parameter: Tensor) -> int:
        """Return the number of rows of the whole matrix whose shard is `parameter`."""
        ...

    def gather(self, parts: Sequence[Tensor], rows: int) -> list[Tensor]:
        """Gather the whole matrices, with these numbers of rows, from the processes' parts."""
        ...

    def own(self, whole: Tensor) -> Tensor:
        """Return this process's rows of a whole matrix."""
        ...


class MuonAdamW(Uncompiled):
    """Muon and AdamW in one optimizer; a group chooses by `muon`.

    Args:
        groups: parameter groups. One with `muon: True` has matrices, [rows, columns]; where its
            `pieces` is n, each is n stacked matrices, which are updated separately.
        lr, momentum, betas, eps, weight_decay: defaults of groups. Muon's step is scaled by
            √(rows / columns) where that is above 1, so that one learning rate suits all shapes.
        shards: used where parameters are sharded by rows; None: parameters are whole.
        product_dtype: the format that the iterations multiply in.

    Like PyTorch's fused optimizers it reads two attributes: gradients are divided by `grad_scale`,
    and where `found_inf` is 1 no bit changes.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        shards: MatrixShards | None = None,
        product_dtype: torch.dtype = torch.float32,
    ) -> None:
        self._shards = shards
        self._product_dtype = product_dtype
        defaults = {
            "lr": lr, "momentum": momentum, "betas": betas, "eps": eps,
            "weight_decay": weight_decay, "muon": False, "pieces": 1,
        }  # fmt: skip
        super().__init__(groups, defaults)
        for group in self.param_groups:
            for parameter in group["params"] if group["muon"] else ():
                if parameter.dim() != 2 or self._rows(parameter) % group["pieces"]:
                    raise ValueError(
                        f"Muon needs matrices whose rows divide by {group['pieces']}, not "
                        f"{list(parameter.shape)}"
                    )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters and group["muon"]:
                self._muon(group, parameters)
            elif parameters:
                self._adamw(group, parameters)

    def _muon(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        alike: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            alike[self._rows(parameter), parameter.size(1)].append(parameter)
        for (all_rows, columns), same in alike.items():
            rows = all_rows // group["pieces"]
            ways = [self._momentum(parameter, group["momentum"]) for parameter in same]
            if self._shards:
                ways = self._shards.gather(ways, all_rows)
            stacked = torch.cat([way.view(-1, rows, columns) for way in ways])
            steps = list(torch.split(orthogonalize(stacked, self._product_dtype), group["pieces"]))
            if self._shards:
                steps = [self._shards.own(step.reshape(all_rows, columns)) for step in steps]
            lr = group["lr"] * max(1.0, rows / columns) ** 0.5
            for parameter, step in zip(same, steps, strict=True):
                kept = 1 - group["lr"] * group["weight_decay"]
                decayed = parameter * kept if kept != 1 else parameter
                way = step.reshape(parameter.shape)
                self._put(parameter, torch.add(decayed, way, alpha=-lr))

    def _rows(self, parameter: Tensor) -> int:
        return self._shards.rows(parameter) if self._shards else parameter.size(0)

    def _momentum(self, parameter: Tensor, decay: float) -> Tensor:
        """Add the gradient to the momentum; return the step's direction (Nesterov's)."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient = parameter.grad
        if self.grad_scale is not None:
            gradient = gradient / self.grad_scale
        momentum = torch.lerp(state["momentum"], gradient, 1 - decay)
        self._put(state["momentum"], momentum)
        return gradient.lerp(momentum, decay)

    def _put(self, target: Tensor, value: Tensor) -> None:
        """Assign, unless this update is skipped; the device decides."""
        if self.found_inf is None:
            target.copy_(value)
        else:
            torch.where(self.found_inf > 0, target, value, out=target)

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        kinds = ("exp_avg", "exp_avg_sq", "step")
        means, squares, steps = (
            [self.state[parameter][kind] for parameter in parameters] for kind in kinds
        )
        beta1, beta2 = group["betas"]
        gradients = [p.grad for p in parameters if p.grad is not None]
        adamw(
            parameters, gradients, means, squares, [], steps,
            fused=True, grad_scale=self.grad_scale, found_inf=self.found_inf, amsgrad=False,
            beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"],
            eps=group["eps"], maximize=False,
        )  # fmt: skip


def build(
    model: Named, settings: OptimizerSettings, *, shards: MatrixShards | None, precision: str
) -> MuonAdamW:
    """Build Muon with AdamW, as `OptimizerKind.build` says; Muon's products are bfloat16 where the
    run's are.
    """
    return MuonAdamW(
        _groups(model, settings),
        lr=0.0,
        momentum=settings.momentum,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        shards=shards,
        product_dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32,
    )


def _groups(model: Named, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Return the blocks' matrices for Muon, query, key and value separate; the rest for AdamW."""
    matrices: dict[int, list[Tensor]] = {}
    others: dict[float, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("blocks.") and parameter.dim() == 2:
            pieces = 3 if name.endswith("query_key_value.weight") else 1
            matrices.setdefault(pieces, []).append(parameter)
        else:
            others.setdefault(lr_scale(name, settings), []).append(parameter)
    muon = [
        {
            "params": parameters,
            "muon": True,
            "pieces": pieces,
            "weight_decay": settings.weight_decay,
            "lr_scale": settings.matrix_lr_scale,
        }
        for pieces, parameters in sorted(matrices.items())
    ]
    rest = [
        {"params": parameters, "weight_decay": 0.0, "lr_scale": scale}
        for scale, parameters in sorted(others.items())
    ]
    return muon + rest

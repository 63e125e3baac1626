import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from hairpin.config.settings import Optimizer
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.optimizers import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    step_unless,
)
from hairpin.plugins.registry import OPTIMIZERS
from helpers import lively_model, random_ids

SHAPE = Shape(64, 8, layers=2, heads=2, width=16, tied=False)
LRS = (0.01, 0.003, 0.02)
GO, HALT = torch.tensor(False), torch.tensor(True)


def set_gradients(model: GPT, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def contents(model: GPT, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {**dict(model.named_parameters()), **optimizer_tensors(model, optimizer)}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        tensor.numpy().tobytes() == other[name].numpy().tobytes() for name, tensor in one.items()
    )


def test_with_zero_gradients_only_matrices_shrink_and_by_lr_times_decay() -> None:
    model = lively_model(SHAPE)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    step_unless(GO, build_optimizer(model, Optimizer(weight_decay=0.25)), lr=0.1)
    matrices = 0
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            assert torch.equal(parameter, before[name]), name
        else:
            matrices += 1
            torch.testing.assert_close(parameter.detach(), before[name] * 0.975, msg=name)
    assert matrices == 2 + 4 * 2 + 1


def test_every_parameter_is_in_one_group() -> None:
    model = GPT(SHAPE)
    optimizer = build_optimizer(model, Optimizer())
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(map(id, model.parameters()))


def test_frozen_parameters_are_left_out() -> None:
    model = lively_model(SHAPE)
    model.token_embedding.weight.requires_grad_(False)
    before = model.token_embedding.weight.clone()
    set_gradients(model, 1)
    step_unless(GO, build_optimizer(model, Optimizer()), lr=0.1)
    assert torch.equal(model.token_embedding.weight, before)


def test_updates_are_plain_adamw_to_the_bit() -> None:
    ours, theirs = lively_model(SHAPE), lively_model(SHAPE)
    optimizer = build_optimizer(ours, Optimizer(beta1=0.8, beta2=0.9, epsilon=1e-6))
    decaying = [p for n, p in theirs.named_parameters() if "norm" not in n and "bias" not in n]
    rest = [p for n, p in theirs.named_parameters() if "norm" in n or "bias" in n]
    groups = [{"params": decaying, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    plain = torch.optim.AdamW(groups, betas=(0.8, 0.9), eps=1e-6, fused=True)
    for number, lr in enumerate(LRS):
        set_gradients(ours, number)
        set_gradients(theirs, number)
        step_unless(GO, optimizer, lr)
        for group in plain.param_groups:
            group["lr"] = lr
        plain.step()
    for (name, parameter), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(parameter, other), name
        assert torch.equal(
            optimizer.state[parameter]["exp_avg_sq"], plain.state[other]["exp_avg_sq"]
        )


def test_updates_follow_the_papers_formula() -> None:
    """Loshchilov and Hutter 2019, algorithm 2, on one number of one matrix, in plain floats."""
    model = lively_model(SHAPE)
    optimizer = build_optimizer(model, Optimizer())
    matrix = model.blocks[0].get_submodule("mlp.expand").get_parameter("weight")
    value, mean, square = float(matrix.detach()[2, 3]), 0.0, 0.0
    for number, lr in enumerate(LRS):
        set_gradients(model, number)
        assert matrix.grad is not None
        gradient = float(matrix.grad[2, 3])
        step_unless(GO, optimizer, lr)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.95 * square + 0.05 * gradient**2
        unbiased = mean / (1 - 0.9 ** (number + 1))
        spread = math.sqrt(square / (1 - 0.95 ** (number + 1)))
        value = value * (1 - lr * 0.1) - lr * unbiased / (spread + 1e-8)
        assert float(matrix.detach()[2, 3]) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("steps_before", [0, 2])
def test_a_halted_step_changes_no_byte_even_with_nan_gradients(steps_before: int) -> None:
    model = lively_model(SHAPE)
    optimizer = build_optimizer(model, Optimizer())
    for number in range(steps_before):
        set_gradients(model, number)
        step_unless(GO, optimizer, 0.01)
    before = contents(model, optimizer)
    for bad in (math.nan, math.inf, 1.0):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, bad)
        step_unless(HALT, optimizer, 0.01)
    after = contents(model, optimizer)
    if steps_before == 0:  # moments are made by the first call: they must be as if never used
        moments = {name for name in after if name not in before}
        assert len(moments) == 3 * len(before)
        assert not any(after[name].any() for name in moments)
        after = {name: tensor for name, tensor in after.items() if name not in moments}
    assert same_bits(before, after)


def test_after_a_halted_step_training_goes_on_as_if_it_had_not_been() -> None:
    seen = []
    for halts in (False, True):
        model = lively_model(SHAPE)
        optimizer = build_optimizer(model, Optimizer())
        for number, lr in enumerate(LRS):
            if halts:
                for parameter in model.parameters():
                    parameter.grad = torch.full_like(parameter, math.nan)
                step_unless(HALT, optimizer, 1.0)
            set_gradients(model, number)
            step_unless(GO, optimizer, lr)
        seen.append(contents(model, optimizer))
    assert same_bits(*seen)


def test_moments_go_over_to_another_optimizer_by_name() -> None:
    model = lively_model(SHAPE)
    optimizer = build_optimizer(model, Optimizer())
    set_gradients(model, 1)
    step_unless(GO, optimizer, 0.01)
    saved = {n: t.clone() for n, t in optimizer_tensors(model, optimizer).items()}
    assert len(saved) == 3 * len(list(model.parameters()))
    assert torch.equal(
        saved["exp_avg.token_embedding.weight"],
        optimizer.state[model.token_embedding.weight]["exp_avg"],
    )

    copy = GPT(SHAPE)
    copy.load_state_dict(model.state_dict())
    other = build_optimizer(copy, Optimizer())
    load_optimizer_tensors(copy, other, saved)
    for each, its_optimizer in ((model, optimizer), (copy, other)):
        set_gradients(each, 2)
        step_unless(GO, its_optimizer, 0.01)
    assert same_bits(contents(model, optimizer), contents(copy, other))
    # What was given is copied: going on must not change it.
    assert float(saved["step.token_embedding.weight"]) == 1.0


def test_it_learns() -> None:
    model = GPT(SHAPE, seed=1)
    optimizer = build_optimizer(model, Optimizer())
    ids = random_ids(4, 9)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss_sum, count = model(ids[:, :-1], ids[:, 1:])
        (loss_sum / count).backward()
        losses.append(float(loss_sum.detach() / count))
        step_unless(GO, optimizer, 0.01)
    assert losses[0] > 4 and losses[-1] < 0.2


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_pytorchs_compiler_is_not_imported(kind: str) -> None:
    program = f"""if True:
        import sys
        import torch
        from hairpin.config.settings import Optimizer
        from hairpin.model.gpt import GPT
        from hairpin.model.shape import Shape
        from hairpin.optim.optimizers import build_optimizer, step_unless

        model = GPT(Shape.default("modern", 64, 8, layers=1, heads=2, width=16))
        optimizer = build_optimizer(model, Optimizer(kind={kind!r}))
        inputs = torch.zeros(1, 4, dtype=torch.long)
        model(inputs, inputs)[0].backward()
        before = model.head_weight.detach().clone()
        step_unless(torch.tensor(False), optimizer, 0.01)
        assert not torch.equal(model.head_weight, before)
        optimizer.zero_grad()
        assert "torch._dynamo" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def test_adamw_is_pytorchs_own_to_the_bit() -> None:
    seen = []
    for make in (build_optimizer, pytorchs_own):
        model = lively_model(SHAPE)
        optimizer = make(model, Optimizer())
        for seed in range(3):
            set_gradients(model, seed)
            step_unless(GO, optimizer, 0.01, torch.tensor(2.0))
        seen.append(contents(model, optimizer))
    assert same_bits(*seen)


def pytorchs_own(model: GPT, settings: Optimizer) -> torch.optim.Optimizer:
    groups = build_optimizer(model, settings).param_groups
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=settings.epsilon, fused=True)


OTHERS = {"momentum": 0.5, "beta1": 0.5, "beta2": 0.5, "epsilon": 0.5, "weight_decay": 0.5}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_keys_of_a_kind_are_those_that_change_its_steps(kind: str) -> None:
    def moved(settings: Optimizer) -> dict[str, Tensor]:
        model = lively_model(SHAPE)
        optimizer = build_optimizer(model, settings)
        for seed in range(2):
            set_gradients(model, seed)
            step_unless(GO, optimizer, 0.01)
        return {name: tensor.detach() for name, tensor in model.named_parameters()}

    plain = moved(Optimizer(kind=kind))
    read = {
        key
        for key in set(Optimizer.model_fields) - {"kind"}
        if not same_bits(plain, moved(Optimizer(kind=kind, **{key: OTHERS.get(key, 3.0)})))
    }
    assert read == set(OPTIMIZERS[kind].settings)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_kind_resumes_in_the_same_bits_and_skips_without_a_trace(kind: str) -> None:
    whole, begun = lively_model(SHAPE), lively_model(SHAPE)
    settings = Optimizer(kind=kind)

    def trained(model: GPT, optimizer: torch.optim.Optimizer, seeds: range) -> None:
        for seed in seeds:
            set_gradients(model, seed)
            step_unless(GO, optimizer, 0.01)

    trained(whole, build_optimizer(whole, settings), range(4))
    first = build_optimizer(begun, settings)
    trained(begun, first, range(2))
    before = contents(begun, first)
    for parameter in begun.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    step_unless(HALT, first, 0.01)
    assert same_bits(before, contents(begun, first))
    second = build_optimizer(begun, settings)
    load_optimizer_tensors(begun, second, optimizer_tensors(begun, first))
    trained(begun, second, range(2, 4))
    for one, other in zip(whole.parameters(), begun.parameters(), strict=True):
        assert torch.equal(one, other)

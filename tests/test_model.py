import itertools
import math
from collections.abc import Mapping
from typing import Literal

import pytest
import torch
from torch import Tensor

from hairpin.data.batches import IGNORED
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.weights.transformers_weights import (
    from_transformers,
    misfit,
    plain_names,
    to_plain,
    to_transformers,
)
from helpers import lively_model, random_ids

KINDS = list(itertools.product((True, False), repeat=2))  # tied, bias


def shape_of(*, tied: bool = True, bias: bool = True, layers: int = 2, context: int = 12) -> Shape:
    return Shape(64, context, layers, heads=4, width=32, tied=tied, bias=bias)


# --- GPT-2 in full, from the paper and the published checkpoints' layout: no module, no fused
# --- kernel, one sequence and one head at a time, in float64.


def plain_norm(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    scaled = centred / (variance + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def plain_linear(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]  # stored as [in, out]


def plain_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def plain_attention(x: Tensor, weights: Mapping[str, Tensor], name: str, heads: int) -> Tensor:
    length, width = x.shape
    depth = width // heads
    q, k, v = torch.split(plain_linear(x, weights, f"{name}.c_attn"), width, dim=1)
    outputs = []
    for head in range(heads):
        part = slice(head * depth, (head + 1) * depth)
        rows = []
        for here in range(length):
            scores = k[: here + 1, part] @ q[here, part] / math.sqrt(depth)
            powers = (scores - scores.max()).exp()
            rows.append((powers / powers.sum()) @ v[: here + 1, part])
        outputs.append(torch.stack(rows))
    return plain_linear(torch.cat(outputs, dim=1), weights, f"{name}.c_proj")


def plain_logits(ids: Tensor, weights: Mapping[str, Tensor], layers: int, heads: int) -> Tensor:
    """Scores for one sequence of ids, [T, vocabulary]."""
    x = weights["wte.weight"][ids] + weights["wpe.weight"][: len(ids)]
    for h in range(layers):
        x = x + plain_attention(
            plain_norm(x, weights, f"h.{h}.ln_1"), weights, f"h.{h}.attn", heads
        )
        inner = plain_linear(plain_norm(x, weights, f"h.{h}.ln_2"), weights, f"h.{h}.mlp.c_fc")
        x = x + plain_linear(plain_gelu(inner), weights, f"h.{h}.mlp.c_proj")
    return plain_norm(x, weights, "ln_f") @ weights["lm_head.weight"].T


def plain_loss(logits: Tensor, targets: Tensor) -> Tensor:
    total = torch.zeros((), dtype=logits.dtype)
    for row, target in zip(logits, targets.tolist(), strict=True):
        if target != -100:
            total = total + torch.logsumexp(row, 0) - row[target]
    return total


@pytest.mark.parametrize(("tied", "bias"), KINDS)
def test_logits_loss_and_gradients_agree_with_plain_gpt2(tied: bool, bias: bool) -> None:
    shape = shape_of(tied=tied, bias=bias)
    model = lively_model(shape)
    inputs, targets = random_ids(3, 12, seed=1), random_ids(3, 12, seed=2)
    targets[0, 5:] = IGNORED
    targets[2, 0] = IGNORED
    weights = {
        name: tensor.detach().double().requires_grad_()
        for name, tensor in to_plain(model.state_dict(), shape).items()
    }
    if tied:
        weights["lm_head.weight"] = weights["wte.weight"]

    expected = [plain_logits(ids, weights, shape.layers, shape.heads) for ids in inputs]
    torch.testing.assert_close(
        model.logits(inputs).double(), torch.stack(expected), atol=1e-5, rtol=1e-5
    )

    loss_sum, count = model(inputs, targets)
    losses = [plain_loss(row, target) for row, target in zip(expected, targets, strict=True)]
    expected_loss = torch.stack(losses).sum()
    assert int(count) == 3 * 12 - 8
    assert loss_sum.dtype == torch.float32
    assert loss_sum.item() == pytest.approx(expected_loss.item(), rel=1e-6)

    (loss_sum / count).backward()
    torch.autograd.backward(expected_loss / 28)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert set(gradients) == {name for name, _ in model.named_parameters()}
    for name, gradient in to_plain(gradients, shape).items():
        if name.endswith("bias") and not bias:
            continue
        wanted = weights[name].grad
        assert wanted is not None
        torch.testing.assert_close(gradient.double(), wanted, atol=1e-4, rtol=1e-4, msg=name)
        assert wanted.abs().max() > 1e-3, f"{name}: too small to tell anything"


@pytest.mark.parametrize(("tied", "bias"), KINDS)
def test_gpt2_weights_come_back_unchanged(tied: bool, bias: bool) -> None:
    shape = shape_of(tied=tied, bias=bias)
    state = lively_model(shape).state_dict()
    theirs = to_plain(state, shape)
    assert theirs["h.1.attn.c_attn.weight"].shape == (32, 96)
    assert theirs["h.0.mlp.c_fc.weight"].shape == (32, 128)
    assert theirs["h.0.mlp.c_proj.weight"].shape == (128, 32)
    assert len(theirs) == 4 + 12 * shape.layers + (not tied)

    back = from_transformers(plain_names(to_transformers(state, shape), shape), shape)
    missing_biases = {name for name in back if name not in state}
    assert all(not back[name].any() for name in missing_biases)
    assert bool(missing_biases) is not bias
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name
    assert ("head.weight" in back) is not tied


def test_weights_without_biases_make_the_same_model_with_them() -> None:
    bare = lively_model(shape_of(bias=False))
    full = GPT(shape_of(bias=True))
    theirs = to_plain(bare.state_dict(), bare.shape)
    full.load_state_dict(from_transformers(theirs, full.shape), strict=True)
    ids = random_ids(2, 12)
    torch.testing.assert_close(full.logits(ids), bare.logits(ids), atol=1e-6, rtol=1e-6)


def test_a_checkpoint_of_another_depth_is_refused_by_the_tensor_that_is_missing() -> None:
    theirs = to_plain(lively_model(shape_of()).state_dict(), shape_of())
    deeper = shape_of(layers=3)
    sizes = {name: p.shape for name, p in GPT(deeper).named_parameters()}
    assert misfit(theirs, sizes, deeper) == "h.2.ln_1.weight is missing"


def test_a_later_token_changes_no_earlier_logit() -> None:
    model = lively_model(shape_of())
    ids = random_ids(1, 12)
    before = model.logits(ids)
    for place in range(12):
        changed = ids.clone()
        changed[0, place] = (changed[0, place] + 1) % 64
        after = model.logits(changed)
        assert torch.equal(after[0, :place], before[0, :place])
        assert not torch.allclose(after[0, place:], before[0, place:])


def test_it_sees_as_many_positions_as_its_context_and_no_more() -> None:
    model = lively_model(shape_of(context=12))
    assert model.logits(random_ids(1, 12)).shape == (1, 12, 64)
    assert model.logits(random_ids(1, 1)).shape == (1, 1, 64)
    with pytest.raises(RuntimeError):
        model.logits(random_ids(1, 13))


def test_a_batch_without_a_target_has_no_loss_and_no_gradient() -> None:
    model = lively_model(shape_of())
    loss_sum, count = model(random_ids(2, 12), torch.full((2, 12), IGNORED))
    loss_sum.backward()
    assert loss_sum.item() == 0.0 and int(count) == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


# --- initialisation ---


@pytest.mark.parametrize(("tied", "bias"), KINDS)
def test_initial_weights_have_the_spread_of_gpt2(tied: bool, bias: bool) -> None:
    shape = Shape(1024, 128, layers=8, heads=4, width=128, tied=tied, bias=bias)
    for name, parameter in GPT(shape, seed=4).named_parameters():
        if "norm" in name:
            assert torch.all(parameter == (1.0 if name.endswith("weight") else 0.0)), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            # Radford et al. 2019: residual layers are scaled by 1 / sqrt(their number), here 16.
            std = 0.005 if name.endswith("output.weight") else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.03), name
            assert abs(parameter.mean().item()) < 4 * std / math.sqrt(parameter.numel()), name


def test_a_parameter_starts_the_same_whatever_else_the_model_has() -> None:
    small = dict(GPT(shape_of(layers=1), seed=9).named_parameters())
    large = dict(GPT(shape_of(layers=3, tied=False), seed=9).named_parameters())
    for name, parameter in small.items():
        scale = math.sqrt(3) if name.endswith("output.weight") else 1.0
        exact = 0.0 if scale == 1.0 else 1e-8
        torch.testing.assert_close(
            large[name] * scale, parameter, atol=exact, rtol=exact and 1e-6, msg=name
        )


def test_each_matrix_and_each_seed_starts_elsewhere() -> None:
    starts = [
        tuple(parameter.flatten()[:4].tolist())
        for seed in (0, 1)
        for parameter in GPT(shape_of(tied=False), seed=seed).parameters()
        if parameter.dim() == 2
    ]
    assert len(set(starts)) == len(starts) == 2 * (3 + 2 * 4)


def test_the_first_loss_is_that_of_a_uniform_guess() -> None:
    inputs, targets = random_ids(16, 12, seed=5), random_ids(16, 12, seed=6)
    loss_sum, count = GPT(shape_of())(inputs, targets)
    assert (loss_sum / count).item() == pytest.approx(math.log(64), abs=0.05)


def test_dropout_acts_in_training_only() -> None:
    model = lively_model(Shape(64, 12, 2, 4, 32, dropout=0.5))
    ids = random_ids(1, 12)
    assert not torch.equal(model.logits(ids), model.logits(ids))
    model.eval()
    assert torch.equal(model.logits(ids), model.logits(ids))
    undropped = lively_model(Shape(64, 12, 2, 4, 32, dropout=0.0))
    assert torch.equal(model.logits(ids), undropped.logits(ids))


@pytest.mark.parametrize("architecture", ["gpt2", "modern", "qwen3"])
def test_activations_computed_again_give_the_same_gradients_from_less_memory(
    architecture: Literal["gpt2", "modern", "qwen3"],
) -> None:
    is_gpt2 = architecture == "gpt2"
    shape = Shape(
        vocabulary=61, context=32, layers=4, heads=2, width=32, architecture=architecture,
        dropout=0.2 if is_gpt2 else 0.0, bias=is_gpt2, qkv_bias=is_gpt2, tied=is_gpt2,
    )  # fmt: skip
    ids = torch.randint(0, 61, (4, 33), generator=torch.Generator().manual_seed(0))

    def trained(*, recomputes: bool) -> tuple[dict[str, Tensor], float, int]:
        model, kept = GPT(shape, seed=1), list[int]()
        model.recomputes = recomputes
        torch.manual_seed(7)  # of dropout

        def keep(tensor: Tensor) -> Tensor:
            kept.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _ = model(ids[:, :-1], ids[:, 1:])
        during = sum(kept)
        loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        return gradients, loss.item(), during

    plain, loss, much = trained(recomputes=False)
    again, loss_again, little = trained(recomputes=True)
    assert loss == loss_again and plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert little < much / 2

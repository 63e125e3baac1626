"""The modern network against its definition written out with plain operations, in float64."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hairpin.config.load import build_config
from hairpin.errors import ConfigError
from hairpin.model.architectures import RotaryTraits
from hairpin.model.generate import Sampling, generate
from hairpin.model.gpt import GPT
from hairpin.model.kernels.norms import rms_norm
from hairpin.model.kernels.rotary import Rotary, rotate
from hairpin.model.shape import Shape
from hairpin.planning.sizes import count_parameters
from helpers import assert_as_defined

SHAPE = Shape.default("modern", vocabulary=80, context=24, layers=3, heads=2, width=32)


def lively(shape: Shape = SHAPE, seed: int = 0) -> GPT:
    """A model none of whose weights is zero."""
    model = GPT(shape, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def ids(*size: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 80, size, generator=torch.Generator().manual_seed(seed))


def plain_norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def plain_turn(x: Tensor) -> Tensor:
    """Each pair (i, i + D/2) of a head at position t, turned by -t / 10000^(2i/D)."""
    out = torch.empty_like(x)
    half = x.size(-1) // 2
    for t in range(x.size(-2)):
        for i in range(half):
            angle = -t / 10_000 ** (2 * i / x.size(-1))
            one, other = x[..., t, i], x[..., t, i + half]
            out[..., t, i] = one * math.cos(angle) - other * math.sin(angle)
            out[..., t, i + half] = one * math.sin(angle) + other * math.cos(angle)
    return out


def plain_logits(weights: dict[str, Tensor], inputs: Tensor, shape: Shape) -> Tensor:
    """The network from its definition: no function of the library but matmul, softmax and tanh."""
    x = plain_norm(weights["token_embedding.weight"][inputs])
    batch, length, width = x.shape
    size = width // shape.heads
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    for layer in range(shape.layers):
        w = {k.removeprefix(f"blocks.{layer}."): v for k, v in weights.items()}
        q, k, v = (
            (plain_norm(x) @ part.T).view(batch, length, shape.heads, size).transpose(1, 2)
            for part in w["attention.query_key_value.weight"].chunk(3)
        )
        q, k = plain_norm(plain_turn(q)), plain_norm(plain_turn(k))
        scores = (q @ k.mT / math.sqrt(size)).masked_fill(future, -math.inf)
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + y @ w["attention.output.weight"].T
        inner = (plain_norm(x) @ w["mlp.expand.weight"].T).clamp(min=0) ** 2
        x = x + inner @ w["mlp.output.weight"].T
    return 15 * torch.tanh(plain_norm(x) @ weights["head.weight"].T / 15)


def test_logits_and_gradients_are_those_of_the_definition() -> None:
    model, inputs, targets = lively(), ids(2, 24), ids(2, 24, seed=1)

    def defined(weights: dict[str, Tensor]) -> Tensor:
        return plain_logits(weights, inputs, SHAPE)

    assert_as_defined(model, defined, inputs, targets, atol=1e-5, rtol=0)


def test_norm_has_the_gradient_that_autograd_finds() -> None:
    x = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rms_norm, (x,))
    torch.testing.assert_close(rms_norm(x), F.rms_norm(x, (7,), eps=1e-6))
    assert not rms_norm(torch.zeros(2, 3)).any()


def test_rotation_keeps_lengths_and_depends_on_distance_alone() -> None:
    rotary = Rotary(8, 32, RotaryTraits())
    q, k = torch.randn(1, 8), torch.randn(1, 8)
    turned = [(rotate(q, rotary.at(t, 1)), rotate(k, rotary.at(t + 3, 1))) for t in (0, 5, 20)]
    products = [float((one * other).sum()) for one, other in turned]
    assert products == pytest.approx([products[0]] * 3, abs=1e-5)
    assert float(turned[2][0].norm()) == pytest.approx(float(q.norm()), rel=1e-6)


def test_at_first_all_tokens_are_nearly_equally_likely_and_blocks_add_nothing() -> None:
    model = GPT(SHAPE)
    loss_sum, count = model(ids(4, 24), ids(4, 24, seed=1))
    assert float(loss_sum.detach() / count) == pytest.approx(math.log(80), abs=0.01)
    embedded = rms_norm(model.token_embedding(ids(1, 5)))
    torch.testing.assert_close(model.hidden(ids(1, 5)), rms_norm(embedded))


def test_a_cache_changes_nothing() -> None:
    model, tokens = lively(), ids(1, 20)
    cache = model.empty_cache()
    parts = [model.hidden(part, cache) for part in (tokens[:, :7], tokens[:, 7:8], tokens[:, 8:9])]
    whole = model.hidden(tokens[:, :9])
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    writers = (
        generate(model, [1, 2], Sampling(0.0), seed=0, cached=cached) for cached in (True, False)
    )
    texts = [list(itertools.islice(writer, 40)) for writer in writers]
    assert texts[0] == texts[1]


def test_parameters_are_counted_and_named() -> None:
    model = GPT(SHAPE)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == count_parameters(SHAPE).total == 2 * 80 * 32 + 3 * 12 * 32 * 32
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()]


def test_what_a_modern_network_has_not_is_refused_in_one_list() -> None:
    flags = {
        "recipe": "gpt2",
        "model.architecture": "modern",
        "model.dropout": 0.1,
        "model.width": 6,
        "model.heads": 2,
    }
    with pytest.raises(ConfigError) as caught:
        build_config(flags=flags)
    keys = [problem.split(":")[0] for problem in caught.value.problems]
    assert keys == ["model.bias", "model.qkv_bias", "model.tied", "model.dropout", "model.heads"]


def test_the_recipe_is_a_whole_config() -> None:
    config = build_config()
    assert config.model.architecture == "modern" and config.optimizer.kind == "muon"

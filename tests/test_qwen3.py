"""Qwen3's network against its definition written out with plain operations, in float64.

ecosystem/test_huggingface.py holds it to transformers' own.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hairpin.config.load import build_config
from hairpin.errors import ConfigError
from hairpin.model.generate import Sampling, generate
from hairpin.model.gpt import GPT
from hairpin.model.kernels.activations import swiglu
from hairpin.model.kernels.norms import rms_norm
from hairpin.model.shape import Shape
from hairpin.planning.memory import Workload, step_bytes
from hairpin.planning.sizes import count_parameters, matrix_parameters
from helpers import assert_as_defined, lively_model, random_ids

SHAPE = Shape.default("qwen3", vocabulary=80, context=24, layers=3, heads=2, width=32)
TIED = Shape.default("qwen3", vocabulary=80, context=24, layers=2, heads=2, width=32, tied=True)


def plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def plain_turn(x: Tensor) -> Tensor:
    """Each pair (i, i + D/2) of a head at position t, turned by t / 10000^(2i/D)."""
    out = torch.empty_like(x)
    half = x.size(-1) // 2
    for t in range(x.size(-2)):
        for i in range(half):
            angle = t / 10_000 ** (2 * i / x.size(-1))
            one, other = x[..., t, i], x[..., t, i + half]
            out[..., t, i] = one * math.cos(angle) - other * math.sin(angle)
            out[..., t, i + half] = one * math.sin(angle) + other * math.cos(angle)
    return out


def plain_logits(weights: dict[str, Tensor], inputs: Tensor, shape: Shape) -> Tensor:
    """The network from its definition: no function of the library but matmul, softmax and exp."""
    x = weights["token_embedding.weight"][inputs]
    batch, length, width = x.shape
    size = width // shape.heads
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    for layer in range(shape.layers):
        w = {k.removeprefix(f"blocks.{layer}."): v for k, v in weights.items()}
        normed = plain_norm(x, w["attention_norm.weight"])
        q, k, v = (
            (normed @ part.T).view(batch, length, shape.heads, size).transpose(1, 2)
            for part in w["attention.query_key_value.weight"].chunk(3)
        )
        q = plain_turn(plain_norm(q, w["attention.query_norm.weight"]))
        k = plain_turn(plain_norm(k, w["attention.key_norm.weight"]))
        scores = (q @ k.mT / math.sqrt(size)).masked_fill(future, -math.inf)
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + y @ w["attention.output.weight"].T
        normed = plain_norm(x, w["mlp_norm.weight"])
        gate = normed @ w["mlp.gate.weight"].T
        inner = gate / (1 + (-gate).exp()) * (normed @ w["mlp.expand.weight"].T)
        x = x + inner @ w["mlp.output.weight"].T
    head = weights.get("head.weight", weights["token_embedding.weight"])
    return plain_norm(x, weights["final_norm.weight"]) @ head.T


@pytest.mark.parametrize("shape", [SHAPE, TIED], ids=["untied", "tied"])
def test_logits_and_gradients_are_those_of_the_definition(shape: Shape) -> None:
    model, inputs, targets = lively_model(shape), random_ids(2, 24), random_ids(2, 24, seed=1)

    def defined(weights: dict[str, Tensor]) -> Tensor:
        return plain_logits(weights, inputs, shape)

    assert_as_defined(model, defined, inputs, targets, atol=1e-4, rtol=1e-5)


def test_parts_have_the_gradients_that_autograd_finds() -> None:
    x = torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rms_norm, (x, weight))
    torch.testing.assert_close(rms_norm(x, weight), F.rms_norm(x, (7,), weight, 1e-6))
    assert torch.autograd.gradcheck(swiglu, (x, torch.randn_like(x, requires_grad=True)))


def test_at_first_all_tokens_are_nearly_equally_likely_and_blocks_add_nothing() -> None:
    for shape, near in ((SHAPE, 0.01), (TIED, 0.05)):
        model = GPT(shape)
        loss_sum, count = model(random_ids(4, 24), random_ids(4, 24, seed=1))
        assert float(loss_sum.detach() / count) == pytest.approx(math.log(80), abs=near)
        embedded = model.token_embedding(random_ids(1, 5))
        torch.testing.assert_close(model.hidden(random_ids(1, 5)), model.final_norm(embedded))


def test_what_it_shares_with_the_modern_network_begins_with_the_same_weights() -> None:
    ours = dict(GPT(SHAPE, seed=4).named_parameters())
    modern = dict(GPT(Shape.default("modern", 80, 24, 3, 2, 32), seed=4).named_parameters())
    same = [name for name in ours.keys() & modern if ours[name].shape == modern[name].shape]
    assert len(same) == 2 + 2 * 3  # embedding and head; query, key and value, and their output
    assert all(torch.equal(ours[name], modern[name]) for name in same)


def test_a_cache_changes_nothing() -> None:
    model, tokens = lively_model(SHAPE), random_ids(1, 20)
    cache = model.empty_cache()
    parts = [model.hidden(part, cache) for part in (tokens[:, :7], tokens[:, 7:8], tokens[:, 8:9])]
    whole = model.hidden(tokens[:, :9])
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    writers = (
        generate(model, [1, 2], Sampling(0.0), seed=0, cached=cached) for cached in (True, False)
    )
    texts = [list(itertools.islice(writer, 40)) for writer in writers]
    assert texts[0] == texts[1]


def test_the_inner_width_makes_as_many_parameters_as_four_times_the_stream() -> None:
    assert [Shape.default("qwen3", 80, 24, 1, 2, c).inner for c in (64, 192, 768, 4096)] == [
        168, 512, 2048, 10_920,
    ]  # fmt: skip
    for width in range(64, 2048, 2):
        shape = Shape.default("qwen3", 80, 24, 1, 2, width)
        assert matrix_parameters(shape) == pytest.approx(12 * width**2, rel=0.02)
    # By hand: 80 · 32 twice; three blocks of 4 · 32², 3 · 32 · 88 and norms of 32, 32, 16, 16; 32.
    assert count_parameters(SHAPE).total == 2 * 80 * 32 + 3 * (4096 + 3 * 32 * 88 + 96) + 32


def test_muon_peaks_where_it_moves_the_two_matrices_that_enter_an_mlp() -> None:
    job = Workload(Shape.default("qwen3", 80, 24, 2, 2, 192), "muon", "float32", 1, 1)
    # Four matrices of 512 · 192: three stacks of them, and five of Gram matrices of 192².
    assert step_bytes(job) == 4 * 4 * (3 * 512 * 192 + 5 * 192 * 192)


def test_what_the_network_has_not_is_refused_in_one_list() -> None:
    flags = {
        "recipe": "gpt2",
        "model.architecture": "qwen3",
        "model.dropout": 0.1,
        "model.initialisation": "pytorch",
        "model.width": 6,
        "model.heads": 2,
    }
    with pytest.raises(ConfigError) as caught:
        build_config(flags=flags)
    keys = [problem.split(":")[0] for problem in caught.value.problems]
    assert keys == [
        f"model.{name}" for name in ("bias", "qkv_bias", "dropout", "initialisation", "heads")
    ]


def test_the_recipe_is_a_whole_config_and_the_modern_one_but_for_its_network() -> None:
    config, modern = build_config(flags={"recipe": "qwen3"}), build_config()
    assert config.model.architecture == "qwen3"
    assert config.optimizer == modern.optimizer and config.optimizer.kind == "muon"
    assert build_config(flags={"recipe": "qwen3", "model.tied": True}).model.tied

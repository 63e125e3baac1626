"""The decoder against the network itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hairpin.errors import ConfigError
from hairpin.model.decode import Decoder
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape

SHAPES = {
    "gpt2": Shape(70, 24, layers=2, heads=2, width=32),
    "no biases": Shape(70, 24, layers=2, heads=4, width=32, bias=False, tied=False),
    "no qkv bias": Shape(70, 24, layers=2, heads=2, width=32, qkv_bias=False),
    "modern": Shape.modern(70, 24, layers=2, heads=2, width=32),
}


def lively(shape: Shape, seed: int = 0) -> GPT:
    model = GPT(shape, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("kind", SHAPES)
@given(ids=st.lists(st.integers(0, 69), min_size=2, max_size=24), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_scores_are_those_of_the_network(kind: str, ids: list[int], seed: int) -> None:
    model = lively(SHAPES[kind], seed)
    decoder, cache = Decoder(model), model.empty_cache()
    with torch.no_grad():
        expected = model.logits(torch.tensor([ids]))[0]
        found = torch.stack([decoder.logits(token, cache).clone() for token in ids])
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", SHAPES)
def test_new_weights_are_seen_at_once(kind: str) -> None:
    model = lively(SHAPES[kind])
    decoder = Decoder(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
        expected = model.logits(torch.tensor([[5]]))[0, -1]
    found = decoder.logits(5, model.empty_cache())
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", SHAPES)
def test_eight_bits_are_near(kind: str) -> None:
    model = lively(SHAPES[kind])
    try:
        decoder = Decoder(model, "int8")
    except ConfigError as error:
        pytest.skip(str(error))
    cache = model.empty_cache()
    with torch.no_grad():
        expected = model.logits(torch.tensor([[3, 9, 27]]))[0, -1]
    for token in (3, 9, 27):
        found = decoder.logits(token, cache)
    likeness = torch.nn.functional.cosine_similarity(found, expected, dim=0)
    assert float(likeness) > 0.99

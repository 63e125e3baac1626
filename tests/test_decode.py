"""The decoder against the network itself."""

import copy
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hairpin.errors import ConfigError
from hairpin.model.decode import Decoder, prepare_weights
from hairpin.model.gpt import GPT
from hairpin.model.products import PRECISIONS, Precision, product_maker, require_supported
from hairpin.model.shape import Shape

SHAPES = {
    "gpt2": Shape(70, 24, layers=2, heads=2, width=32),
    "no biases": Shape(70, 24, layers=2, heads=4, width=32, bias=False, tied=False),
    "no qkv bias": Shape(70, 24, layers=2, heads=2, width=32, qkv_bias=False),
    "modern": Shape.default("modern", 70, 24, layers=2, heads=2, width=32),
    "qwen3": Shape.default("qwen3", 70, 24, layers=2, heads=2, width=32),
    "tied qwen3": Shape.default("qwen3", 71, 24, layers=1, heads=3, width=18, tied=True),
    "odd": Shape(71, 24, layers=1, heads=3, width=21),
}


@pytest.fixture(params=[1, 2, 5], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Products are divided among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def lively(shape: Shape, seed: int = 0) -> GPT:
    model = GPT(shape, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def scores(decoder: Decoder, ids: list[int]) -> Tensor:
    """What the decoder says after each token, [T, V]."""
    cache = decoder.empty_cache()
    return torch.stack([decoder.logits(token, cache).clone() for token in ids])


def network_scores(model: GPT, ids: list[int]) -> Tensor:
    """The same from the network, of all at once."""
    with torch.no_grad():
        return model.logits(torch.tensor([ids]))[0]


@pytest.mark.parametrize("laid_out", [False, True])
@pytest.mark.parametrize("kind", SHAPES)
@given(ids=st.lists(st.integers(0, 69), min_size=2, max_size=24), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_scores_are_those_of_the_network(
    kind: str, laid_out: bool, ids: list[int], seed: int
) -> None:
    model = lively(SHAPES[kind], seed)
    expected = network_scores(model, ids)
    found = scores(Decoder(prepare_weights(model) if laid_out else model), ids)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", SHAPES)
def test_what_the_network_has_read_goes_on_one_by_one(kind: str) -> None:
    model, ids = lively(SHAPES[kind]), [3, 9, 27, 4, 5]
    decoder = Decoder(model)
    cache = decoder.empty_cache()
    with torch.no_grad():
        model.hidden(torch.tensor([ids[:3]]), cache)
    found = torch.stack([decoder.logits(token, cache).clone() for token in ids[3:]])
    torch.testing.assert_close(found, network_scores(model, ids)[3:], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", SHAPES)
def test_new_weights_are_seen_at_once(kind: str) -> None:
    model = lively(SHAPES[kind])
    decoder = Decoder(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    torch.testing.assert_close(
        scores(decoder, [5]), network_scores(model, [5]), atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize("kind", SHAPES)
def test_laying_out_changes_no_number(kind: str) -> None:
    model = lively(SHAPES[kind])
    before = copy.deepcopy(model.state_dict())
    after = prepare_weights(model).state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(
    ("precision", "least"), [("bfloat16", 0.9999), ("float16", 0.999999), ("int8", 0.99)]
)
def test_other_formats_are_near(kind: str, precision: Precision, least: float) -> None:
    skip_if_refused(precision)
    model, ids = lively(SHAPES[kind]), [3, 9, 27]
    expected, found = network_scores(model, ids), scores(Decoder(model, precision), ids)
    likeness = torch.nn.functional.cosine_similarity(found.double(), expected.double())
    assert least < float(likeness.min())
    assert not torch.equal(found, expected), "the format was not used"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_product_is_that_of_weights_rounded_to_its_format(precision: Precision) -> None:
    skip_if_refused(precision)
    draw = torch.Generator().manual_seed(0)
    # Whole numbers with a 127 in each row and input: no format has to round them.
    weight_OI = torch.randint(-40, 41, (37, 16), generator=draw).float()
    weight_OI[:, 3] = 127
    x_I = torch.randint(-3, 4, (16,), generator=draw).float()
    x_I[3] = -127 if precision == "int8" else 1
    expected = (weight_OI.double() @ x_I.double()).float()
    for bias_O in (None, torch.full((37,), 0.25)):
        for weight in (weight_OI, weight_OI.t().contiguous().t()):
            found = product_maker(precision)(weight, bias_O)(x_I)
            wanted = expected if bias_O is None else expected + bias_O
            rounding = {"bfloat16": 2**-8, "float16": 2**-11}.get(precision, 1e-6)
            torch.testing.assert_close(found, wanted, atol=1e-3, rtol=rounding)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_product_of_zeros_is_zero_and_of_nan_is_nan(precision: Precision) -> None:
    skip_if_refused(precision)
    product = product_maker(precision)(torch.zeros(8, 16), None)
    assert product(torch.ones(16)).abs().max() == 0
    product = product_maker(precision)(torch.ones(8, 16), None)
    assert product(torch.zeros(16)).abs().max() == 0
    assert product(torch.full((16,), torch.nan)).isnan().all()


def test_a_weight_that_float16_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="too large for float16; use bfloat16"):
        product_maker("float16")(torch.full((4, 4), 1e5), None)


@pytest.mark.parametrize(
    ("precision", "device", "line"),
    [
        ("int4", "cpu", "'int4' is none of float32, bfloat16, float16, int8"),
        ("int8", "cuda", "int8 is for generating on a CPU, not on cuda"),
    ],
)
def test_a_format_that_cannot_be_had_is_one_line(precision: str, device: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        require_supported(precision, device)


def skip_if_refused(precision: Precision) -> None:
    try:
        require_supported(precision, "cpu")
    except ConfigError as error:
        pytest.skip(str(error))

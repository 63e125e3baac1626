"""No product can reach a NaN that freed memory left, whatever the shapes, networks and formats."""

from itertools import islice

import pytest
import torch
from torch import Tensor

from hairpin.config.settings import Optimizer
from hairpin.data.batches import IGNORED
from hairpin.errors import ConfigError
from hairpin.machine.numerics import Numerics
from hairpin.model.classifier import Classifier
from hairpin.model.decode import Decoder
from hairpin.model.generate import Sampling, generate
from hairpin.model.gpt import GPT
from hairpin.model.kernels.cross_entropy import cross_entropy
from hairpin.model.products import PRECISIONS, Precision, require_supported
from hairpin.model.shape import Shape
from hairpin.optim.optimizers import build_optimizer, step_unless
from helpers import lively_model, random_ids
from matrix_reads import WideReads, filled_memory, tail_of

VOCABULARIES = (257, 357, 614, 1000, 1024, 50257)
FORMATS = (torch.float32, torch.bfloat16, torch.float16)
# Context, heads, width: contexts shorter and longer than a block of attention's queries, and no
# size a multiple of 32 but those of the first.
SIZES = ((64, 2, 64), (33, 3, 42), (70, 2, 36), (130, 2, 40), (161, 1, 50))
NETWORKS = ("gpt2", "modern", "qwen3")
MOST_OFF = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def shape_of(network: str, vocabulary: int, context: int, heads: int, width: int) -> Shape:
    return Shape.default(network, vocabulary, context, 2, heads, width)


def test_the_check_sees_what_lies_beside_a_row() -> None:
    room = torch.full((4, 64), torch.nan)
    room[:, :40] = 1.0
    weight = torch.ones(40, 8)
    with WideReads(), pytest.raises(AssertionError, match="can read what is not finite"):
        torch.mm(room[:, :40], weight)
    room[:, 40:] = 0.0
    with WideReads() as seen:
        torch.mm(room[:, :40], weight)
    assert (seen.products, seen.ragged) == (1, 2)


def test_the_check_sees_the_rows_behind_a_transposed_factor() -> None:
    room = torch.ones(64, 4)
    room[50:] = torch.inf
    tail = tail_of(room[:50].t(), -1)
    assert tail is not None and tail.numel() == 4 * 14 and tail.isinf().all()
    assert tail_of(room.t(), -1) is None


@pytest.mark.parametrize("softcap", [15.0, None])
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_the_head_sets_the_room_beside_its_logits(
    vocabulary: int, dtype: torch.dtype, softcap: float | None
) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    x = torch.randn(70, 36, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, 36, generator=generator, requires_grad=True)
    targets = torch.randint(0, vocabulary, (70,), generator=generator)
    targets[::7] = IGNORED
    with filled_memory(), WideReads() as seen:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = cross_entropy(x, weight, targets, softcap=softcap, chunk_rows=32)
        loss.backward()  # type: ignore[no-untyped-call]
    assert seen.ragged
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    logits = exact[0] @ exact[1].T
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    plain = torch.nn.functional.cross_entropy(
        logits, targets, ignore_index=IGNORED, reduction="sum"
    )
    plain.backward()  # type: ignore[no-untyped-call]
    for ours, theirs in zip((x, weight), exact, strict=True):
        assert ours.grad is not None and theirs.grad is not None
        off = (ours.grad - theirs.grad).norm() / theirs.grad.norm()
        assert off < MOST_OFF[dtype], (vocabulary, dtype, float(off))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("vocabulary", [614])
def test_an_update_of_a_network_reads_finite_numbers(
    vocabulary: int, size: tuple[int, int, int], network: str, precision: str
) -> None:
    model = lively_model(shape_of(network, vocabulary, *size))
    assert_update_is_finite(model, random_ids(3, size[0] + 1, below=vocabulary), precision)


@pytest.mark.parametrize("network", NETWORKS)
def test_an_update_reads_finite_numbers_at_gpt2s_vocabulary(network: str) -> None:
    model = lively_model(shape_of(network, 50257, 33, 2, 40))
    assert_update_is_finite(model, random_ids(2, 34, below=50257), "bfloat16")


@pytest.mark.parametrize("labels", [2, 5, 45])
def test_an_update_of_a_classifier_reads_finite_numbers(labels: int) -> None:
    model = Classifier(shape_of("gpt2", 257, 70, 2, 36), labels)
    inputs = random_ids(labels, 70, below=257)
    targets = torch.full_like(inputs, IGNORED)
    targets[:, 50] = torch.arange(labels)
    with filled_memory(), WideReads():
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = model(inputs, targets)
        loss.backward()
    assert_finite(model)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("network", NETWORKS)
def test_generation_reads_finite_numbers(network: str, precision: Precision) -> None:
    model = lively_model(shape_of(network, 357, 70, 2, 36))
    try:
        require_supported(precision, "cpu")
    except ConfigError as missing:
        pytest.skip(str(missing))
    with filled_memory(), WideReads():
        written = generate(
            model,
            [1, 2, 3],
            Sampling(temperature=0.0),
            seed=0,
            decoder=Decoder(model, precision),
        )
        assert len(list(islice(written, 60))) == 60


def assert_update_is_finite(model: GPT, ids: Tensor, precision: str) -> None:
    """Gradients, and the weights after a step of Muon and of AdamW."""
    numerics = Numerics("cpu", precision)
    optimizer = build_optimizer(model, Optimizer(kind="muon"), precision=precision)
    with filled_memory(), WideReads() as seen:
        with numerics.autocast():
            loss, count = model(ids[:, :-1], ids[:, 1:])
        (loss / count).backward()
        assert loss.isfinite()
        assert_finite(model)
        step_unless(torch.tensor(False), optimizer, 0.01)
    assert seen.products > 20
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def assert_finite(model: GPT) -> None:
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name

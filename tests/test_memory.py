"""Memory on paper: numbers by hand, and what PyTorch really keeps."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hairpin.config.load import build_config
from hairpin.machine.numerics import Numerics
from hairpin.model.gpt import GPT
from hairpin.model.kernels import attention
from hairpin.model.kernels import cross_entropy as head
from hairpin.model.shape import Shape
from hairpin.optim.optimizers import build_optimizer, optimizer_tensors
from hairpin.planning import memory
from hairpin.planning.gpus import (
    GPUS,
    fewest_gpus,
    gpu_named,
    on_gpus,
    seconds_on_paper,
    shape_of_count,
)
from hairpin.planning.memory import Workload, activation_bytes, moment_bytes, peak_memory
from hairpin.planning.sizes import count_parameters, flops_per_token, matrix_parameters
from hairpin.plugins.registry import OPTIMIZERS
from helpers import random_ids

GPT2 = Shape(50_257, 1024, layers=12, heads=12, width=768)
MODERN = Shape.default("modern", 8192, 256, layers=6, heads=6, width=384)


@settings(max_examples=30)
@given(
    architecture=st.sampled_from(["gpt2", "modern", "qwen3"]),
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    half=st.integers(1, 6),
    vocabulary=st.integers(3, 80),
    context=st.integers(2, 30),
    bias=st.booleans(),
    tied=st.booleans(),
)
def test_parameters_are_those_of_the_network(
    architecture: str, layers: int, heads: int, half: int, vocabulary: int, context: int,
    bias: bool, tied: bool,
) -> None:  # fmt: skip
    width = 2 * half * heads
    if architecture == "modern":
        shape = Shape.default("modern", vocabulary, context, layers, heads, width)
    elif architecture == "qwen3":
        shape = Shape.default("qwen3", vocabulary, context, layers, heads, width, tied=tied)
    else:
        shape = Shape(vocabulary, context, layers, heads, width, bias=bias, tied=tied)
    model = GPT(shape)
    assert count_parameters(shape).total == sum(p.numel() for p in model.parameters())
    matrices = sum(p.numel() for p in model.blocks.parameters() if p.dim() == 2)
    assert matrix_parameters(shape) == matrices


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("shape", [MODERN, replace(MODERN, layers=2, architecture="qwen3")])
def test_moments_are_those_of_the_optimizer(kind: str, shape: Shape) -> None:
    shape = replace(shape, width=24, heads=2, context=8, vocabulary=50)
    model = GPT(shape)
    optimizer = build_optimizer(model, build_config(flags={"optimizer.kind": kind}).optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    tensors = optimizer_tensors(model, optimizer).values()
    moments = [tensor for tensor in tensors if tensor.dim()]  # numbers take next to nothing
    assert moment_bytes(shape, kind) == sum(tensor.nbytes for tensor in moments)


def kept_bytes(shape: Shape, precision: str, sequences: int) -> int:
    """What PyTorch keeps of a forward pass, by storage, but for weights and casts of them."""
    model = GPT(shape)
    blocks = [p for p in model.blocks.parameters() if p.dim() == 2]
    matrices = {p.shape for p in model.parameters()} | {p.t().shape for p in blocks}
    ids = random_ids(sequences, shape.context + 1, below=shape.vocabulary)
    mine = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in mine and tensor.shape not in matrices:
            held[storage.data_ptr()] = storage
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        Numerics("cpu", precision).autocast(),
    ):
        loss, _ = model(ids[:, :-1], ids[:, 1:])
    assert loss.isfinite()
    return sum(storage.nbytes() for storage in held.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["gpt2", "modern", "qwen3"])
@pytest.mark.parametrize(("sequences", "context"), [(5, 160), (3, 256)])
def test_activations_are_what_pytorch_keeps(
    architecture: str, precision: str, sequences: int, context: int
) -> None:
    if architecture == "modern":
        shape = Shape.default("modern", 70, context, layers=3, heads=2, width=48)
    elif architecture == "qwen3":
        shape = Shape.default("qwen3", 70, context, layers=3, heads=2, width=48)
    else:
        shape = Shape(70, context, layers=3, heads=2, width=48)
    job = Workload(shape, "adamw", precision, sequences, 1)
    # The formula leaves out single numbers of a row, such as the root that a norm divided by.
    assert activation_bytes(job) == pytest.approx(kept_bytes(shape, precision, sequences), rel=0.06)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_dropout_keeps_its_factors_and_all_probabilities(precision: str) -> None:
    shape = Shape(70, 160, layers=3, heads=2, width=48, dropout=0.1)
    job = Workload(shape, "adamw", precision, 4, 1)
    assert activation_bytes(job) == pytest.approx(kept_bytes(shape, precision, 4), rel=0.06)


def test_constants_are_those_of_the_network() -> None:
    assert memory.ATTENTION_BLOCK == attention._BLOCK
    assert memory.KEPT_PROBABILITY_BYTES == 2 * attention._KEPT_BYTES
    assert memory.LOGIT_CHUNK_BYTES == head._CHUNK_BYTES
    assert memory.ROW_NUMBERS == head._ROW_NUMBERS
    assert memory.PRODUCT_ROWS == head._PRODUCT_ROWS


def test_the_parts_of_gpt2_by_hand() -> None:
    job = Workload(replace(GPT2, context=256), "adamw", "float32", micro_batch=2, micro_steps=2)
    found = peak_memory(job)
    parameters = 124_439_808 - 768 * 768  # 768 positions fewer
    assert found.weights == found.gradients == 4 * parameters
    assert found.moments == 8 * parameters
    assert found.snapshot == 12 * parameters
    assert found.casts == found.update == 0
    # 512 tokens, 12 layers of (14 + 2) · 768 numbers, 2 · 768 outside; probabilities of 2 · 12
    # heads: queries 0 to 127 see 128 keys, 128 to 255 see 256.
    numbers = 512 * (12 * 16 + 2) * 768 + 12 * 24 * (128 * 128 + 128 * 256)
    # The head: 512 rows of 50,304 logits; gradients of its weight and of its input.
    logits = 512 * 50_304 + (50_257 + 512) * 768
    assert (found.activations, found.logits) == (4 * numbers, 4 * logits)
    assert found.unused == int(0.25 * 4 * (numbers + logits))
    assert found.total == sum(found.parts().values())


def test_muon_peaks_in_its_step_where_activations_are_small() -> None:
    shape = replace(MODERN, context=8)
    found = peak_memory(Workload(shape, "muon", "float32", micro_batch=1, micro_steps=1))
    # Three stacks and five of Gram matrices, of 3 · 6 matrices of 384².
    assert found.update == 4 * 8 * 18 * 384**2
    assert found.activations == 0
    assert found.moments == 4 * (2 * count_parameters(shape).total - 12 * 6 * 384**2)


def test_bfloat16_keeps_half_and_copies_of_weights() -> None:
    full, half = (
        Workload(MODERN, "muon", precision, micro_batch=4, micro_steps=2)
        for precision in ("float32", "bfloat16")
    )
    assert memory.cast_bytes(half) == 2 * 12 * 6 * 384**2
    assert memory.cast_bytes(full) == 0
    assert activation_bytes(half) < 0.6 * activation_bytes(full)


@given(sequences=st.integers(1, 64), steps=st.integers(1, 4))
def test_more_takes_more(sequences: int, steps: int) -> None:
    job = Workload(MODERN, "muon", "float32", sequences, steps)
    more = peak_memory(replace(job, micro_batch=sequences + 1))
    assert peak_memory(job).total < more.total
    assert peak_memory(job, saves=False).total < peak_memory(job).total


def test_seven_billion_by_hand() -> None:
    shape = shape_of_count(7e9, 4096, 50_257)
    # 32 layers of 12 · 4096², an embedding and a head of 50,257 · 4096.
    count = 32 * 12 * 4096**2 + 2 * 50_257 * 4096
    assert (shape.layers, shape.heads, shape.width) == (32, 32, 4096)
    assert count_parameters(shape).total == count == 6_854_156_288
    flops = 6 * (32 * 12 * 4096**2 + 50_257 * 4096) + 12 * 32 * 4096 * 4096
    assert flops_per_token(shape) == flops
    one, many = (on_gpus(GPUS["H100"], shape, 140e9, n, 1) for n in (8, 64))
    # 140e9 tokens at 40% of 989e12 on 8: 140e9 · 4.63e10 / 3.16e15 = 2.05e6 s.
    assert one.days == pytest.approx(140e9 * flops / (8 * 0.4 * 989e12) / 86_400)
    assert one.days == pytest.approx(23.7, abs=0.05)
    assert many.days == pytest.approx(one.days / 8)
    assert one.checkpointed_days == pytest.approx(one.days * 4 / 3)
    # What is divided is 16 bytes a parameter; what is not is the same on any number.
    assert one.fsdp_bytes[0] - many.fsdp_bytes[0] == pytest.approx(16 * count * (1 / 8 - 1 / 64))
    assert one.ddp_bytes == many.ddp_bytes
    assert one.ddp_bytes[0] > 18 * count > 80e9
    assert one.fsdp_bytes[1] < one.fsdp_bytes[0]


def test_the_fewest_cards_are_where_it_begins_to_fit() -> None:
    shape = shape_of_count(13e9, 4096, 50_257)
    for checkpointed in (False, True):
        fewest = fewest_gpus(GPUS["A100"], shape, 1, checkpointed)
        assert fewest and fewest > 1
        fits = [
            on_gpus(GPUS["A100"], shape, 1e9, n, 1).fsdp_bytes[checkpointed] <= 80e9
            for n in (fewest - 1, fewest)
        ]
        assert fits == [False, True]
    assert fewest_gpus(GPUS["T4"], shape_of_count(70e9, 4096, 50_257), 8, False) is None


@given(count=st.floats(1e7, 1e12))
def test_a_shape_has_about_the_parameters_that_were_asked_for(count: float) -> None:
    shape = shape_of_count(count, 2048, 50_257)
    assert shape.width == 128 * shape.layers == 128 * shape.heads
    others = (
        Shape.default("modern", 50_257, 2048, n, n, 128 * n)
        for n in (shape.layers - 1, shape.layers + 1)
        if n
    )
    off = abs(count_parameters(shape).total - count)
    assert all(off <= abs(count_parameters(other).total - count) for other in others)


def test_cards_by_name() -> None:
    assert gpu_named("rtx 4090") is GPUS["RTX4090"]
    assert gpu_named("h100").flops == 989e12
    assert seconds_on_paper(GPUS["T4"], 65e12, mfu=0.5) == 2.0

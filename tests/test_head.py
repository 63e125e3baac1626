"""The head's cross entropy against PyTorch's own, in float64 where it matters."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from hairpin.data.batches import IGNORED
from hairpin.model.gpt import GPT
from hairpin.model.kernels import cross_entropy as head
from hairpin.model.kernels.cross_entropy import TiedGradient, cross_entropy, look_up
from hairpin.model.shape import Shape


def seeded(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def plain(x: Tensor, weight: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    logits = x @ weight.T
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


def targets_of(rows: int, vocabulary: int, seed: int, ignored: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, vocabulary, (rows,), generator=generator)
    return targets.masked_fill(torch.rand(rows, generator=generator) < ignored, IGNORED)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40), width=st.integers(1, 9), vocabulary=st.integers(2, 70),
    chunk=st.integers(1, 50), softcap=st.sampled_from([None, 15.0, 2.0]),
    ignored=st.sampled_from([0.0, 0.3, 1.0]), size=st.sampled_from([0.1, 1.0, 30.0]),
    piece=st.sampled_from([1, 128 * 3, 2**19]), seed=st.integers(0, 999),
)  # fmt: skip
def test_loss_and_gradients_are_the_plain_ones(
    rows: int, width: int, vocabulary: int, chunk: int, softcap: float | None, ignored: float,
    size: float, piece: int, seed: int,
) -> None:  # fmt: skip
    x = (size * seeded(rows, width, seed=seed)).requires_grad_()
    weight = seeded(vocabulary, width, seed=seed + 1).requires_grad_()
    targets = targets_of(rows, vocabulary, seed, ignored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "_PIECE_NUMBERS", piece)
        loss = cross_entropy(x, weight, targets, softcap=softcap, chunk_rows=chunk)
    (loss / 7).backward()  # type: ignore[no-untyped-call]
    exact = (x.detach().double().requires_grad_(), weight.detach().double().requires_grad_())
    reference = plain(exact[0], exact[1], targets, softcap)
    (reference / 7).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss.double(), reference, rtol=1e-5, atol=1e-4 * max(1.0, size))
    for ours, theirs in zip((x, weight), exact, strict=True):
        assert ours.grad is not None and theirs.grad is not None
        torch.testing.assert_close(
            ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-5 * max(1.0, size)
        )


@pytest.mark.parametrize("softcap", [None, 15.0])
def test_any_number_of_chunks_gives_the_same_loss(softcap: float | None) -> None:
    x, weight, targets = seeded(96, 32), seeded(500, 32, seed=1), targets_of(96, 500, 2, 0.1)
    losses = [
        float(cross_entropy(x, weight, targets, softcap=softcap, chunk_rows=rows))
        for rows in (96, 48, 32, 7, 1)
    ]
    assert losses == pytest.approx([losses[0]] * 5, rel=1e-6)


@pytest.mark.parametrize("nats", [75.0, 85.0, 95.0, 110.0, 400.0])
def test_what_is_very_unlikely_has_a_finite_loss(nats: float) -> None:
    """Probabilities that a float32 holds with all of its digits, with some, and not at all."""
    weight = torch.tensor([[nats], [0.0]], requires_grad=True)
    targets = torch.tensor([1, 0, IGNORED, 1])
    loss = cross_entropy(torch.ones(4, 1), weight, targets)
    assert float(loss.detach()) == pytest.approx(2 * nats, rel=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.tensor([[2.0], [-2.0]]))


def test_a_row_that_does_not_count_gives_nothing_whatever_is_in_it() -> None:
    x = torch.tensor([[1.0], [float("nan")]], requires_grad=True)
    loss = cross_entropy(x, torch.ones(4, 1), torch.tensor([2, IGNORED]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(1.3862943611)  # log 4
    assert x.grad is not None and x.grad[1] == 0


def test_a_nan_is_not_hidden() -> None:
    x = torch.full((2, 3), float("nan"), requires_grad=True)
    loss = cross_entropy(x, torch.ones(4, 3), torch.tensor([0, 1]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isnan() and x.grad is not None and x.grad.isnan().all()


@pytest.mark.parametrize("piece", [320, 2**19])
@pytest.mark.parametrize("softcap", [None, 2.0, 15.0])
def test_bfloat16_products_are_near_and_gradients_keep_their_formats(
    softcap: float | None, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "_PIECE_NUMBERS", piece)
    x, weight = seeded(40, 64).requires_grad_(), (seeded(300, 64, seed=1) / 4).requires_grad_()
    targets = targets_of(40, 300, 0, 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(x, weight, targets, softcap=softcap, chunk_rows=16)
    loss.backward()  # type: ignore[no-untyped-call]
    exact = (x.detach().double().requires_grad_(), weight.detach().double().requires_grad_())
    reference = plain(exact[0], exact[1], targets, softcap)
    reference.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(float(reference.detach()), rel=5e-3)
    for ours, theirs in zip((x, weight), exact, strict=True):
        assert ours.grad is not None and ours.grad.dtype == torch.float32
        assert theirs.grad is not None
        assert (ours.grad - theirs.grad).norm() < 0.01 * theirs.grad.norm()


def test_a_shared_weight_gets_the_sum_of_both_gradients() -> None:
    ids, targets = targets_of(24, 30, 0, 0.0).view(2, 12), targets_of(24, 30, 1, 0.2)
    gradients = []
    for is_ours in (True, False):
        weight = seeded(30, 8).requires_grad_()
        for _ in range(2):  # twice: gradients of micro-steps add up
            tied = TiedGradient()
            x = (look_up(weight, ids, tied) if is_ours else F.embedding(ids, weight)).tanh()
            x = x.flatten(0, 1)
            loss = (
                cross_entropy(x, weight, targets, tied=tied)
                if is_ours
                else plain(x, weight, targets, None)
            )
            (loss / 3).backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        gradients.append(weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "modern", "untied", "qwen3", "tied qwen3"])
def test_a_model_has_the_gradients_of_its_logits(architecture: str) -> None:
    shape = {
        "gpt2": Shape(60, 12, 2, 2, 16),
        "untied": Shape(60, 12, 2, 2, 16, tied=False),
        "modern": Shape.default("modern", 60, 12, 2, 2, 16),
        "qwen3": Shape.default("qwen3", 60, 12, 2, 2, 16),
        "tied qwen3": Shape.default("qwen3", 60, 12, 2, 2, 16, tied=True),
    }[architecture]
    ids, targets = targets_of(24, 60, 0, 0.0).view(2, 12), targets_of(24, 60, 1, 0.3).view(2, 12)
    ours, theirs = GPT(shape, 1), GPT(shape, 1)
    (ours(ids, targets)[0] / 5).backward()
    logits = theirs.logits(ids).flatten(0, 1)
    (  # type: ignore[no-untyped-call]
        F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum") / 5
    ).backward()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_a_frozen_embedding_trains_no_head_and_the_rest_still_does() -> None:
    model = GPT(Shape(60, 12, 2, 2, 16))
    model.token_embedding.requires_grad_(False)
    ids = targets_of(12, 60, 0, 0.0).view(1, 12)
    model(ids, ids)[0].backward()
    assert model.token_embedding.weight.grad is None
    assert all(
        p.grad is not None for n, p in model.named_parameters() if n != "token_embedding.weight"
    )

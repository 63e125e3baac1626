"""The book's parts, each against torch's own or against numbers worked out by hand."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.book import (
    GELU,
    GPT_CONFIG_124M,
    FeedForward,
    GPTDatasetV1,
    GPTModel,
    LayerNorm,
    MultiHeadAttention,
    TransformerBlock,
    calc_loss_batch,
    calc_loss_loader,
    create_dataloader_v1,
    evaluate_model,
    find_highest_gradient,
    generate_and_print_sample,
    generate_text_simple,
    plot_losses,
    text_to_token_ids,
    token_ids_to_text,
    train_model,
    train_model_simple,
)
from helpers import BOOK_TINY, WordsOfTwo, book_batches, random_ids, shaken

# --- the model ---


def test_layer_norm_is_torchs() -> None:
    ours, theirs = shaken(LayerNorm(24)), nn.LayerNorm(24)
    theirs.load_state_dict({"weight": ours.scale, "bias": ours.shift})
    x = 3 + 5 * torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_gelu_is_torchs_tanh_form() -> None:
    x = torch.linspace(-6, 6, 1001)
    torch.testing.assert_close(GELU()(x), F.gelu(x, approximate="tanh"), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_attention_is_torchs(qkv_bias: bool) -> None:
    ours = shaken(
        MultiHeadAttention(12, 24, context_length=9, dropout=0.0, num_heads=4, qkv_bias=qkv_bias)
    )
    assert (ours.W_query.bias is not None) is qkv_bias
    x = torch.randn(3, 7, 12)
    q, k, v = (
        part(x).view(3, 7, 4, 6).transpose(1, 2)
        for part in (ours.W_query, ours.W_key, ours.W_value)
    )
    heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    expected = ours.out_proj(heads.transpose(1, 2).reshape(3, 7, 24))
    torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=1e-5)


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match="d_out, 10, is not a multiple of num_heads, 4"):
        MultiHeadAttention(10, 10, context_length=4, dropout=0.0, num_heads=4)


def test_attention_drops_weights_in_training_only() -> None:
    attention = MultiHeadAttention(8, 8, context_length=6, dropout=0.5, num_heads=2)
    x = torch.randn(1, 6, 8)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_a_block_is_torchs_pre_norm_layer() -> None:
    """torch's own layer with the norm first is the same, but that its GELU is exact."""
    cfg = BOOK_TINY | {"qkv_bias": True}
    block = shaken(TransformerBlock(cfg)).eval()
    theirs = nn.TransformerEncoderLayer(
        16,
        2,
        64,
        dropout=0.0,
        activation=lambda x: F.gelu(x, approximate="tanh"),
        batch_first=True,
        norm_first=True,
    ).eval()
    att = block.att
    parts = (att.W_query, att.W_key, att.W_value)
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([part.weight for part in parts]),
            "self_attn.in_proj_bias": torch.cat([part.bias for part in parts]),
            "self_attn.out_proj.weight": att.out_proj.weight,
            "self_attn.out_proj.bias": att.out_proj.bias,
            "linear1.weight": block.ff.layers[0].weight,
            "linear1.bias": block.ff.layers[0].bias,
            "linear2.weight": block.ff.layers[2].weight,
            "linear2.bias": block.ff.layers[2].bias,
            "norm1.weight": block.norm1.scale,
            "norm1.bias": block.norm1.shift,
            "norm2.weight": block.norm2.scale,
            "norm2.bias": block.norm2.shift,
        }
    )
    x = torch.randn(2, 8, 16)
    future = nn.Transformer.generate_square_subsequent_mask(8)
    expected = theirs(x, src_mask=future, is_causal=True)
    torch.testing.assert_close(block(x), expected, atol=1e-4, rtol=1e-4)


def test_the_names_and_shapes_are_the_books() -> None:
    state = GPTModel(BOOK_TINY).state_dict()  # 64 tokens, 8 positions, 16 wide, 2 blocks
    block = {
        "att.mask": (8, 8),
        "att.W_query.weight": (16, 16),
        "att.W_key.weight": (16, 16),
        "att.W_value.weight": (16, 16),
        "att.out_proj.weight": (16, 16),
        "att.out_proj.bias": (16,),
        "ff.layers.0.weight": (64, 16),
        "ff.layers.0.bias": (64,),
        "ff.layers.2.weight": (16, 64),
        "ff.layers.2.bias": (16,),
        "norm1.scale": (16,),
        "norm1.shift": (16,),
        "norm2.scale": (16,),
        "norm2.shift": (16,),
    }
    expected: dict[str, tuple[int, ...]] = {
        "tok_emb.weight": (64, 16),
        "pos_emb.weight": (8, 16),
        **{f"trf_blocks.{n}.{name}": shape for n in range(2) for name, shape in block.items()},
        "final_norm.scale": (16,),
        "final_norm.shift": (16,),
        "out_head.weight": (64, 16),
    }
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected
    with_biases = GPTModel(BOOK_TINY | {"qkv_bias": True}).state_dict()
    assert {name for name in with_biases if name not in state} == {
        f"trf_blocks.{n}.att.W_{part}.bias" for n in range(2) for part in ("query", "key", "value")
    }


@pytest.mark.parametrize(
    ("changed", "parameters"),
    [({"context_length": 1024}, 163_009_536), ({}, 162_419_712)],
)
def test_the_books_sizes_have_the_books_number_of_parameters(
    changed: dict[str, int], parameters: int
) -> None:
    with torch.device("meta"):
        model = GPTModel(GPT_CONFIG_124M | changed)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_a_model_draws_its_first_weights_in_the_order_of_its_parts() -> None:
    torch.manual_seed(7)
    model = GPTModel(BOOK_TINY)
    torch.manual_seed(7)
    tokens, positions = nn.Embedding(64, 16), nn.Embedding(8, 16)
    query = nn.Linear(16, 16, bias=False)
    assert torch.equal(model.tok_emb.weight, tokens.weight)
    assert torch.equal(model.pos_emb.weight, positions.weight)
    first = model.trf_blocks[0]
    assert isinstance(first, TransformerBlock)
    assert torch.equal(first.att.W_query.weight, query.weight)


def test_a_later_token_changes_no_earlier_logit() -> None:
    model = shaken(GPTModel(BOOK_TINY)).eval()
    ids = random_ids(1, 8)
    changed = ids.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 64
    before, after = model(ids), model(changed)
    assert before.shape == (1, 8, 64)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


def test_feed_forward_is_four_times_as_wide_inside() -> None:
    parameters = dict(FeedForward(BOOK_TINY).named_parameters())
    weights = {name: tuple(p.shape) for name, p in parameters.items() if "weight" in name}
    assert weights == {"layers.0.weight": (64, 16), "layers.2.weight": (16, 64)}


# --- writing ---


class CountsUp(nn.Module):
    """Likeliest is always the last id it sees plus how many it sees."""

    def forward(self, ids: Tensor) -> Tensor:
        return F.one_hot((ids + ids.shape[1]) % 64, 64).float()


def test_greedy_text_by_hand() -> None:
    # Three positions are seen at most: 1, 2 → 2 + 2 = 4 → 4 + 3 = 7 → 7 + 3 = 10.
    idx = torch.tensor([[1, 2], [50, 60]])
    written = generate_text_simple(CountsUp(), idx, max_new_tokens=3, context_size=3)
    assert written.tolist() == [[1, 2, 4, 7, 10], [50, 60, 62, 1, 4]]


def test_a_sample_is_one_line_of_fifty_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    model = GPTModel(BOOK_TINY)
    generate_and_print_sample(model, WordsOfTwo(), "cpu", "abcd")
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert len(out.split()) == 2 + 50
    assert model.training


# --- data ---


def test_windows_by_hand() -> None:
    # "abcdefghijklmnopqrstuv" is 11 words of two: 0 … 10.
    windows = GPTDatasetV1("abcdefghijklmnopqrstuv", WordsOfTwo(), max_length=4, stride=2)
    assert [(x.tolist(), y.tolist()) for x, y in (windows[n] for n in range(len(windows)))] == [
        ([0, 1, 2, 3], [1, 2, 3, 4]),
        ([2, 3, 4, 5], [3, 4, 5, 6]),
        ([4, 5, 6, 7], [5, 6, 7, 8]),
        ([6, 7, 8, 9], [7, 8, 9, 10]),
    ]
    apart = GPTDatasetV1("abcdefghijklmnopqrstuv", WordsOfTwo(), max_length=5, stride=5)
    assert [x.tolist() for x, _ in (apart[n] for n in range(len(apart)))] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
    ]
    # A window needs a token behind it: ten tokens make one window of nine, and of ten none.
    assert [
        len(GPTDatasetV1("abcdefghijklmnopqrst", WordsOfTwo(), max_length=length, stride=length))
        for length in (9, 10)
    ] == [1, 0]


def test_the_story_makes_the_batches_of_the_appendix(
    gpt2_vocabulary: Path, verdict_file: Path
) -> None:
    text = verdict_file.read_text(encoding="utf-8")
    split = int(0.9 * len(text))
    common: dict[str, Any] = {"batch_size": 2, "max_length": 256, "stride": 256}
    train = create_dataloader_v1(text[:split], drop_last=True, shuffle=True, **common)
    val = create_dataloader_v1(text[split:], drop_last=False, shuffle=False, **common)
    assert (len(train), len(val)) == (9, 1)  # 27 is a fifth of 15 epochs of 9
    for x, y in [*train, *val]:
        assert x.shape == y.shape == (2, 256)
        assert torch.equal(x[:, 1:], y[:, :-1])
    orders = [[int(x[0, 0]) for x, _ in train] for _ in range(2)]
    assert orders[0] != orders[1]


def test_text_and_ids_are_batches_of_one(gpt2_vocabulary: Path) -> None:
    import tiktoken

    tokenizer = tiktoken.get_encoding("gpt2")
    ids = text_to_token_ids("Every effort moves you<|endoftext|>", tokenizer)
    assert ids.tolist() == [[6109, 3626, 6100, 345, 50256]]
    assert token_ids_to_text(ids, tokenizer) == "Every effort moves you<|endoftext|>"


# --- losses ---


def test_the_loss_of_a_batch_is_the_mean_over_its_tokens() -> None:
    model = shaken(GPTModel(BOOK_TINY)).eval()
    x, y = random_ids(3, 8), random_ids(3, 8, seed=1)
    logits = model(x).detach().double()
    by_hand = [
        torch.logsumexp(logits[b, t], 0) - logits[b, t, y[b, t]] for b in range(3) for t in range(8)
    ]
    loss = calc_loss_batch(x, y, model, "cpu")
    assert loss.item() == pytest.approx(float(sum(by_hand)) / 24, rel=1e-5)


def test_the_loss_of_a_loader_is_the_mean_of_its_first_batches() -> None:
    model = GPTModel(BOOK_TINY).eval()
    batches = book_batches(4)
    each = [calc_loss_batch(x, y, model, "cpu").item() for x, y in batches]
    for number, count in ((1, 1), (3, 3), (None, 4), (9, 4)):
        loss = calc_loss_loader(batches, model, "cpu", num_batches=number)
        assert loss == pytest.approx(sum(each[:count]) / count, rel=1e-6)
    assert math.isnan(calc_loss_loader([], model, "cpu"))


def test_evaluating_is_without_dropout_and_leaves_the_model_training() -> None:
    model = GPTModel(BOOK_TINY | {"drop_rate": 0.5})
    batches = book_batches(2)
    one, other = (evaluate_model(model, batches, batches[1:], "cpu", 1) for _ in range(2))
    assert one == other
    assert model.training
    model.eval()
    assert one == tuple(calc_loss_batch(*batch, model, "cpu").item() for batch in batches)


def test_the_highest_gradient_is_the_largest_entry_of_all() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert find_highest_gradient(model) is None
    model[0].weight.grad = torch.tensor([[1.0, -7.0], [2.0, 0.0]])
    model[1].bias.grad = torch.tensor([3.0, -1.0])
    assert find_highest_gradient(model) == torch.tensor(3.0)


# --- loops ---


def sgd(model: nn.Module, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def test_the_learning_rates_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    model = GPTModel(BOOK_TINY)
    train_losses, val_losses, tokens_seen, lrs = train_model(
        model, book_batches(4), book_batches(1), sgd(model, 1e-2), "cpu",
        n_epochs=3, eval_freq=5, eval_iter=1, start_context="ab", tokenizer=WordsOfTwo(),
        warmup_steps=3, initial_lr=1e-3, min_lr=1e-4,
    )  # fmt: skip
    # Warmup in thirds from 0.001 to 0.01; then cosines of 0°, 20°, 40° … 160° between 0.01 and
    # 0.0001: at 60° and 120° three quarters and a quarter of the way up.
    assert lrs[:4] == pytest.approx([0.001, 0.004, 0.007, 0.01], rel=1e-12)
    assert lrs[6] == pytest.approx(0.007525, rel=1e-12)
    assert lrs[9] == pytest.approx(0.002575, rel=1e-12)
    assert lrs[11] == pytest.approx(0.0001 + 0.0099 * 0.5 * (1 - 0.9396926207859084), rel=1e-9)
    assert len(lrs) == 12
    # Steps 0, 5 and 10, of 2 · 8 tokens each.
    assert tokens_seen == [16, 96, 176]
    lines = capsys.readouterr().out.splitlines()
    printed = [
        f"Ep {epoch} (Iter {step:06d}): Train loss {train:.3f}, Val loss {val:.3f}"
        for epoch, step, train, val in zip(
            (1, 2, 3), (0, 5, 10), train_losses, val_losses, strict=True
        )
    ]
    assert [line for line in lines if line.startswith("Ep")] == printed
    assert len(lines) == 3 + 3


def plain_updates(
    model: GPTModel, steps: Iterable[tuple[Tensor, Tensor]], lrs: Iterator[float]
) -> None:
    """Gradient descent with nothing else, as one writes it on a blackboard."""
    for x, y in steps:
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        lr = next(lrs)
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.sub_(lr * gradient)


@pytest.mark.usefixtures("capsys")
def test_both_loops_take_the_steps_that_their_rates_say() -> None:
    batches = book_batches(4)
    for warmup in (None, 8):  # 8 of 8: nothing decays and nothing is clipped
        model, plain = (shaken(GPTModel(BOOK_TINY)) for _ in range(2))
        common: dict[str, Any] = {
            "eval_freq": 3, "eval_iter": 1, "start_context": "ab", "tokenizer": WordsOfTwo()
        }  # fmt: skip
        if warmup is None:
            train_model_simple(
                model, batches, batches, sgd(model, 0.05), "cpu", num_epochs=2, **common
            )
            lrs = [0.05] * 8
        else:
            lrs = train_model(
                model, batches, batches, sgd(model, 0.05), "cpu", n_epochs=2,
                warmup_steps=warmup, **common,
            )[3]  # fmt: skip
        plain_updates(plain, [*batches, *batches], iter(lrs))
        for (name, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5, msg=name)


def test_the_plot_has_both_losses_and_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    plot_losses(torch.linspace(0, 15, 3), [16, 96, 176], [3.0, 2.0, 1.0], [3.1, 2.9, 2.8])
    figure = plt.gcf()
    losses, tokens = figure.axes
    assert [np.asarray(line.get_ydata()).tolist() for line in losses.lines] == [
        [3.0, 2.0, 1.0],
        [3.1, 2.9, 2.8],
    ]
    assert tokens.get_xlabel() == "Tokens seen"
    plt.close(figure)

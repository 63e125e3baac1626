import functools
import itertools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import book_comparison, comparison_report
from benchmarks.book_comparison import (
    CONTEXT,
    SEQUENCES,
    BookTokenizer,
    Scored,
    add_bells,
    read_results,
    training_batches,
    validation_batches,
)
from hairpin.book import GPTModel, train_model, train_model_simple
from hairpin.data.batches import IGNORED
from hairpin.data.tokenizers import ByteTokenizer
from helpers import Ring

UPDATES = 20
CONFIG: dict[str, Any] = {
    "vocab_size": 257,
    "context_length": 8,
    "emb_dim": 8,
    "n_heads": 2,
    "n_layers": 1,
    "drop_rate": 0.0,
    "qkv_bias": False,
}
APPENDIX = functools.partial(train_model, warmup_steps=4, initial_lr=1e-5, min_lr=1e-5)


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 257, (count, 2, 9), generator=draw)
    return [(batch[:, :-1], batch[:, 1:]) for batch in ids]


def weights_after(train: Callable[..., object], bells: str = "") -> list[Tensor]:
    """All weights of a tiny model after 20 updates at a peak rate of 0.05."""
    torch.manual_seed(7)
    model = GPTModel(CONFIG)
    with torch.no_grad():
        model.out_head.weight.mul_(20)  # gradients large enough to be clipped
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    if bells:
        add_bells(optimizer, bells.split("+"), UPDATES)
    loader = batches(UPDATES // 2)
    train(model, loader, loader, optimizer, "cpu", 2, 10, 1, "a", BookTokenizer(ByteTokenizer()))
    return [weight.detach() for weight in model.parameters()]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_all_three_bells_on_chapter_5s_loop_are_appendix_ds_bit_by_bit() -> None:
    whole = weights_after(APPENDIX)
    assert equal(weights_after(train_model_simple, "warmup+decay+clip"), whole)
    for bells in ("", "warmup", "decay", "clip", "warmup+decay", "warmup+clip", "decay+clip"):
        assert not equal(weights_after(train_model_simple, bells), whole), bells


def rates(bells: str) -> list[float]:
    """The learning rate of each of 10 updates, two of them warmup, with a peak of 1."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    add_bells(optimizer, bells.split("+"), 10)
    taken = []
    for _ in range(10):
        weight.data.zero_()
        weight.grad = torch.ones(1)
        optimizer.step()
        taken.append(-weight.item())
    return taken


def test_each_bell_by_itself_rings_where_the_appendix_rings_it() -> None:
    # Half a cosine over eight updates: (1 + cos(pi k/8)) / 2.
    falling = [1, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060]
    assert rates("warmup") == pytest.approx([1e-5, 0.500005] + [1] * 8, abs=1e-6)
    assert rates("decay") == pytest.approx([1, 1, *falling], abs=1e-5)
    assert rates("warmup+decay") == pytest.approx([1e-5, 0.500005, *falling], abs=1e-5)
    assert rates("clip") == pytest.approx([1] * 10, abs=1e-5)


def test_clipping_begins_after_the_update_at_the_peak() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    add_bells(optimizer, ["clip"], 10)
    taken = []
    for _ in range(5):
        weight.data.zero_()
        weight.grad = torch.full((1,), 4.0)
        optimizer.step()
        taken.append(-weight.item())
    assert taken == pytest.approx([4, 4, 4, 1, 1], abs=1e-5)


def starts(ring_tokens: int, updates: int, seed: int) -> tuple[list[list[int]], int]:
    """First id of every window of every update, where each id is its own place in the text."""
    ring = Ring(list(range(ring_tokens)))
    loader, epochs = training_batches(ring, updates, seed)
    found = []
    for _ in range(epochs):
        for inputs, targets in loader:
            assert inputs.shape == (SEQUENCES, CONTEXT)
            assert torch.equal(targets, inputs + 1)
            found.append(inputs[:, 0].tolist())
    return found, epochs


def test_training_windows_come_from_all_over_the_text_once_and_in_an_order_of_the_seed() -> None:
    found, epochs = starts(CONTEXT * 1000 + 1, 20, seed=0)
    places = [place for update in found for place in update]
    assert (epochs, len(found)) == (1, 20)
    assert len(set(places)) == len(places) == 20 * SEQUENCES
    assert all(place % CONTEXT == 0 for place in places)
    # Of 160 places drawn from a thousand, some are in each tenth of it (odds of a miss: 1e-6).
    assert {place // (100 * CONTEXT) for place in places} == set(range(10))
    assert starts(CONTEXT * 1000 + 1, 20, seed=0)[0] == found
    assert starts(CONTEXT * 1000 + 1, 20, seed=1)[0] != found


def test_a_text_with_too_few_windows_is_gone_through_more_than_once() -> None:
    found, epochs = starts(CONTEXT * 8 * 3 + 1, 9, seed=0)  # three batches
    assert (epochs, len(found)) == (3, 9)
    passes = [sorted(itertools.chain(*found[first : first + 3])) for first in (0, 3, 6)]
    assert passes == [list(range(0, CONTEXT * 24, CONTEXT))] * 3
    assert found[:3] != found[3:6]
    with pytest.raises(SystemExit, match="not a multiple of the 4 epochs"):
        training_batches(Ring(list(range(CONTEXT * 24 + 1))), 10, 0)


def test_validation_on_the_way_is_spread_over_the_text() -> None:
    windows = book_comparison.EVAL_ITER * SEQUENCES
    loader = validation_batches(Ring(list(range(CONTEXT * windows * 5 + 1))))
    places = [place for inputs, _ in loader for place in inputs[:, 0].tolist()]
    assert places == [index * 5 * CONTEXT for index in range(windows)]


def test_the_score_is_the_sum_over_the_targets_that_count() -> None:
    class Uniform(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return torch.zeros(*ids.shape, 4)

    targets = torch.tensor([[1, 2, IGNORED], [3, IGNORED, IGNORED]])
    total, count = Scored(Uniform())(targets.clamp(min=0), targets)
    assert int(count) == 3
    assert float(total) == pytest.approx(3 * math.log(4))


def test_the_adapter_does_what_the_book_asks_of_tiktoken() -> None:
    tokenizer = BookTokenizer(ByteTokenizer())
    assert tokenizer.encode("Aé", allowed_special={"<|endoftext|>"}) == [65, 195, 169]
    assert tokenizer.decode([65, 195, 169]) == "Aé"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["book_comparison", *arguments])
    book_comparison.main()


def test_an_interrupted_grid_goes_on_and_gives_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = CONFIG | {"context_length": CONTEXT}
    del small["vocab_size"]
    monkeypatch.setattr(book_comparison, "CONFIG", small)
    monkeypatch.setattr(book_comparison, "VOCABULARY", 300)
    monkeypatch.setattr(book_comparison, "VALIDATION_TOKENS", 2 * CONTEXT)
    path = tmp_path / "rows.jsonl"
    asked = ["--texts", "python-docs", "--lrs", "1e-2", "3e-2", "--updates", "10"]
    asked += ["--seeds", "1", "--results", str(path)]
    run(monkeypatch, *asked)
    whole = path.read_bytes()
    rows = [json.loads(line) for line in whole.splitlines()]
    assert [(row["peak_lr"], row["arm"]) for row in rows] == [
        (lr, arm) for lr in (0.01, 0.03) for arm in ("simple", "appendix")
    ]
    assert all(4 < row["val_loss"] < 7 and row["val_tokens"] == 2 * CONTEXT for row in rows)
    path.write_bytes(whole[:-40])
    run(monkeypatch, *asked)
    assert path.read_bytes() == whole
    run(monkeypatch, *asked)
    assert path.read_bytes() == whole

    # Other arms of a seed begin with the same weights and see the same data.
    run(monkeypatch, *asked, "--arms", "warmup+decay+clip", "--lrs", "1e-2")
    parts = json.loads(path.read_bytes().splitlines()[-1])
    assert parts == rows[1] | {"arm": "warmup+decay+clip"}

    capsys.readouterr()
    run(monkeypatch, "--updates", "10", "--results", str(path), "--report", str(tmp_path))
    assert "| 1e-2 | **" in capsys.readouterr().out
    assert (tmp_path / "comparison-lr.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "comparison-curves.png").exists()
    assert not (tmp_path / "comparison-parts.png").exists()


@pytest.mark.parametrize("arguments", [["--arms", "wramup"], ["--updates", "9"], ["--texts", "x"]])
def test_what_cannot_be_run_is_refused_before_anything_is(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments)
    assert stopped.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def row(arm: str, lr: float, seed: int, loss: float | None) -> dict[str, Any]:
    """A row with half as many bits per byte as nats per token."""
    final = {"val_loss": loss, "bits_per_byte": loss and loss / 2}
    series = {"steps": [1, 2], "train_losses": [8.0, loss], "val_losses": [8.0, loss]}
    return {"text": "t", "arm": arm, "peak_lr": lr, "seed": seed, "updates": 2, **final, **series}


def test_the_tables_have_medians_ranges_and_differences_of_pairs() -> None:
    simple = [row("simple", 0.001, seed, loss) for seed, loss in enumerate((5.0, 5.2, 5.1))]
    other = [row("appendix", 0.001, seed, loss) for seed, loss in enumerate((4.8, 5.4, 5.0))]
    worse = [row("simple", 0.01, 0, None), row("appendix", 0.01, 0, 4.5)]
    results = comparison_report.Results([*reversed(simple), *other, *worse])
    first, second = comparison_report.grid_table(results, "t")[2:]
    assert first == (
        "| 1e-3 | **5.100** (5.000–5.200) | 2.550 "
        "| **5.000** (4.800–5.400) | 2.500 | −0.200, +0.200, −0.100 |"
    )
    assert "**inf**" in second
    assert comparison_report.differences({0: 2.0}, {1: 1.0}) == ""
    assert (results.best_lr("t", "simple"), results.best_lr("t", "appendix")) == (0.001, 0.01)
    assert "by seed −0.500" in comparison_report.best_line(results, "t")


def test_a_file_that_is_not_there_has_no_results(tmp_path: Path) -> None:
    assert read_results(tmp_path / "none.jsonl") == {}

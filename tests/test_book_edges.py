"""Where the appendix's own code is awkward: hairpin.book keeps it, the product does otherwise.

In each test the book comes first.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hairpin import api
from hairpin.book import GPTModel, find_highest_gradient, train_model
from hairpin.config.settings import Optimizer
from hairpin.errors import ConfigError, CorpusError
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.gradients import Clipper
from hairpin.optim.optimizers import build_optimizer, step_unless
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from hairpin.schedules.curves import cosine
from helpers import (
    BOOK_TINY,
    WordsOfTwo,
    book_batches,
    last_checkpoint,
    of_kind,
    random_ids,
    tensor_bytes,
    text_file,
    tiny,
)

GO = torch.tensor(False)
BATCHES = 4
STEPS = 3 * BATCHES  # three epochs

Book = tuple[list[float], list[float], list[int], list[float]]


@pytest.fixture(autouse=True)
def _quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """Samples and losses that the book prints are shown only where a test fails."""


def book_model() -> GPTModel:
    torch.manual_seed(0)
    return GPTModel(BOOK_TINY)


def adamw(model: nn.Module, lr: float = 0.01) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)


def train_book(
    model: GPTModel,
    optimizer: torch.optim.Optimizer,
    *,
    loader: Any = None,
    warmup_steps: int = 3,
    **changed: Any,
) -> Book:
    """The book's loop over three epochs of four batches."""
    settings: dict[str, Any] = {
        "eval_freq": 100,
        "eval_iter": 1,
        "start_context": "ab",
        "tokenizer": WordsOfTwo(),
        "initial_lr": 1e-4,
        "min_lr": 1e-5,
    }
    loader = book_batches(BATCHES) if loader is None else loader
    return train_model(
        model, loader, book_batches(1, seed=9), optimizer, "cpu", n_epochs=3,
        warmup_steps=warmup_steps, **(settings | changed),
    )  # fmt: skip


@pytest.fixture
def clipped_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices of the steps in which the book's loop clips."""
    steps: list[int] = []
    begun = -1
    real_clip, real_zero = torch.nn.utils.clip_grad_norm_, torch.optim.Optimizer.zero_grad

    def zero(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        nonlocal begun
        begun += 1
        real_zero(self, *args, **kwargs)

    def clip(*args: Any, **kwargs: Any) -> Tensor:
        steps.append(begun)
        return real_clip(*args, **kwargs)

    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", zero)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    return steps


def run_of(folder: Path, name: str = "run", **changed: Any) -> Run:
    return api.train(
        text_file(folder), out=folder / name, settings=tiny(**changed), watcher=Quiet()
    )


def test_no_warmup() -> None:
    model = book_model()
    with pytest.raises(ZeroDivisionError):
        train_book(model, adamw(model), warmup_steps=0)

    curve = cosine(updates=STEPS, warmup=0, peak_lr=0.01, min_lr=1e-5)
    assert (curve(0), curve(STEPS - 1)) == (0.01, 1e-5)
    assert curve.warnings and "no warmup" in curve.warnings[0]


def test_a_warmup_as_long_as_the_run(clipped_steps: list[int]) -> None:
    model = book_model()
    lrs = train_book(model, adamw(model), warmup_steps=STEPS)[3]
    assert lrs == sorted(lrs) and lrs[-1] < 0.01  # never at the peak, never down again
    assert clipped_steps == []

    settings = {"train.updates": STEPS, "schedule.warmup_updates": STEPS, "schedule.peak_lr": 0.01}
    with pytest.raises(ConfigError, match="12 of 12 updates leave 0 for cosine, which needs 2"):
        api.schedule(settings=settings)


def test_the_last_learning_rate() -> None:
    model = book_model()
    lrs = train_book(model, adamw(model))[3]
    # By hand: eight ninths of half a turn, 160°.
    assert lrs[-1] == pytest.approx(1e-5 + 0.00999 * (1 - 0.9396926207859084) / 2, rel=1e-9)
    assert lrs[-1] > 30 * 1e-5

    assert cosine(updates=STEPS, warmup=3, peak_lr=0.01, min_lr=1e-5)(STEPS - 1) == 1e-5


def test_what_is_clipped(clipped_steps: list[int], tmp_path: Path) -> None:
    model = book_model()
    lrs = train_book(model, adamw(model))[3]
    assert lrs[3] == 0.01  # the first step at the peak
    assert clipped_steps == list(range(4, STEPS))

    run = run_of(tmp_path, clip__threshold=0.001)
    updates = of_kind(run.record(), "update")
    assert [event["clipped"] for event in updates] == [True] * 12


def test_the_norm() -> None:
    model = book_model()
    results = train_book(model, adamw(model))
    assert [len(result) for result in results] == [1, 1, 1, STEPS]  # losses, tokens and rates

    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[0.0], [-4.0]])]
    clipped = Clipper("norm", 1.0)(gradients)
    assert (float(clipped.norm), bool(clipped.clipped)) == (5.0, True)


def test_every_update_records_its_norm(tmp_path: Path) -> None:
    updates = of_kind(run_of(tmp_path).record(), "update")
    assert len(updates) == 12
    assert all(event["grad_norm"] > 0 for event in updates)


def test_groups_with_learning_rates_of_their_own() -> None:
    model = book_model()
    embeddings = list(model.tok_emb.parameters())
    rest = [p for p in model.parameters() if all(p is not e for e in embeddings)]
    optimizer = torch.optim.AdamW([{"params": rest, "lr": 0.01}, {"params": embeddings, "lr": 0.1}])
    train_book(model, optimizer)
    assert optimizer.param_groups[0]["lr"] == optimizer.param_groups[1]["lr"]

    # Without decay the first step of Adam is the learning rate, by the sign of the gradient.
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    groups: list[dict[str, Any]] = [
        {"params": weights[:1]},
        {"params": weights[1:2], "lr_scale": 10.0},
        {"params": weights[2:], "lr_scale": 0.0},
    ]
    scaled = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
    for weight in weights:
        weight.grad = torch.full((1,), -3.0)
    step_unless(GO, scaled, 0.01)
    assert [group["lr"] for group in scaled.param_groups] == [0.01, 0.1, 0.0]
    assert [weight.item() for weight in weights] == pytest.approx([0.01, 0.1, 0.0], rel=1e-5)
    step_unless(GO, scaled, 0.5)  # a multiple of the rate as scheduled, not of the last one
    assert [group["lr"] for group in scaled.param_groups] == [0.5, 5.0, 0.0]


def test_the_products_groups_follow_the_schedule_as_it_is() -> None:
    optimizer = build_optimizer(GPT(Shape(64, 8, 1, 2, 16)), Optimizer())
    assert [group["lr_scale"] for group in optimizer.param_groups] == [1.0, 1.0]


def test_negative_gradients() -> None:
    layer = nn.Linear(2, 1)
    layer.weight.grad = torch.tensor([[0.5, -9.0]])
    assert find_highest_gradient(layer) == torch.tensor(0.5)

    assert float(Clipper("off")([layer.weight.grad]).norm) == pytest.approx(math.sqrt(81.25))
    Clipper("value", 1.0)([layer.weight.grad])
    assert layer.weight.grad.tolist() == [[0.5, -1.0]]


def test_a_second_run(tmp_path: Path) -> None:
    model = book_model()
    optimizer = adamw(model)
    first, second = (train_book(model, optimizer)[3] for _ in range(2))
    assert max(first) == 0.01
    assert max(second) == first[-1] < 0.001  # the peak is what the first run ended with

    curve = cosine(updates=STEPS, warmup=3, peak_lr=0.01, initial_lr=1e-4)
    fresh = build_optimizer(GPT(Shape(64, 8, 1, 2, 16)), Optimizer())
    for _ in range(2):
        for update in range(STEPS):
            step_unless(GO, fresh, curve(update))
            assert fresh.param_groups[0]["lr"] == curve(update)
    rates = [
        [event["lr"] for event in of_kind(run_of(tmp_path, name).record(), "update")]
        for name in ("first", "second")
    ]
    assert rates[0] == rates[1]
    assert max(rates[0]) == 0.01


def test_an_optimizer_without_a_learning_rate(tmp_path: Path) -> None:
    model = book_model()
    as_listed = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    assert max(train_book(model, as_listed)[3]) == 1e-3  # PyTorch's default, named nowhere

    run = run_of(tmp_path, schedule__peak_lr=None)
    peak = max(event["lr"] for event in of_kind(run.record(), "update"))
    assert run.config.schedule.peak_lr == peak
    assert f"peak_lr = {peak}" in run.directory.config.read_text(encoding="utf-8")


class Order:
    """A loader that notes which batches training takes."""

    def __init__(self, model: nn.Module) -> None:
        ids = random_ids(8, 9)
        data = TensorDataset(ids[:, :-1], ids[:, 1:])
        self.loader = DataLoader(data, batch_size=2, shuffle=True)
        self.model = model
        self.taken: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for x, y in self.loader:
            if self.model.training:
                self.taken.append(x[:, 0].tolist())
            yield x, y


def test_how_often_it_is_evaluated(tmp_path: Path) -> None:
    orders = []
    for frequency in (1, 100):
        model = book_model()
        order = Order(model)
        torch.manual_seed(123)
        train_book(model, adamw(model), loader=order, eval_freq=frequency)
        orders.append(order.taken)
    assert len(orders[0]) == len(orders[1]) == STEPS
    assert orders[0] != orders[1]  # an evaluation shuffles the training data once more

    weights = [
        tensor_bytes(
            last_checkpoint(run_of(tmp_path, f"every-{every}", evaluate__every_updates=every).path)
        )
        for every in (1, 100)
    ]
    assert weights[0] == weights[1]


def test_less_text_than_a_batch(tmp_path: Path) -> None:
    model = book_model()
    before = [parameter.clone() for parameter in model.parameters()]
    losses, _, tokens, lrs = train_book(model, adamw(model), loader=[])
    assert (losses, tokens, lrs) == ([], [], [])  # three epochs of nothing, and not a word
    assert all(map(torch.equal, before, model.parameters()))

    (tmp_path / "short.txt").write_text("abcdefghij", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"too little .* text: \d+ tokens found, 17 needed"):
        api.train(tmp_path / "short.txt", out=tmp_path / "run", settings=tiny(), watcher=Quiet())


def test_what_decays() -> None:
    model = book_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    optimizer = adamw(model, lr=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # 1 − 0.5 · 0.1, biases and norms too.
    assert all(torch.allclose(p, torch.tensor(0.95)) for p in model.parameters())

    ours = GPT(Shape(64, 8, 2, 2, 16))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    step_unless(GO, build_optimizer(ours, Optimizer(weight_decay=0.1)), 0.5)
    for name, parameter in ours.named_parameters():
        expected = 1.0 if "norm" in name or name.endswith("bias") else 0.95
        assert torch.allclose(parameter, torch.tensor(expected)), name

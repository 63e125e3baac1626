"""Which parameter leads the gradient norm, and how far an update moves the weights."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hairpin
from hairpin.config.settings import Optimizer
from hairpin.machine.numerics import Numerics
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.gradients import Clipper
from hairpin.optim.optimizers import build_optimizer
from hairpin.optim.scaling import LossScale
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from hairpin.training.job import Job
from hairpin.training.ratios import part_of, sample_weights
from hairpin.training.spread import Spread
from hairpin.training.step import Stepper, StepResult
from helpers import (
    Watching,
    a_guard,
    assert_same_history,
    finetune,
    labels_file,
    last_checkpoint,
    lively_model,
    of_kind,
    random_ids,
    tensor_bytes,
    text_file,
    tiny,
    updates_without_times,
    weights_of,
)

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return text_file(tmp_path)


def train(text: Path, out: str, settings: dict[str, Any]) -> Run:
    return hairpin.train(text, out=text.parent / out, settings=settings, watcher=Quiet())


SHAPE = Shape(64, 16, layers=2, heads=2, width=16)


def a_stepper(model: GPT, scaling: LossScale | None = None) -> Stepper:
    return Stepper(
        Spread(model),
        build_optimizer(model, Optimizer()),
        Clipper("norm", 1.0),
        Numerics("cpu"),
        seed=0,
        micro_batch=2,
        guard=a_guard(),
        scaling=scaling,
    )


def gradients_of(model: GPT, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Gradients of the mean loss, by PyTorch's own cross entropy."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    loss = nn.functional.cross_entropy(model.logits(inputs).flatten(0, 1), targets.flatten())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_leader_is_the_parameter_with_the_largest_gradient(frozen: bool, scaled: bool) -> None:
    model = lively_model(SHAPE)
    if frozen:  # names must not be those of parameters that have no gradient
        model.token_embedding.requires_grad_(False)
        model.blocks[0].requires_grad_(False)
    ids = random_ids(4, 17)
    inputs, targets = ids[:, :-1], ids[:, 1:]
    gradients = gradients_of(model, inputs, targets)
    squares = {name: float(g.double().square().sum()) for name, g in gradients.items()}
    leader = max(squares, key=squares.__getitem__)
    stepper = a_stepper(model, LossScale("cpu") if scaled else None)
    numbers = stepper.step((inputs, targets), update=0, position=0, lr=0.1).read()
    assert numbers.leader == leader
    assert numbers.leader_share == pytest.approx(squares[leader] / sum(squares.values()), rel=1e-3)


def test_where_the_norm_is_not_finite_nobody_leads() -> None:
    model = lively_model(SHAPE)
    with torch.no_grad():
        model.get_parameter("final_norm.bias")[0] = torch.nan
    ids = random_ids(4, 17)
    numbers = a_stepper(model).step((ids[:, :-1], ids[:, 1:]), update=0, position=0, lr=0.1).read()
    assert (numbers.leader, numbers.leader_share) == (None, None)


# --- how far an update moves the weights ---


class Named(nn.Module):
    """Parameters under the names of a network's."""

    def __init__(self, **values: Tensor) -> None:
        super().__init__()
        for name, value in values.items():
            self.register_parameter(name, nn.Parameter(value))


def test_the_ratio_is_rms_of_the_change_over_rms_of_the_weights_of_a_part() -> None:
    model = Named(
        attention_one=torch.full((2, 3), 2.0),
        attention_two=torch.full((2,), 4.0),
        token_embedding=torch.zeros(5),
        head=torch.ones(4),
    )
    sample = sample_weights(model)
    with torch.no_grad():
        for name, change in (("attention_one", 0.5), ("attention_two", -1), ("token_embedding", 1)):
            model.get_parameter(name).add_(change)
    # √((6 · 0.25 + 2 · 1) / 8) over √((6 · 4 + 2 · 16) / 8); weights of 0 have no ratio.
    expected = {"attention": (3.5 / 56) ** 0.5, "head": 0.0}
    assert sample.compare(model)() == pytest.approx(expected)


def test_a_large_parameter_is_sampled_in_all_its_columns() -> None:
    columns = torch.arange(1024.0).repeat(1024, 1)
    model = Named(mlp=columns.clone(), frozen=torch.ones(3).requires_grad_(False))
    model.frozen.requires_grad_(False)
    sample = sample_weights(model)
    assert list(sample.entries) == ["mlp"]
    assert 2**14 < sample.entries["mlp"].numel() <= 2**16
    assert len(set(sample.entries["mlp"].tolist())) == 1024
    with torch.no_grad():
        model.get_parameter("mlp").mul_(1.001)
    assert sample.compare(model)()["mlp"] == pytest.approx(0.001, rel=1e-3)


def test_every_parameter_of_a_network_has_its_part() -> None:
    model = GPT(Shape(64, 16, layers=1, heads=2, width=16, tied=False))
    parts = {name: part_of(name) for name, _ in model.named_parameters()}
    assert set(parts.values()) == {"embedding", "position", "attention", "mlp", "norm", "head"}
    assert parts["position_embedding.weight"] == "position"
    assert parts["blocks.0.attention_norm.weight"] == "norm"
    assert parts["blocks.0.attention.output.bias"] == "attention"
    assert part_of("class_head.weight") == "head" and part_of("a.b") == "other"


def test_a_run_has_ratios_of_the_first_update_after_each_evaluation(text: Path) -> None:
    settings = tiny(checkpoint__every_updates=1, guard__on_non_finite="skip")
    run = train(text, "run", settings)
    found = of_kind(run.record(), "ratios")
    assert [event["update"] for event in found] == [0, 4, 8]
    rates = {event["update"]: event["lr"] for event in of_kind(run.record(), "update")}
    assert all(event["lr"] == rates[event["update"]] for event in found)
    # The weights are small enough to be sampled whole: the checkpoints have the same change.
    for event in found[1:]:
        folders = [run.path / "checkpoints" / f"step-{event['update'] + n:08d}" for n in (0, 1)]
        before, after = map(weights_of, folders)
        for part, ratio in event["ratios"].items():
            names = [name for name in before if part_of(name) == part]
            change = sum(float((after[n] - before[n]).double().square().sum()) for n in names)
            weight = sum(float(before[n].double().square().sum()) for n in names)
            assert ratio == pytest.approx((change / weight) ** 0.5, rel=1e-3), part


@pytest.mark.parametrize("recipe", ["gpt2", "modern", "qwen3"])
def test_looking_often_changes_no_weight_by_a_bit(
    text: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    settings = tiny(recipe=recipe, evaluate__every_updates=12)
    seldom = train(text, "seldom", settings)
    often = train(text, "often", settings | {"evaluate.every_updates": 1})
    assert len(of_kind(seldom.record(), "ratios")) == 1
    assert len(of_kind(often.record(), "ratios")) == 12
    without = Job.step

    def never(self: Job) -> StepResult | None:
        self.state.evaluated, kept = -1, self.state.evaluated
        try:
            return without(self)
        finally:
            self.state.evaluated = kept

    monkeypatch.setattr(Job, "step", never)
    none = train(text, "none", settings)
    assert of_kind(none.record(), "ratios") == []
    expected = tensor_bytes(last_checkpoint(none.path))
    for run in (seldom, often):
        assert tensor_bytes(last_checkpoint(run.path)) == expected
        assert updates_without_times(run.record()) == updates_without_times(none.record())


@pytest.mark.parametrize("after", [3, 4])
def test_a_stopped_run_has_the_ratios_of_one_that_was_not(text: Path, after: int) -> None:
    whole = train(text, "whole", tiny())
    with pytest.raises(hairpin.errors.Interrupted):
        hairpin.train(
            text, out=text.parent / "run", settings=tiny(), watcher=Watching(after, signal.SIGINT)
        )
    run = hairpin.resume(text.parent / "run", watcher=Quiet())
    assert_same_history(whole, run)
    assert of_kind(run.record(), "ratios") == of_kind(whole.record(), "ratios")


def test_an_update_that_was_skipped_has_none(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, seen = GPT.forward, [0]

    def spoiled(self: GPT, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, count = forward(self, inputs, targets)
        return (loss * torch.nan if seen[0] == 4 else loss), count

    step = Job.step

    def counting(self: Job) -> StepResult | None:
        seen[0] = self.state.update
        try:
            return step(self)
        finally:
            seen[0] = -1

    monkeypatch.setattr(GPT, "forward", spoiled)
    monkeypatch.setattr(Job, "step", counting)
    run = train(text, "run", tiny(guard__on_non_finite="skip"))
    assert [event["update"] for event in of_kind(run.record(), "skip")] == [4]
    assert [event["update"] for event in of_kind(run.record(), "ratios")] == [0, 8]
    spoilt = of_kind(run.record(), "update")[4]
    assert "leader" not in spoilt and "leader" in of_kind(run.record(), "update")[5]


def test_a_run_with_frozen_weights_has_ratios_of_those_that_train(
    base: Run, tmp_path: Path
) -> None:
    run = hairpin.finetune(
        "classify",
        labels_file(tmp_path),
        start=base.path,
        out=tmp_path / "run",
        settings=finetune(finetune__layers=0),
        watcher=Quiet(),
    )
    found = of_kind(run.record(), "ratios")
    assert [event["update"] for event in found] == [0, 4, 8]
    assert all(set(event["ratios"]) == {"norm", "head"} for event in found)
    leaders = {event["leader"] for event in of_kind(run.record(), "update")}
    assert leaders <= {
        "final_norm.weight",
        "final_norm.bias",
        "class_head.weight",
        "class_head.bias",
    }
    assert of_kind(run.record(), "memorisation") == []


def test_the_end_counts_updates_that_were_completed(text: Path) -> None:
    run = train(text, "run", tiny(train__updates=5))  # the last update has ratios as well
    assert [event["update"] for event in of_kind(run.record(), "ratios")] == [0, 4]
    assert of_kind(run.record(), "end")[-1]["update"] == 5

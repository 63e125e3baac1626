"""Whole fine-tunings, tiny ones: what they learn, and that they are trained by the one loop."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import hairpin
from hairpin.errors import ConfigError, Interrupted, NonFiniteError
from hairpin.model.generate import Sampling
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from helpers import (
    RESPONSES,
    TEMPLATE,
    Watching,
    assert_same_end,
    assert_same_history,
    evaluations,
    finetune,
    labels_file,
    last_checkpoint,
    of_kind,
    some_text,
    tasks_file,
    telling_texts,
    tensor_bytes,
    tiny,
    updates_without_times,
    weights_of,
)

# Everything on that could depend on history: dropout, accumulation, warmup, decay, clipping.
ALL_ON = finetune(
    model__dropout=0.1, clip__threshold=0.5, execution__micro_batch=2, finetune__template=TEMPLATE
)
KINDS = ("classify", "instruct")


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these runs."""
    monkeypatch.setattr(Run, "write_plots", lambda self: [])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of records for each kind."""
    folder = tmp_path_factory.mktemp("records")
    return {"classify": labels_file(folder), "instruct": tasks_file(folder)}


@pytest.fixture
def tune(base: Run, data: dict[str, Path], tmp_path: Path) -> Any:
    """What fine-tunes the small base on the kind's file."""

    def run(kind: str, out: str, settings: dict[str, Any], watcher: Any = None) -> Run:
        return hairpin.finetune(
            kind,
            data[kind],
            start=base.path,
            out=tmp_path / out,
            settings=settings,
            watcher=watcher or Quiet(),
        )

    return run


# --- what is learned ---


def test_a_classifier_tells_texts_that_it_has_not_seen(tune: Any) -> None:
    settings = finetune(train__updates=120, evaluate__every_updates=60)
    run: Run = tune("classify", "run", settings)
    first, *_, last = evaluations(run)
    assert first["val_accuracy"] < 0.7 and first["val_loss"] == pytest.approx(math.log(3), abs=0.3)
    assert last["val_accuracy"] > 0.9 and last["train_accuracy"] > 0.9
    matrix = last["val_confusion"]
    assert [sum(row) for row in matrix] == [10, 10, 10]
    assert sum(matrix[i][i] for i in range(3)) == pytest.approx(30 * last["val_accuracy"])
    assert "val_bits_per_byte" not in last
    # The best weights are measured like the evaluation on the way, now on all that was kept back.
    best = min(evaluations(run), key=lambda event: event["val_loss"])
    measured = run.trained().measure([])
    assert measured.loss == pytest.approx(best["val_loss"], abs=1e-6)
    assert measured.accuracy == best["val_accuracy"] and measured.tokens == 30
    texts = ["the cat sat", "under a hill the boat then", "it saw the moon"]
    found = run.classifier().predict(texts)
    assert [prediction.label for prediction in found] == ["animal", "sea", "sky"]
    (words,) = [line for line in run.summary().lines() if line.startswith("best")]
    assert f"{best['val_accuracy']:.1%} accuracy" in words and "nats per example" in words
    assert "examples/s while training" in "\n".join(run.summary().lines())


def test_a_model_learns_to_answer_instructions_that_it_has_not_seen(
    base: Run, tmp_path: Path
) -> None:
    settings = finetune(
        train__updates=300, evaluate__every_updates=150, finetune__template=TEMPLATE
    )
    run = hairpin.finetune(
        "instruct", tasks_file(tmp_path, 600), start=base.path, out=tmp_path / "run",
        settings=settings, watcher=Quiet(),
    )  # fmt: skip
    first, *_, last = evaluations(run)
    assert last["val_loss"] < 0.5 * first["val_loss"] and last["val_loss"] < 0.2
    trained = run.trained()
    assert trained.follows_instructions
    seen = {text for text, _ in telling_texts(600)}
    unseen = [(text, telling) for text, telling in telling_texts(60, 1) if text not in seen][:20]
    assert len(unseen) == 20

    def is_right(asked: str, telling: str) -> bool:
        # It stops by itself: an end-of-text was learned with the response.
        written = "".join(trained.write(asked, Sampling(temperature=0), tokens=40))
        return written == RESPONSES[telling]

    assert is_right("the cat sat", "cat") and is_right("under the hill a boat", "boat")
    assert sum(is_right(*asked) for asked in unseen) >= 17
    samples = of_kind(run.record(), "sample")
    assert [event["update"] for event in samples] == [0] * 3 + [150] * 3 + [300] * 3
    # What is shown is an instruction that was kept back, without the template around it.
    told = {event["prompt"] for event in samples}
    assert len(told) == 3 and all(": " not in prompt for prompt in told)


def test_a_prompt_of_ones_own_is_put_into_the_template(tune: Any) -> None:
    settings = ALL_ON | {"evaluate.sample_prompt": "the {input} cat", "train.updates": 5}
    watcher = Watching()
    samples = of_kind(tune("instruct", "run", settings, watcher).record(), "sample")
    assert {event["prompt"] for event in samples} == {"the {input} cat\n"} and not watcher.notices
    tune("instruct", "long", settings | {"evaluate.sample_prompt": "the cat " * 9}, watcher)
    (line,) = watcher.notices
    assert line.startswith("evaluate.sample_prompt: the prompt has 7") and "sees 48: its f" in line
    none = tune("instruct", "none", settings | {"evaluate.sample_tokens": 0})
    assert of_kind(none.record(), "sample") == []


# --- the one loop ---


@pytest.mark.parametrize("kind", KINDS)
def test_the_record_of_a_fine_tuning_is_that_of_any_run(tune: Any, kind: str) -> None:
    run: Run = tune(kind, "run", ALL_ON)
    record = run.record()
    assert [event["event"] for event in record][:3] == ["start", "plan", "evaluation"]
    assert record[-1]["status"] == "finished"
    plan = record[1]
    assert (plan["examples"], plan["updates"], plan["warmup"]) == (270, 12, 3)
    assert plan["epochs"] == pytest.approx(12 * 8 / 270)
    assert plan["start"].startswith("best weights, update 60, of ")
    assert plan.get("labels") == (["animal", "sea", "sky"] if kind == "classify" else None)
    updates = of_kind(record, "update")
    assert [event["update"] for event in updates] == list(range(12))
    # Peak 0.01 after 3 updates of warmup from a third of it; the last is a tenth of it.
    lrs = [event["lr"] for event in updates]
    assert lrs[0] == pytest.approx(0.01 / 3, rel=1e-12) and lrs[3] == 0.01
    assert lrs[7] == pytest.approx(0.001 + 0.009 * 0.5, rel=1e-12) and lrs[11] == 0.001
    for event in updates:
        assert event["grad_norm"] > 0
        assert event["clipped"] is (event["grad_norm"] > 0.5)
    if kind == "classify":
        assert all(event["tokens"] == 8 for event in updates)
        assert [e["tokens"] for e in evaluations(run)] == [0, 32, 64, 96]
    assert [event["update"] for event in of_kind(record, "checkpoint")] == [0, 4, 8, 12]
    assert run.config.finetune.examples_per_update == 8
    assert run.config.train.tokens_per_update == 8 * 48


@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_is_as_if_never_stopped(
    tune: Any, tmp_path: Path, kind: str, after: int
) -> None:
    whole = tune(kind, "whole", ALL_ON)
    with pytest.raises(Interrupted):
        tune(kind, "stopped", ALL_ON, Watching(after))
    resumed = hairpin.resume(tmp_path / "stopped", watcher=Quiet())
    assert_same_history(whole, resumed)
    assert len(of_kind(resumed.record(), "resume")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_repeats_from_its_own_config(tune: Any, tmp_path: Path, kind: str) -> None:
    first = tune(kind, "first", ALL_ON)
    torch.manual_seed(999)
    again = hairpin.train(
        config=first.path / "config.toml", out=tmp_path / "again", watcher=Quiet()
    )
    assert again.config == first.config
    assert_same_history(first, again)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluating_more_often_changes_nothing(tune: Any, kind: str) -> None:
    seldom = tune(kind, "seldom", ALL_ON)
    often = tune(kind, "often", ALL_ON | {"evaluate.every_updates": 2})
    assert len(evaluations(often)) == 7
    assert tensor_bytes(last_checkpoint(seldom.path)) == tensor_bytes(last_checkpoint(often.path))
    assert updates_without_times(seldom.record()) == updates_without_times(often.record())


@pytest.mark.parametrize("kind", KINDS)
def test_1_times_8_examples_are_4_times_2(tune: Any, kind: str) -> None:
    plain = finetune(finetune__template=TEMPLATE)
    one, many = (
        tune(kind, f"by{size}", plain | {"execution.micro_batch": size}) for size in (8, 2)
    )
    for left, right in zip(
        of_kind(one.record(), "update"), of_kind(many.record(), "update"), strict=True
    ):
        assert (left["lr"], left["tokens"]) == (right["lr"], right["tokens"])
        assert abs(left["loss"] - right["loss"]) < 1e-5
        assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-4)
    for left, right in zip(evaluations(one), evaluations(many), strict=True):
        assert left["val_loss"] == pytest.approx(right["val_loss"], abs=1e-5)


def test_the_base_may_stay_the_best(tune: Any, base: Run) -> None:
    """Training that only makes it worse leaves the weights it started from as the best."""
    settings = ALL_ON | {"schedule.peak_lr": 5.0, "train.updates": 4, "schedule.warmup_updates": 0}
    run: Run = tune("instruct", "run", settings)
    losses = [event["val_loss"] for event in evaluations(run)]
    assert losses[0] == min(losses)
    trained = run.trained()
    assert trained.weights == "best weights, update 0"
    before = weights_of(base.path / "best")
    assert all(torch.equal(tensor, before[n]) for n, tensor in trained.model.state_dict().items())


# --- what is chosen ---


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_open_is_chosen_and_kept(tune: Any, kind: str) -> None:
    settings = {"execution.device": "cpu", "execution.precision": "float32"}
    run: Run = tune(kind, "run", settings | {"finetune.template": TEMPLATE})
    config = run.config
    # 270 examples five times over, 8 at a time; a peak of a quarter of that for random weights.
    assert config.train.updates == math.ceil(270 * 5 / 8)
    assert config.finetune.examples_per_update == 8
    assert config.schedule.peak_lr == 7.5e-4
    assert config.evaluate.tokens == config.evaluate.train_tokens == 30 * 48
    assert config.data.hash and config.start.hash
    assert config.finetune.labels == (("animal", "sea", "sky") if kind == "classify" else ())


def test_examples_per_update_can_be_changed_in_a_repeat(tune: Any, tmp_path: Path) -> None:
    first = tune("classify", "first", ALL_ON)
    again = hairpin.train(
        config=first.path / "config.toml",
        out=tmp_path / "again",
        settings={"finetune.examples_per_update": 4},
        watcher=Quiet(),
    )
    assert {event["tokens"] for event in of_kind(again.record(), "update")} == {4}
    assert again.config.train.tokens_per_update == 4 * 48


def test_another_file_with_the_settings_of_a_run_has_its_own_labels(
    tune: Any, base: Run, tmp_path: Path
) -> None:
    first = tune("classify", "first", ALL_ON)
    other = tmp_path / "other.csv"
    text = labels_file(tmp_path, 60).read_text(encoding="utf-8")
    other.write_text(text.replace(",sea", ",water"), encoding="utf-8")
    run = hairpin.finetune(
        "classify",
        other,
        config=first.path / "config.toml",
        out=tmp_path / "run",
        watcher=Quiet(),
    )
    assert run.config.finetune.labels == ("animal", "sky", "water")
    assert run.config.data.hash != first.config.data.hash


def test_cut_texts_are_counted(base: Run, tmp_path: Path) -> None:
    file = labels_file(tmp_path, 60)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(f"{'a cat ' * 30},animal\n")
    watcher = Watching()
    hairpin.finetune(
        "classify",
        file,
        start=base.path,
        out=tmp_path / "run",
        settings=finetune(finetune__too_long="keep-end"),
        watcher=watcher,
    )
    assert watcher.notices == [
        "1 of 61 examples were longer than the context and were cut (finetune.too_long = keep-end)"
    ]


@pytest.mark.parametrize("recipe", ["modern", "qwen3"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_modern_run_can_be_a_base(
    tmp_path: Path, data: dict[str, Path], kind: str, recipe: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(some_text(), encoding="utf-8")
    base = hairpin.train(
        text,
        out=text.parent / "modern",
        settings=tiny(
            recipe=recipe, model__context=80, train__tokens_per_update=320, evaluate__tokens=320
        ),
        watcher=Quiet(),
    )
    settings = finetune(finetune__layers=0) if kind == "classify" else finetune()
    run = hairpin.finetune(
        kind, start=base.path, data=data[kind], out=text.parent / kind, settings=settings,
        watcher=Quiet(),
    )  # fmt: skip
    assert run.config.model.architecture == recipe and run.config.optimizer.kind == "adamw"
    before, after = (weights_of(each.path / "best") for each in (base, run))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert ("blocks.0.mlp.expand.weight" in changed) == (kind == "instruct")
    if kind == "instruct":  # a head on so raw a base has little to go by
        losses = [event["val_loss"] for event in of_kind(run.record(), "evaluation")]
        assert min(losses[1:]) < losses[0]


def test_a_run_needs_its_base_no_more_once_it_has_begun(
    tune: Any, base: Run, tmp_path: Path
) -> None:
    shutil.copytree(base.path, tmp_path / "copy")
    whole = tune("classify", "whole", ALL_ON)
    with pytest.raises(Interrupted):
        hairpin.finetune(
            "classify",
            whole.config.data.texts[0],
            start=tmp_path / "copy",
            out=tmp_path / "stopped",
            settings=ALL_ON,
            watcher=Watching(1),
        )
    shutil.rmtree(tmp_path / "copy")
    assert_same_end(whole, hairpin.resume(tmp_path / "stopped", watcher=Quiet()))


def test_a_classifier_can_be_a_base(tune: Any, data: dict[str, Path], tmp_path: Path) -> None:
    """Its own head stays behind: the new labels get a new one."""
    first = tune("classify", "first", ALL_ON)
    again = hairpin.finetune(
        "classify",
        data["classify"],
        start=first.path,
        out=tmp_path / "again",
        settings=ALL_ON | {"train.seed": 6},
        watcher=Quiet(),
    )
    before = weights_of(first.path / "best")
    after = weights_of(again.path / "checkpoints" / "step-00000000")
    assert {n for n in after if not torch.equal(before[n], after[n])} == {"class_head.weight"} | (
        {"class_head.bias"} if before["class_head.bias"].any() else set()
    )
    state = json.loads(
        (again.path / "checkpoints" / "step-00000000" / "state.json").read_text(encoding="utf-8")
    )
    assert state["update"] == state["position"] == 0


# --- what goes wrong on the way ---


def test_a_loss_that_is_not_finite_names_the_records(tune: Any, data: dict[str, Path]) -> None:
    """The weights overflow: the line says on which records."""
    settings = ALL_ON | {"schedule.peak_lr": 10.0, "optimizer.weight_decay": 10.0}
    settings |= {"schedule.kind": "constant", "train.updates": 60, "evaluate.every_updates": 60}
    with pytest.raises(NonFiniteError) as raised:
        tune("instruct", "run", settings)
    (line,) = raised.value.problems
    assert len(re.findall(rf"{re.escape(str(data['instruct']))}:\d+", line)) == 8


def test_a_run_does_not_go_on_with_other_records(base: Run, tmp_path: Path) -> None:
    file = labels_file(tmp_path, 60)
    with pytest.raises(Interrupted):
        hairpin.finetune(
            "classify",
            file,
            start=base.path,
            out=tmp_path / "run",
            settings=ALL_ON,
            watcher=Watching(4),
        )
    before = file.read_text(encoding="utf-8")
    file.write_text(f"{before}one more cat,animal\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"labels\.csv: not the file .*data\.hash"):
        hairpin.resume(tmp_path / "run", watcher=Quiet())
    file.write_text(before, encoding="utf-8")
    assert hairpin.resume(tmp_path / "run", watcher=Quiet()).summary().status == "finished"

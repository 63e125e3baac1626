"""Training that starts from trained weights: `train TEXT --from` a run, or a GPT-2 checkpoint."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import hairpin
from hairpin import api
from hairpin.data.shards import prepare
from hairpin.data.tokenizers import load_tokenizer
from hairpin.errors import ConfigError, Interrupted, RunError
from hairpin.launch.request import Request, requested_config
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from helpers import (
    GPT2_IDS,
    GPT2_SHAPE,
    TINY,
    Hairpin,
    Watching,
    assert_same_history,
    evaluations,
    gpt2_folder,
    gpt2_tensors,
    of_kind,
    some_text,
    tiny,
    weights_of,
)
from test_model import plain_logits

# What a run that starts from another takes of TINY: all but shape and tokenizer.
STARTED = {
    key: value for key, value in TINY.items() if not key.startswith(("model.", "tokenizer."))
} | {"train.tokens_per_update": 96, "evaluate.tokens": 10**6, "evaluate.train_tokens": 96}
FLAGS = [argument for key, value in STARTED.items() for argument in ("--set", f"{key}={value}")]


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these runs."""
    monkeypatch.setattr(Run, "write_plots", lambda self: [])


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Text of another kind than the base was trained on."""
    path = tmp_path / "other.txt"
    path.write_text(some_text(4000, seed=7).upper(), encoding="utf-8")
    return path


def go_on(text: Path, start: Path, out: str = "run", watcher: Any = None, **changes: Any) -> Run:
    settings = STARTED | {key.replace("__", "."): value for key, value in changes.items()}
    return hairpin.train(
        text, start=start, out=text.parent / out, settings=settings, watcher=watcher or Quiet()
    )


def validation_text(run: Run) -> str:
    """The validation half of a run's text."""
    tokenizer = load_tokenizer(run.path / "tokenizer")
    val = prepare(run.config.data, tokenizer).val
    ids = val.read(0, len(val)).tolist()
    assert ids[0] == tokenizer.end_of_text and ids.count(tokenizer.end_of_text) == 1
    return tokenizer.decode(ids[1:])


# --- from a run ---


def test_it_begins_where_the_base_stands_and_gets_better(
    hairpin: Hairpin, base: Run, text: Path
) -> None:
    run = go_on(text, base.path)
    first, *_, last = evaluations(run)
    Path("val.txt").write_text(validation_text(run), encoding="utf-8")
    facts = json.loads(hairpin("evaluate", base.path, "val.txt", "--json").out)
    assert first["val_loss"] == pytest.approx(facts["loss"], abs=1e-6)
    assert first["val_bits_per_byte"] == pytest.approx(facts["bits_per_byte"], abs=1e-6)
    assert last["val_loss"] < first["val_loss"] - 0.5
    facts = json.loads(hairpin("evaluate", run.path, "val.txt", "--json").out)
    assert min(e["val_loss"] for e in evaluations(run)) == pytest.approx(facts["loss"], abs=1e-6)
    before = weights_of(base.path / "best")
    after = weights_of(run.path / "checkpoints" / "step-00000000")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    plan = of_kind(run.record(), "plan")[0]
    assert plan["start"] == f"best weights, update 60, of {base.path}"


def test_shape_and_tokenizer_are_those_of_the_base(base: Run, text: Path) -> None:
    run = go_on(text, base.path)
    theirs, ours = base.config.model, run.config.model
    for name in ("layers", "heads", "width", "context", "bias", "tied"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert run.config.tokenizer == base.config.tokenizer
    folders = [each.path / "tokenizer" for each in (run, base)]
    assert load_tokenizer(folders[0]).hash() == load_tokenizer(folders[1]).hash()
    assert run.config.start.path == str(base.path)
    assert run.config.start.hash


def test_the_last_weights_can_be_asked_for(base: Run, text: Path) -> None:
    run = go_on(text, base.path, start__weights="last", train__updates=6)
    before = weights_of(max((base.path / "checkpoints").iterdir()))
    after = weights_of(run.path / "checkpoints" / "step-00000000")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert of_kind(run.record(), "plan")[0]["start"].startswith("last weights, update 60, of ")


def test_the_peak_is_a_quarter_of_that_for_random_weights(base: Run, text: Path) -> None:
    settings = {key: value for key, value in STARTED.items() if key != "schedule.peak_lr"}
    started = hairpin.train(
        text, start=base.path, out=text.parent / "started", settings=settings, watcher=Quiet()
    )
    fresh = hairpin.train(
        text,
        out=text.parent / "fresh",
        settings=settings
        | {"tokenizer.kind": "bytes", "model.layers": 1, "model.heads": 2, "model.width": 32}
        | {"model.context": 48},
        watcher=Quiet(),
    )
    assert fresh.config.schedule.peak_lr == 3e-3
    assert started.config.schedule.peak_lr == 3e-3 / 4


def test_another_shape_is_refused_with_a_line_for_each(base: Run, text: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        go_on(
            text,
            base.path,
            model__layers=2,
            model__width=64,
            model__context=64,
            train__tokens_per_update=192,
            tokenizer__vocabulary=4096,
        )
    lines = raised.value.problems
    assert [line.split(":")[0] for line in lines] == [
        "model.layers",
        "model.width",
        "model.context",
        "tokenizer.vocabulary",
    ]
    assert "2 was requested" in lines[0] and "has 1" in lines[0]
    with pytest.raises(ConfigError, match=r"model\.size"):
        go_on(text, base.path, model__size="mini")
    assert not (text.parent / "run").exists()


@pytest.mark.parametrize(
    ("override", "ours", "theirs"),
    [
        ("tokenizer.kind=bpe", "bpe", "bytes"),
        ("model.tied=false", "false", "true"),
        ("model.architecture=modern", "modern", "gpt2"),
        ("model.bias=false", "false", "true"),
        ("model.size=nano", "nano", "1 layers, 2 heads, 32 width"),
        ("recipe=modern", "modern", "another network (architecture gpt2, not modern)"),
    ],
)
def test_what_the_base_decides_is_not_overruled_without_a_word(
    hairpin: Hairpin, base: Run, text: Path, override: str, ours: str, theirs: str
) -> None:
    done = hairpin("train", text, "--from", base.path, "--out", "run", "--set", override)
    lines = done.err.splitlines()
    said = [line for line in lines if f"{ours} was requested, but {base.path} has {theirs}" in line]
    assert done.code == 2 and len(said) == 1, done.err
    assert said[0].startswith(f"hairpin: {override.partition('=')[0]}: ")
    assert said[0].endswith(f"(--set {override}, --from {base.path})")
    assert not Path("run").exists()


def test_what_the_base_decides_may_be_said_too(base: Run, text: Path) -> None:
    shape = base.config.model
    settings = {"tokenizer.kind": "bytes", "model.layers": shape.layers, "model.tied": True}
    asked = requested_config(
        Request([text], overrides=["recipe=gpt2"], settings=settings, start=base.path)
    )
    assert asked.tokenizer.kind == "bytes"


def test_the_files_of_a_checkpoint_decide_too(tmp_path: Path, text: Path) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    for key, value in (("tokenizer.kind", "bytes"), ("model.tied", False), ("model.layers", 99)):
        with pytest.raises(
            ConfigError, match=rf"^{re.escape(key)}: .* was requested, but .*gpt2 has"
        ):
            requested_config(Request([text], settings={key: value}, start=folder))
    with pytest.raises(ConfigError, match=r"^recipe: qwen3 was requested"):
        requested_config(Request([text], overrides=["recipe=qwen3"], start=folder))


def test_a_recipe_with_another_network_is_no_way_out(
    hairpin: Hairpin, tmp_path: Path, text: Path
) -> None:
    modern = tmp_path / "modern"
    settings = tiny(recipe="modern", train__updates=6)
    api.train(text, out=modern, settings=settings, watcher=Quiet())
    refusal = hairpin("train", text, "--from", modern, "--recipe", "gpt2").refusal
    assert refusal.startswith(f"recipe: gpt2 was requested, but {modern} has another network")
    refusal = hairpin("train", text, "--from", modern, "--set", "model.dropout=0.1").refusal
    assert "set it to 0" in refusal and "--recipe" not in refusal


def test_a_shorter_context_takes_the_first_positions(base: Run, text: Path) -> None:
    run = go_on(text, base.path, model__context=16)
    before = weights_of(base.path / "best")
    after = weights_of(run.path / "checkpoints" / "step-00000000")
    name = "position_embedding.weight"
    assert before[name].shape == (48, 32) and after[name].shape == (16, 32)
    assert torch.equal(after[name], before[name][:16])
    assert all(torch.equal(before[n], after[n]) for n in before if n != name)
    assert evaluations(run)[-1]["val_loss"] < evaluations(run)[0]["val_loss"]


def test_a_folder_that_is_neither_leaves_nothing(
    hairpin: Hairpin, text: Path, tmp_path: Path
) -> None:
    for name, words in (
        ("gpt2", "no such folder; hairpin downloads no weights"),
        (text.name, "is a file; name its folder"),
        (".", "neither a run nor a model in safetensors"),
    ):
        line = hairpin("train", text, "--from", name, *FLAGS).refusal
        assert words in line
        assert not list(Path("runs").glob("*"))
    with pytest.raises(RunError, match="no such folder"):
        go_on(text, tmp_path / "nowhere")


# --- repeating and resuming ---


def test_a_repeat_is_the_same_and_refuses_other_weights(
    base: Run, text: Path, tmp_path: Path
) -> None:
    shutil.copytree(base.path, tmp_path / "copy")
    first = go_on(text, tmp_path / "copy", model__dropout=0.1)
    config = first.path / "config.toml"
    again = hairpin.train(config=config, out=tmp_path / "again", watcher=Quiet())
    assert again.config == first.config
    assert_same_history(first, again)

    other = go_on(text, base.path, "other", train__updates=6, schedule__peak_lr=0.1)
    shutil.rmtree(tmp_path / "copy")
    shutil.copytree(other.path, tmp_path / "copy")
    with pytest.raises(ConfigError) as raised:
        hairpin.train(config=config, out=tmp_path / "third", watcher=Quiet())
    (line,) = raised.value.problems
    assert str(tmp_path / "copy") in line and "start.hash" in line
    assert not (tmp_path / "third").exists()
    # Named on the command line they are asked for.
    third = hairpin.train(
        config=config, start=tmp_path / "copy", out=tmp_path / "third", watcher=Quiet()
    )
    assert third.config.start.hash != first.config.start.hash


@pytest.mark.parametrize("after", [0, 5])
def test_a_run_goes_on_without_its_base(base: Run, text: Path, tmp_path: Path, after: int) -> None:
    shutil.copytree(base.path, tmp_path / "copy")
    whole = go_on(text, base.path, "whole", model__dropout=0.1)
    with pytest.raises(Interrupted):
        go_on(text, tmp_path / "copy", "stopped", Watching(after), model__dropout=0.1)
    shutil.rmtree(tmp_path / "copy")
    resumed = hairpin.resume(tmp_path / "stopped", watcher=Quiet())
    assert_same_history(whole, resumed)


def test_a_time_budget_sets_the_length_of_a_run_that_goes_on(base: Run, text: Path) -> None:
    open_settings = {
        key: value
        for key, value in STARTED.items()
        if not key.startswith(("train.updates", "schedule.", "evaluate."))
    }
    run = hairpin.train(
        text,
        start=base.path,
        out=text.parent / "run",
        budget="1s",
        settings=open_settings | {"evaluate.sample_tokens": 0},
        watcher=Quiet(),
    )
    assert run.summary().status == "finished"
    assert run.config.schedule.kind == "wsd" and run.config.train.updates
    assert run.summary().updates == run.config.train.updates


# --- from a GPT-2 checkpoint ---


def test_a_gpt2_checkpoint_is_evaluated_as_gpt2_would_be(tmp_path: Path, text: Path) -> None:
    """The loss at update 0 against a GPT-2 written out in plain operations, in float64."""
    text.write_text(some_text(3000), encoding="utf-8")
    folder = gpt2_folder(tmp_path / "gpt2")
    run = go_on(text, folder, train__updates=6, schedule__peak_lr=0.003)
    config = run.config
    assert (config.model.layers, config.model.heads, config.model.width) == (2, 4, 32)
    assert (config.model.context, config.tokenizer.vocabulary) == (12, GPT2_IDS)
    tokenizer = load_tokenizer(run.path / "tokenizer")
    val = prepare(config.data, tokenizer).val
    ids = torch.from_numpy(val.read(0, len(val)))
    doubles = {name: tensor.double() for name, tensor in gpt2_tensors().items()}
    nats, context = 0.0, GPT2_SHAPE.context
    for start in range(0, len(ids) - 1, context):
        window = ids[start : start + context + 1]
        logits = plain_logits(window[:-1], doubles, GPT2_SHAPE.layers, GPT2_SHAPE.heads)
        nats += float(F.cross_entropy(logits, window[1:], reduction="sum"))
    first, *_, last = evaluations(run)
    assert first["val_loss"] == pytest.approx(nats / (len(ids) - 1), rel=1e-5)
    stands_for = len(validation_text(run).encode())
    assert first["val_bits_per_byte"] == pytest.approx(nats / math.log(2) / stands_for, rel=1e-5)
    assert last["val_loss"] < first["val_loss"]
    plan = of_kind(run.record(), "plan")[0]
    assert plan["start"] == f"GPT-2 checkpoint in {folder}"


def test_a_gpt2_checkpoint_can_be_fine_tuned(tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    file = tmp_path / "few.csv"
    file.write_text(
        "text,label\n" + "".join(f"cat {n},a\ndog {n},b\n" for n in range(20)), encoding="utf-8"
    )
    run = hairpin.finetune(
        "classify",
        file,
        start=folder,
        out=tmp_path / "run",
        settings={
            "train.updates": 40,
            "schedule.peak_lr": 3e-3,
            "execution.device": "cpu",
            "execution.precision": "float32",
        },
        watcher=Quiet(),
    )
    assert evaluations(run)[-1]["val_accuracy"] == 1.0
    assert run.classifier().predict(["dog 99"])[0].label == "b"

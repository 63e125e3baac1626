"""Experiments: what is compared, how it is trained, and what is said of it."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.false_differences import share_found
from hairpin.config.load import build_config, validate, with_values
from hairpin.errors import ConfigError, RunError
from hairpin.experiments import api as experiments_api
from hairpin.experiments.arms import RequestedArm, arms_of_factors, arms_of_variations, overridden
from hairpin.experiments.find_lr import Rate, suggest
from hairpin.experiments.prepare_arms import PreparedArms, prepare_arms
from hairpin.experiments.runner import pilot_deviation, runs_of
from hairpin.launch.request import Request
from hairpin.reports.comparison import Comparison, Contrast
from hairpin.reports.conclusions import as_json, conclude, lines_of
from hairpin.reports.outcomes import NATS, Outcome, outcome_of_file
from hairpin.runs.experiment_folder import (
    TUNING_SEEDS,
    Arm,
    Experiment,
    ExperimentDirectory,
    Trial,
)
from hairpin.runs.folder import RunDirectory
from hairpin.runs.watcher import Quiet
from helpers import TINY, Hairpin, text_file

TREE: dict[str, Any] = {
    "recipe": "gpt2",
    "data": {"corpus": "verdict"},
    "train": {"updates": 40, "tokens_per_update": 64},
    "schedule": {"peak_lr": 0.01},
}
SMALL = TINY | {"train.updates": 12, "evaluate.every_updates": 6, "evaluate.tokens": 512}


def an_arm(name: str, **more: Any) -> Arm:
    return Arm(name, {"name": name}, TREE, 0.01, **more)


def write_run(run: RunDirectory, final: float | None, *, updates: int = 40, seed: int = 0) -> None:
    """A run's folder as training leaves it, whose last loss is `final`; None: it diverged."""
    run.path.mkdir(parents=True)
    run.write_config(validate({**TREE, "train": {**TREE["train"], "seed": seed}}))
    events: list[dict[str, Any]] = [{"event": "start", "time": 0.0}]
    events.append(_evaluation(0, 8.0))
    events += [
        {"event": "update", "update": u, "lr": 0.01, "loss": 5.0, "grad_norm": 2.0,
         "clipped": u % 4 == 0, "tokens": 64, "tokens_per_second": 640.0}
        for u in range(updates)
    ]  # fmt: skip
    if final is not None:
        events += [_evaluation(updates // 2, final + 0.5), _evaluation(updates, final)]
    status = "failed" if final is None else "finished"
    events.append({"event": "end", "update": updates, "status": status, "seconds": 4.0})
    lines = (json.dumps(event) + "\n" for event in events)
    run.metrics.write_text("".join(lines), encoding="utf-8")
    state = {"state": "diverged" if final is None else "finished", "peak_bytes": 10**8}
    (run.path / "trial.json").write_text(json.dumps(state), encoding="utf-8")


def _evaluation(update: int, loss: float) -> dict[str, Any]:
    return {"event": "evaluation", "update": update, "tokens": 64 * update, "train_loss": loss,
            "val_loss": loss * math.log(2) * 4, "val_bits_per_byte": loss}  # fmt: skip


def an_experiment(
    folder: Path,
    finals: Mapping[str, Sequence[float | None]],
    tuning: Mapping[str, Mapping[float, Sequence[float | None]]] | None = None,
    **more: Any,
) -> Comparison:
    """What is concluded where the runs of each arm ended so."""
    arms = tuple(more.pop("arms", None) or map(an_arm, finals))
    seeds = tuple(range(max(map(len, finals.values()))))
    scales = (0.5, 1.0, 2.0, 4.0) if tuning else (1.0,)
    experiment = Experiment("compare", "a text", arms, seeds, scales)
    experiment = replace(experiment, **more)
    directory = ExperimentDirectory(folder)
    for arm in arms:
        tried = (tuning or {}).get(arm.name, {})
        for scale, losses in tried.items():
            for seed, loss in zip(TUNING_SEEDS, losses, strict=False):
                write_run(directory.run_of(Trial(arm, scale, seed)), loss, seed=seed)
        best = min(tried, key=lambda s: sum(x or 99 for x in tried[s])) if tried else 1.0
        for seed, loss in enumerate(finals.get(arm.name, ())):
            write_run(directory.run_of(Trial(arm, best, seed)), loss, seed=seed)
    return conclude(experiment, directory)


def only(comparison: Comparison) -> Contrast:
    (contrast,) = comparison.contrasts
    return contrast


def test_a_difference_is_taken_within_seeds(tmp_path: Path) -> None:
    """Seeds differ by 0.3, arms by 0.05 ± 0.01: only pairs can show it."""
    found = only(an_experiment(tmp_path, {"a": [2.0, 2.3, 1.7], "b": [1.95, 2.26, 1.64]}))
    assert found.by_seed == pytest.approx([-0.05, -0.04, -0.06])
    assert found.difference.mean == pytest.approx(-0.05) and found.difference.is_paired
    assert found.difference.half_width == pytest.approx(4.30265 * 0.01 / math.sqrt(3), rel=1e-4)
    assert found.verdict == "better by 0.0500 bits per byte"


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ([2.05, 2.15, 2.25], "worse by 0.0500 bits per byte"),
        (
            [2.001, 2.1012, 2.2008],
            "worse by 0.0010 bits per byte: significant, but too small to matter",
        ),
        (
            [2.002, 2.098, 2.201],
            "no difference shown; a difference of 0.01 bits per byte is ruled out",
        ),
        ([2.2, 1.9, 2.3], "no difference shown"),
    ],
)
def test_a_verdict_in_words(tmp_path: Path, second: list[float], words: str) -> None:
    assert only(an_experiment(tmp_path, {"a": [2.0, 2.1, 2.2], "b": second})).verdict == words


def test_one_seed_shows_nothing(tmp_path: Path) -> None:
    found = only(an_experiment(tmp_path, {"a": [2.0], "b": [1.0]}))
    assert "the seed may explain" in found.verdict


def test_many_arms_are_corrected_for(tmp_path: Path) -> None:
    """Alone b would be shown (p = 0.03); beside three others that show nothing it is not."""
    a = [2.0, 2.1, 2.2]
    b = [2.1, 2.23, 2.27]
    same = {name: [2.0 + d, 2.1 - d, 2.2 + 2 * d] for name, d in (("c", 0.1), ("d", 0.2))}
    alone = only(an_experiment(tmp_path / "alone", {"a": a, "b": b}))
    many = an_experiment(tmp_path / "many", {"a": a, "b": b, **same})
    assert alone.adjusted_p < 0.05 and alone.verdict.startswith("worse")
    assert many.contrasts[0].adjusted_p == pytest.approx(3 * alone.adjusted_p)
    assert many.contrasts[0].verdict == "no difference shown"
    assert any("Holm" in note for note in many.notes)


def test_equal_arms_get_no_verdict(tmp_path: Path) -> None:
    arms = [an_arm("a"), an_arm("b", same_as="a")]
    found = only(an_experiment(tmp_path, {"a": [2.0, 2.1]}, arms=arms))
    assert found.verdict == "identical by construction"


def test_runs_that_diverged_are_told_and_left_out(tmp_path: Path) -> None:
    comparison = an_experiment(tmp_path, {"a": [2.0, 2.1, 2.2], "b": [1.9, None, 2.12]})
    found = only(comparison)
    assert found.by_seed == pytest.approx([-0.1, -0.08]) and found.difference.is_paired
    assert any("b: 1 of 3 runs diverged" in note for note in comparison.notes)
    assert comparison.arms[1].diverged == 1
    text = "\n".join(lines_of(comparison))
    assert "3, 1 diverged" in text


def test_an_arm_of_which_nothing_is_left(tmp_path: Path) -> None:
    found = only(an_experiment(tmp_path, {"a": [2.0, 2.1], "b": [None, None]}))
    assert found.verdict == "every run of b diverged"


def test_a_learning_rate_is_chosen_by_runs_that_the_verdict_does_not_count(tmp_path: Path) -> None:
    tuning: dict[str, dict[float, list[float | None]]] = {
        "a": {0.5: [2.3, 2.2], 1.0: [2.0, 2.1], 2.0: [2.4, 2.2], 4.0: [None, 2.0]},
        "b": {0.5: [2.3, 2.2], 1.0: [2.2, 2.1], 2.0: [2.1, 2.1], 4.0: [1.9, 1.9]},
    }
    comparison = an_experiment(tmp_path, {"a": [2.0, 2.1], "b": [1.9, 1.9]}, tuning)
    a, b = comparison.arms
    assert (a.scale, b.scale) == (1.0, 4.0)
    assert (a.peak_lr, b.peak_lr) == (0.01, 0.04)
    assert a.finals == [2.0, 2.1]
    assert not a.is_at_edge and b.is_at_edge
    assert any(
        "b: its best learning rate, 4e-2, is at the edge" in note for note in comparison.notes
    )


def test_without_tuning_the_first_note_says_so(tmp_path: Path) -> None:
    comparison = an_experiment(tmp_path, {"a": [2.0, 2.1], "b": [1.9, 1.9]})
    assert "not tuned" in comparison.notes[0]
    assert "not tuned" in lines_of(comparison)[1]


def test_effects_by_hand(tmp_path: Path) -> None:
    """2^2: y = 3 − 0.4 A − 0.1 B + 0.2 AB for A, B in {0, 1}. The main effect of A is −0.4 + 0.1
    = −0.3, of B −0.1 + 0.1 = 0, and the interaction half of 0.2.
    """
    arms = [
        Arm(f"{a}{b}", {"A": bool(a), "B": bool(b)}, TREE, 0.01) for a in (0, 1) for b in (0, 1)
    ]
    noise = (0.0, 0.3, -0.2)
    finals = {
        f"{a}{b}": [3 - 0.4 * a - 0.1 * b + 0.2 * a * b + seed for seed in noise]
        for a in (0, 1)
        for b in (0, 1)
    }
    comparison = an_experiment(tmp_path, finals, arms=arms, kind="ablate", factors=("A", "B"))
    effects = {contrast.name: contrast.difference.mean for contrast in comparison.contrasts}
    assert effects == pytest.approx({"A": -0.3, "B": 0.0, "A x B": 0.1})


def test_finished_runs_pair_by_seed(tmp_path: Path) -> None:
    for arm, losses in (("a", [2.0, 2.3]), ("b", [1.9, 2.21])):
        for seed, loss in enumerate(losses):
            write_run(RunDirectory(tmp_path / f"{arm}-{seed}"), loss, seed=seed)
    groups = [[tmp_path / f"{arm}-{seed}" for seed in (0, 1)] for arm in "ab"]
    comparison, folder = experiments_api.compare(runs=groups)
    assert folder is None
    assert only(comparison).by_seed == pytest.approx([-0.1, -0.09])
    assert [result.arm.name for result in comparison.arms] == ["a", "b"]


def test_another_trainers_losses_are_not_paired(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(RunDirectory(tmp_path / f"a-{seed}"), 2.0 + seed, seed=seed)
    csv = tmp_path / "theirs.csv"
    csv.write_text("step,val_bits_per_byte\n10,3.0\n20,2.5\n", encoding="utf-8")
    jsonl = tmp_path / "others.jsonl"
    jsonl.write_text('{"step": 20, "val/bpb": 2.6}\n{"note": 1}\n', encoding="utf-8")
    comparison, _ = experiments_api.compare(
        runs=[[tmp_path / "a-0", tmp_path / "a-1"], [csv, jsonl]]
    )
    found = only(comparison)
    assert not found.difference.is_paired
    assert found.difference.mean == pytest.approx(2.55 - 2.5)
    assert any(note.startswith("not paired") for note in comparison.notes)


def test_finished_runs_of_one_name_are_two(tmp_path: Path) -> None:
    for folder, loss in (("a", 2.0), ("b", 1.5)):
        write_run(RunDirectory(tmp_path / folder / "run"), loss)
    comparison, _ = experiments_api.compare(
        runs=[[tmp_path / "a" / "run"], [tmp_path / "b" / "run"]]
    )
    assert [result.arm.name for result in comparison.arms] == ["a/run", "b/run"]
    assert only(comparison).difference.mean == pytest.approx(-0.5)


NO_NUMBERS = ("nan", "NaN", "inf", "-inf", "diverged", "N/A", "None", "--")


def outcome_of(folder: Path, content: str, name: str = "x.csv") -> Outcome:
    (folder / name).write_text(content, encoding="utf-8")
    return outcome_of_file(folder / name)


@pytest.mark.parametrize("words", NO_NUMBERS)
def test_a_last_row_without_a_number_is_a_lost_run(tmp_path: Path, words: str) -> None:
    for content in (
        f"step,val_loss\n0,5\n10,4\n20,{words}\n",
        f"step,val_loss\n0,5\n10,4\n20,{words}\n30,{words}\n\n",
        f"step,train_loss,val_bits_per_byte\n0,5,5\n10,4,4\n20,9,{words}\n",
        f"step,val_loss,test_loss\n0,5,5\n10,4,4\n20,{words},4\n",  # not another column's loss
    ):
        found = outcome_of(tmp_path, content)
        assert (found.diverged, found.final, found.best) == (True, {}, {}), content
        assert found.curve[0][0] == 0 and len(found.curve) == 2
    comparison, _ = experiments_api.compare(runs=[[tmp_path / "x.csv"], [tmp_path / "x.csv"]])
    assert comparison.arms[0].diverged == 1
    assert any("1 of 1 runs diverged" in note for note in comparison.notes)


def test_a_last_row_that_is_empty_is_lost_unless_it_has_another_loss(tmp_path: Path) -> None:
    assert outcome_of(tmp_path, "step,val_loss\n0,5\n10,4\n20,\n").diverged
    for rest in ("20,9,\n", "20,9,\n30,8,\n"):
        found = outcome_of(tmp_path, f"step,train_loss,val_loss\n0,5,5\n10,4,4\n{rest}")
        assert not found.diverged and found.final == {NATS: 4.0}


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"nan"', '"diverged"', "null", "[]"])
def test_a_last_line_of_json_without_a_number_is_a_lost_run(tmp_path: Path, value: str) -> None:
    lines = f'{{"step": 0, "val_loss": 5}}\n{{"step": 9, "val_loss": {value}}}\n'
    assert outcome_of(tmp_path, lines, "x.jsonl").diverged
    # What is not there was not measured.
    more = lines + '{"step": 10, "val_loss": 3}\n{"step": 11, "loss": 2.5}\n{"runtime": 3}\n'
    found = outcome_of(tmp_path, more, "x.jsonl")
    assert not found.diverged and found.final == {NATS: 3.0}


def test_rows_between_evaluations_are_no_lost_runs(tmp_path: Path) -> None:
    # As Lightning writes them: a row of training, a row of validation.
    found = outcome_of(tmp_path, "step,train_loss,val_loss\n0,5,\n0,,4\n9,4,\n9,,3\n10,2,\n")
    assert not found.diverged and found.final == {NATS: 3.0} == found.best
    # The same short, and a last row of something else.
    found = outcome_of(tmp_path, "step,val_loss,runtime\n0,5,\n9,4,\n9,,61.5\n")
    assert not found.diverged and found.final == {NATS: 4.0}
    found = outcome_of(tmp_path, "step,val_loss,eval_loss\n0,,5\n9,,4\n")
    assert found.final == {NATS: 4.0}
    assert outcome_of(tmp_path, "step,val_loss\n0,nan\n").diverged


def write_kind(folder: Path, kind: str | None, **finetune: Any) -> Path:
    """A finished run of a kind."""
    run = RunDirectory(folder)
    write_run(run, 2.0)
    values = {"finetune.kind": kind, "start.path": "/base", "data.texts": ["/a.csv"]}
    values["data.corpus"] = None
    values |= {f"finetune.{name}": value for name, value in finetune.items()}
    run.write_config(with_values(run.read_config(), values if kind else {}))
    if kind == "classify":  # of labels there are no bytes
        record = run.metrics.read_text(encoding="utf-8")
        record = re.sub(r', "val_bits_per_byte": [^}]*', "", record)
        run.metrics.write_text(record, encoding="utf-8")
    return folder


def test_losses_of_different_things_are_not_compared(tmp_path: Path) -> None:
    text = write_kind(tmp_path / "text", None)
    labels = write_kind(tmp_path / "labels", "classify", labels=["ham", "spam"])
    others = write_kind(tmp_path / "others", "classify", labels=["ham", "eggs", "spam"])
    answers = write_kind(tmp_path / "answers", "instruct")
    both = write_kind(tmp_path / "both", "instruct", mask_prompt=False)
    theirs = tmp_path / "theirs.csv"
    theirs.write_text("step,val_loss\n1,2\n", encoding="utf-8")
    for first, second, words in (
        (labels, text, ["labels ('ham', 'spam')", "predicts text"]),
        (text, answers, ["predicts text", "predicts responses"]),
        (answers, both, ["predicts responses", "predicts instructions and responses"]),
        (labels, others, ["'ham', 'spam'", "'ham', 'eggs', 'spam'"]),
        (theirs, labels, ["text of another trainer", "labels"]),
    ):
        with pytest.raises(RunError) as raised:
            experiments_api.compare(runs=[[first], [second]], out=tmp_path / "out")
        (line,) = raised.value.problems
        assert line.startswith(f"these losses measure different things: {first} predicts ")
        assert f"; {second} predicts " in line and all(word in line for word in words)
        assert not (tmp_path / "out").exists()
        # Nor as runs of one arm.
        with pytest.raises(RunError, match="different things"):
            experiments_api.compare(runs=[[first, second], [first]])
    comparison, _ = experiments_api.compare(runs=[[labels], [labels]])
    assert comparison.unit == "nats per example"
    assert not any("per token" in note for note in comparison.notes)
    for other in (text, answers):  # whose losses may be of either
        assert experiments_api.compare(runs=[[other], [theirs]])[0].unit == NATS


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.csv", "step,loss\n1,2\n"), ("x.jsonl", "{not json\n"), ("x.csv", "")],
)
def test_a_file_without_losses_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=name):
        experiments_api.compare(runs=[[tmp_path / name], [tmp_path / name]])


def test_variations_are_combined() -> None:
    arms = arms_of_variations(["clip.kind=norm,off", "optimizer.beta2=0.9,0.99"], Request())
    assert [arm.name for arm in arms] == [
        "clip.kind=norm, beta2=0.9", "clip.kind=norm, beta2=0.99",
        "clip.kind=off, beta2=0.9", "clip.kind=off, beta2=0.99",
    ]  # fmt: skip
    assert arms[3].config.clip.kind == "off" and arms[3].config.optimizer.beta2 == 0.99


def test_every_combination_of_the_bells() -> None:
    arms, names = arms_of_factors(["warmup", "clip"], [], Request(overrides=("clip.threshold=2",)))
    assert names == ("warmup", "clip")
    assert [arm.name for arm in arms] == ["none", "clip", "warmup", "warmup + clip"]
    nothing, everything = arms[0].config, arms[3].config
    assert (nothing.schedule.warmup_updates, nothing.clip.kind) == (0, "off")
    assert (everything.schedule.warmup_updates, everything.clip.threshold) == (None, 2)


def test_what_cannot_be_compared_is_refused(hairpin: Hairpin, tmp_path: Path) -> None:
    text = text_file(tmp_path)
    assert "nothing to compare" in hairpin("compare", text).refusal
    assert "--vary clip.kind" in hairpin("compare", text, "--vary", "clip.kind").refusal
    assert "two or more" in hairpin("compare", text, "--vary", "clip.kind=off,off").refusal
    assert "--factors bell" in hairpin("ablate", text, "--factors", "bell").refusal
    assert "find-lr" in hairpin("compare", text, "--vary", "schedule.peak_lr=1e-3,2e-3").refusal
    assert "--only-report" in hairpin("compare", "--only-report").refusal
    assert "name at least one run" in hairpin("compare", "--runs", "x", "--against").refusal
    assert "no such run" in hairpin("compare", "--runs", "x", "--against", text).refusal
    assert "no text" in hairpin("find-lr").refusal


def test_what_a_comparison_varies_is_not_said_otherwise(hairpin: Hairpin, tmp_path: Path) -> None:
    text = text_file(tmp_path)
    vary = ["--vary", "train.updates=3,6"]
    assert hairpin("compare", text, *vary, "--updates", 9).refusal == (
        "train.updates: --updates 9 and --vary train.updates=3 disagree; keep one"
    )
    assert hairpin("compare", text, *vary, "--tokens", 900).refusal == (
        "train.updates and train.tokens: they say the same thing in two ways; keep one "
        "(--tokens 900, --vary train.updates=3)"
    )
    assert hairpin("compare", text, *vary, "--equal", "time").refusal == (
        "--vary train.updates and --equal time: arms cannot both differ in length and be made "
        "equal; keep one"
    )
    both = ["--vary", "clip.threshold=1,2", "--set", "clip.threshold=3"]
    assert (
        "clip.threshold=3 and --vary clip.threshold=1 disagree"
        in hairpin("ablate", text, *both).refusal
    )
    done = hairpin("compare", "--runs", "a", "--against", "b", "--size", "nano", "--seeds", 3)
    assert done.refusal.startswith("--size nano, --seeds 3: --runs and --against compare finished")


def prepared_arms(folder: Path, variation: str) -> PreparedArms:
    """Arms of a small network that differ in this."""
    varied = (variation.partition("=")[0], "train.updates")
    settings = {key: value for key, value in SMALL.items() if key not in varied}
    length = {} if "train.tokens_per_update" not in varied else {"train.updates": 12}
    texts = {"data.texts": [str(text_file(folder))]}
    arms = arms_of_variations([variation], Request(settings=settings | length | texts))
    return prepare_arms(arms, None, None, 1, Quiet())


def test_arms_of_other_lengths_are_not_at_equal_tokens(tmp_path: Path) -> None:
    """64 tokens an update."""
    lengths = prepared_arms(tmp_path, "train.updates=6,12")
    assert lengths.equal == ""
    assert lengths.model.endswith("unequal tokens: updates=6 of 384, updates=12 of 768")
    in_tokens = prepared_arms(tmp_path, "train.tokens=640,1280")
    assert in_tokens.model.endswith("unequal tokens: tokens=640 of 640, tokens=1280 of 1,280")
    # A batch twice as large has as many tokens in half the updates.
    batches = prepared_arms(tmp_path, "train.tokens_per_update=64,128")
    assert batches.equal == "tokens"
    updates = [arm.config["train"]["updates"] for arm in batches.arms]
    assert updates[0] == pytest.approx(2 * updates[1], abs=2)


def test_an_experiment_says_what_it_leaves_out() -> None:
    request = Request(overrides=("train.seed=3", "evaluate.sample_tokens=0"))
    assert overridden(request) == [
        "--set train.seed=3: left out: an experiment has seeds of its own, the same for all arms"
    ]


def test_the_parabolas_bottom_by_hand() -> None:
    """Losses 2.1, 2.0, 2.05 at rates 1, 2, 4: the bottom is 1/6 of a step above the middle."""
    rates = [Rate(lr, (loss,), False) for lr, loss in ((1.0, 2.1), (2.0, 2.0), (4.0, 2.05))]
    assert suggest(rates) == pytest.approx(2.0 * 2 ** (1 / 6), rel=0.03)
    rates[2] = Rate(4.0, (), True)
    assert suggest(rates) == 2.0


def test_the_pilots_deviation_by_hand(tmp_path: Path) -> None:
    """Differences 0.1 and 0.3: deviation √0.02."""
    tuning = {"a": {1.0: [2.0, 2.0]}, "b": {1.0: [2.1, 2.3]}}
    comparison = an_experiment(tmp_path, {"a": [], "b": [2.0]}, tuning)
    assert pilot_deviation(comparison.arms) == pytest.approx(math.sqrt(0.02))
    assert runs_of(arms=2, scales=4, seeds=5) == 2 * (8 + 5)


def arguments(folder: Path) -> list[object]:
    """A comparison of seconds, as a command."""
    settings = [f"--set={key}={value}" for key, value in SMALL.items()]
    text = text_file(folder)
    return ["compare", text, *settings, "--vary", "clip.kind=norm,off", "--seeds", "2",
            "--out", folder / "out", "--workers", "2"]  # fmt: skip


@pytest.mark.slow
def test_a_comparison_is_trained_and_told(hairpin: Hairpin, tmp_path: Path) -> None:
    """Tuned, on real workers; every run is whole, and pairs begin with the same weights."""
    done = hairpin(*arguments(tmp_path), "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert [arm["name"] for arm in told["arms"]] == ["clip.kind=norm", "clip.kind=off"]
    (contrast,) = told["contrasts"]
    assert contrast["pairs"] == 2 and contrast["paired"]
    assert "cost:" in done.err and "four times out of five" in done.err
    first = [_first_evaluation(Path(run)) for arm in told["arms"] for run in arm["runs"]]
    assert first[:2] == first[2:] and first[0] != first[1]
    assert len(told["arms"][0]["tuning"]) >= 4
    runs = [path.parent for path in (tmp_path / "out").rglob("trial.json")]
    assert len(runs) >= 2 * (4 * 2 + 2)
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    again = hairpin("compare", "--out", tmp_path / "out", "--only-report", "--json")
    assert json.loads(again.out) == told
    other = hairpin(*arguments(tmp_path), "--equal", "updates")
    assert "it holds another experiment (equal differs)" in other.refusal


def _first_evaluation(run: Path) -> float:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    loss: float = next(line["val_loss"] for line in lines if line["event"] == "evaluation")
    return loss


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_comparison_goes_on(tmp_path: Path, how: signal.Signals, hairpin: Hairpin) -> None:
    """Same results, to the bit, as one that nothing happened to; what was over is kept."""
    command = [str(word) for word in arguments(tmp_path)] + ["--same-lr"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "hairpin", *command],
        env=environment,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    out = tmp_path / "out"
    over_of = "runs/*/*/trial.json"  # not into the runs, where files come and go
    while not list(out.glob(over_of)) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(how)
    process.communicate(timeout=120)
    over = {path: path.stat().st_mtime_ns for path in out.glob(over_of)}
    deadline = time.monotonic() + 60  # of an orphan that is saving
    while time.monotonic() < deadline:
        done = hairpin(*command, "--json")
        if done.code == 0:
            break
        time.sleep(1)
    assert done.code == 0, done.err
    assert {path: path.stat().st_mtime_ns for path in over} == over
    calm = tmp_path / "calm"
    command[command.index(str(out))] = str(calm)
    expected = json.loads(hairpin(*command, "--json").out)
    found = json.loads(done.out)
    assert [arm["finals"] for arm in found["arms"]] == [arm["finals"] for arm in expected["arms"]]


def test_only_the_report_needs_no_torch(tmp_path: Path) -> None:
    an_experiment(tmp_path, {"a": [2.0, 2.1, 2.2], "b": [1.9, 2.01, 2.1]})
    experiment = Experiment("compare", "a text", tuple(map(an_arm, "ab")), (0, 1, 2), (1.0,))
    ExperimentDirectory(tmp_path).write(experiment)
    code = (
        "import sys\nfrom hairpin.cli.main import main\n"
        "try: main(['compare', '--only-report', '--out', sys.argv[1]])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "better by" in done.stdout


def test_a_folder_that_is_no_experiment(hairpin: Hairpin, tmp_path: Path) -> None:
    missing = hairpin("compare", "--out", tmp_path / "none", "--only-report")
    assert "no experiment found" in missing.refusal
    (tmp_path / "experiment.json").write_text("{}", encoding="utf-8")
    damaged = hairpin("compare", "--out", tmp_path, "--only-report")
    assert "not an experiment" in damaged.refusal
    with pytest.raises(ConfigError, match="--same-lr"):
        experiments_api.compare(text_file(tmp_path), vary=["schedule.peak_lr=1e-3,2e-3"])


def test_json_is_strict(tmp_path: Path) -> None:
    comparison = an_experiment(tmp_path, {"a": [2.0], "b": [None]})
    json.dumps(as_json(comparison), allow_nan=False)


def test_experiments_that_compare_nothing_find_something_one_time_in_twenty() -> None:
    """Draws of five seeds from 200 real runs of two arms that only rounding tells apart."""
    path = Path(__file__).parents[1] / "docs" / "false-differences.json"
    finals = json.loads(path.read_text(encoding="utf-8"))
    assert len(finals["A"]) == len(finals["A'"]) == 200
    for is_paired in (True, False):
        share = share_found(finals["A"], finals["A'"], 5, 1000, is_paired=is_paired)
        assert 0.03 <= share <= 0.07
    assert share_found(finals["A"], finals["B"], 5, 1000, is_paired=True) > 0.8


@pytest.mark.slow
def test_a_budget_chooses_size_and_length(tmp_path: Path) -> None:
    """Enough updates to mean something, at once and from the same text prepared before; and a line
    where there is no time for any.
    """
    asked = [
        RequestedArm(
            "a", {}, build_config(flags={"data.texts": [str(text_file(tmp_path, 60_000))]})
        )
    ]
    first = prepare_arms(asked, 6.0, "tokens", 1, Quiet()).arms[0]
    again = prepare_arms(asked, 6.0, "tokens", 1, Quiet()).arms[0]
    for arm in (first, again):
        config = validate(arm.config)
        assert config.train.updates and 20 <= config.train.updates <= 600
        assert config.model.width == 64 and config.schedule.kind == "cosine"
    with pytest.raises(ConfigError, match="more time"):
        prepare_arms(asked, 0.001, "tokens", 1, Quiet())

"""`hairpin plan`: what it foretells, and that training then does the same."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hairpin as package
from hairpin.config.load import build_config, to_tree, with_values
from hairpin.errors import ConfigError, RunError, UserError
from hairpin.model.gpt import GPT
from hairpin.planning.amounts import Amount
from hairpin.planning.choose import fill_length, fill_size
from hairpin.planning.disk import milestones
from hairpin.planning.plan.cluster import ClusterPlan
from hairpin.planning.plan.counts import parse_count, parse_counts
from hairpin.planning.plan.plan import Plan
from hairpin.runs.folder import RunDirectory
from hairpin.runs.watcher import Quiet
from hairpin.training.checks import require_disk
from helpers import TINY_FLAGS, Hairpin, some_text, text_file, tiny

# Left open: the micro-batch, evaluations, checkpoints, precision, the vocabulary.
OPEN: dict[str, Any] = {
    key: value
    for key, value in tiny(tokenizer__kind="bpe").items()
    if key
    not in ("execution.micro_batch", "evaluate.every_updates", "evaluate.tokens", "train.updates")
}


def planned(*texts: Path, **asked: Any) -> Plan:
    found = package.plan(*texts, watcher=Quiet(), **asked)
    assert isinstance(found, Plan)
    return found


def on_paper(**asked: Any) -> ClusterPlan:
    found = package.plan(watcher=Quiet(), **asked)
    assert isinstance(found, ClusterPlan)
    return found


@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize("length", [{"train.updates": 12}, {"train.epochs": 1.5}, {}])
def test_training_then_does_what_was_planned(
    tmp_path: Path, probe: bool, length: dict[str, Any]
) -> None:
    text, settings = text_file(tmp_path, 20_000), {**OPEN, **length}
    plan = planned(text, settings=settings, probe=probe)
    run = package.train(text, out=tmp_path / "run", settings=settings, watcher=Quiet())
    expected, found = to_tree(run.config), to_tree(plan.config)
    if not probe:  # whether to compile is not asked without torch
        assert found["execution"].pop("compile") == "auto"
        assert expected["execution"].pop("compile") == "off"
        # Nor are threads timed, unless the environment says how many there are.
        is_decided = "OMP_NUM_THREADS" in os.environ
        assert found["execution"].pop("threads") == ("all" if is_decided else "auto")
        assert expected["execution"].pop("threads") == "all"
    assert found == expected
    assert plan.config.tokenizer.vocabulary == 303  # so small a text has no more to learn
    assert plan.schedule.updates == run.summary().updates
    weights = run.path / "best" / "model.safetensors"
    assert plan.disk.best == pytest.approx(weights.stat().st_size, rel=0.05)
    (checkpoint, *_) = (run.path / "checkpoints").glob("step-*")
    size = sum(path.stat().st_size for path in checkpoint.iterdir())
    assert plan.disk.checkpoint == pytest.approx(size, rel=0.2)  # headers and config.toml
    evaluations = [event for event in run.record() if event["event"] == "evaluation"]
    checkpoints = [event for event in run.record() if event["event"] == "checkpoint"]
    assert milestones(plan.config)[0] == len(evaluations)
    assert milestones(plan.config)[1] >= len(checkpoints)


@pytest.mark.parametrize("of_sources", [False, True])
def test_tables_and_mixtures_are_planned_as_they_are_trained(
    tmp_path: Path, of_sources: bool
) -> None:
    table = tmp_path / "table.csv"
    rows = "".join(f'{number},"{some_text(300)}"\n' for number in range(20))
    table.write_text(f"id,body\n{rows}", encoding="utf-8")
    settings = tiny(execution__deterministic=True)
    if of_sources:
        settings["data.sources"] = [
            {"name": "a", "texts": [str(text_file(tmp_path))]},
            {"name": "b", "texts": [str(table)], "column": "body"},
        ]
    else:
        settings |= {"data.texts": [str(table)], "data.column": "body"}
    plan = planned(settings=settings, probe=False)
    run = package.train(settings=settings, out=tmp_path / "run", watcher=Quiet())
    assert to_tree(plan.config) == to_tree(run.config)


def test_a_gpu_without_bfloat16_is_planned_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    from hairpin.planning.plan.measurements import Measured, OnPaper

    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: False)
    measured = Measured(None, Quiet(), Path())
    monkeypatch.setattr(measured, "_too_large", lambda config, shape: "not to be timed here")
    config = with_values(build_config(flags=tiny()), {"execution.device": "cuda"})
    config = with_values(config, {"execution.precision": "auto"})
    nothing: Any = None
    measured.time_update(config, nothing)
    assert measured.precisions == ("float32", "float16")
    paper = OnPaper(None, Quiet())  # which cannot ask the card
    paper.time_update(config, nothing)
    assert paper.precisions == ("float32", "bfloat16")


def test_numbers_by_hand(tmp_path: Path) -> None:
    text = text_file(tmp_path, 6000)
    settings = tiny()
    plan = planned(text, settings=settings, probe=False)
    # 257 · 16 + 16 · 16 + 12 · 256 + 13 · 16 + 32 = 7,680.
    assert plan.parameters.total == 7680
    assert plan.parameters.total == sum(p.numel() for p in GPT(plan.shape).parameters())
    # 6 · (12 · 256 + 257 · 16) + 12 · 1 · 16 · 16 = 46,176; 64 tokens an update; 12 updates.
    values: Any = plan.as_json()
    assert values["flops"] == {
        "token": 46_176.0,
        "update": 46_176.0 * 64,
        "run": 46_176.0 * 64 * 12,
    }
    assert values["tokens"]["run"] == 768
    assert values["tokens"]["per_parameter"] == 0.1
    size = len(some_text(6000).encode())
    assert values["text"]["source"] == "counted"
    tokens = values["text"]["train_tokens"] + values["text"]["val_tokens"]
    assert tokens == size + 2  # bytes, and an end-of-text before each side
    assert values["tokens"]["epochs"] == 768 / values["text"]["train_tokens"]
    assert values["disk"]["checkpoint_bytes"] == 12 * 7680
    assert values["disk"]["shards_bytes"] == 2 * tokens
    # Evaluations at 0, 4, 8, 12; a checkpoint at each but the first.
    assert milestones(plan.config) == (4, 3)


# What a program may rely on: names, and what stands under them.
NUMBER = (int, float)
SCHEMA: dict[str, Any] = {
    "model": {"architecture": str, "layers": int, "width": int, "vocabulary": int},
    "parameters": {"total": int, "blocks": int, "token_embedding": int, "head": int},
    "flops": {"token": NUMBER, "update": NUMBER, "run": NUMBER},
    "tokens": {
        "run": int, "per_update": int, "updates": int, "per_parameter": NUMBER, "judgement": str,
        "epochs": NUMBER, "epochs_judgement": str,
    },
    "text": {"name": str, "documents": int, "bytes": int, "train_tokens": int, "source": str},
    "memory": {
        "process_bytes": int, "weights_bytes": int, "gradients_bytes": int, "moments_bytes": int,
        "activations_bytes": int, "logits_bytes": int, "snapshot_bytes": int, "peak_bytes": int,
        "free_bytes": int, "fits": bool, "micro_batch": int, "device": str, "on_paper": bool,
    },
    "time": {
        "per_update_seconds": float, "updates_seconds": float, "evaluations_seconds": float,
        "checkpoints_seconds": float, "starting_seconds": float, "total_seconds": float,
        "evaluation_count": int, "checkpoint_count": int,
    },
    "gpus_on_paper": list,
    "disk": {"checkpoint_bytes": int, "most_bytes": int, "free_bytes": int, "fits": bool},
    "schedule": {"kind": str, "updates": int, "warmup_updates": int, "curve": list},
    "check": {"documents": int, "checked_bytes": int, "problems": list, "repeated_lines": list},
    "warnings": list,
    "config": dict,
}  # fmt: skip


def assert_fits(value: Any, schema: Any, where: str = "") -> None:
    if isinstance(schema, dict):
        assert isinstance(value, dict), where
        for name, below in schema.items():
            assert_fits(value[name], below, f"{where}.{name}")
    else:
        assert isinstance(value, schema), where


def test_json_is_one_object_on_standard_output_and_all_else_is_not(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    done = hairpin("plan", text_file(tmp_path), "--json", *TINY_FLAGS)
    assert done.code == 0
    values = json.loads(done.out)
    assert_fits(values, SCHEMA)
    assert set(values) == set(SCHEMA)
    assert values["schedule"]["curve"][0][0] == 0
    assert values["schedule"]["curve"][-1][0] == 11
    assert {gpu["gpu"] for gpu in values["gpus_on_paper"]} >= {"T4", "H100 SXM"}
    assert "measuring" in done.err
    total = sum(value for key, value in values["memory"].items() if key.endswith("_bytes"))
    memory = values["memory"]
    assert total - memory["peak_bytes"] - memory["free_bytes"] == memory["peak_bytes"]
    assert not (tmp_path / "runs").exists()
    assert not list(tmp_path.glob(".hairpin-plan-*"))


def test_words_have_all_parts(hairpin: Hairpin, tmp_path: Path) -> None:
    done = hairpin("plan", text_file(tmp_path), "--no-probe", *TINY_FLAGS)
    assert done.code == 0
    for words in (
        "Model", "Computing", "PaLM, appendix B", "Hoffmann et al. 2022", "Muennighoff et al. 2023",
        "Memory", "it fits", "not measured (--no-probe)", "on paper", "H200", "Disk",
        "Learning rate, cosine", "Warnings", "12 updates are few",
    ):  # fmt: skip
        assert words in done.out, words
    assert max(map(len, done.out.splitlines())) < 240


def test_without_text_and_probe_torch_is_not_imported(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom hairpin.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as stop:\n    assert stop.code == 0, stop.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    for words in (
        ["plan", "--size", "gpt2", "--tokens", "1B", "--no-probe"],
        ["plan", "--parameters", "7B", "--tokens", "140B", "--gpus", "8,16", "--json"],
        ["plan", str(text_file(tmp_path)), "--no-probe", *TINY_FLAGS],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_a_size_and_tokens_are_enough_without_text() -> None:
    plan = planned(settings={"model.size": "gpt2", "recipe": "gpt2"}, tokens="1B", probe=False)
    assert plan.text is None and plan.check is None and plan.times is None
    assert plan.shape.vocabulary == 32_768
    assert any("assumed: no text given" in line for line in plan.lines())
    assert plan.schedule.updates == -(-(10**9) // 65_536)
    assert plan.amount.tokens == plan.schedule.updates * 65_536
    default = planned(settings={"model.size": "nano", "recipe": "gpt2"}, probe=False)
    assert default.amount.tokens_per_parameter == pytest.approx(20, rel=0.01)


def test_what_does_not_fit_is_not_measured_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from hairpin.planning.plan import costs, measurements

    for module in (measurements, costs):
        monkeypatch.setattr(module, "free_bytes", lambda device: 10**9)
    plan = planned(settings={"model.size": "gpt2-xl", "execution.device": "cpu"}, tokens="1B")
    assert plan.fits is False and plan.times is None
    text = "\n".join(plan.lines())
    assert "it does not fit: about" in text
    assert "speed was not measured" in text


def test_a_budget_is_measured_and_chosen_as_training_would(tmp_path: Path) -> None:
    settings = {key: value for key, value in OPEN.items() if key != "train.updates"}
    plan = planned(text_file(tmp_path), settings=settings, budget="20s", check_text=False)
    assert plan.config.schedule.kind == "wsd"
    assert plan.times and plan.check is None
    # Little text: ten passes, or 600 updates.
    assert plan.schedule.updates == 600
    assert any("passes over the training text" in line for line in plan.lines())


def test_what_says_nothing_is_planned_as_it_would_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three minutes; and without a text the standard library's source."""
    monkeypatch.setattr(
        "hairpin.planning.measure.probe.measure_flops", lambda device, precision: 1.0
    )
    plan = planned(text_file(tmp_path), overrides=["execution.device=cpu"], check_text=False)
    assert plan.config.schedule.kind == "wsd"
    assert plan.config.model.size == "nano"
    with pytest.raises(ConfigError, match="leave out --no-probe"):
        planned(overrides=["model.size=nano"], budget="3m", probe=False)


def test_text_in_parts_is_estimated_near_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hairpin.planning.plan.text._PREPARED_BYTES", 0)
    text = text_file(tmp_path, 60_000)
    settings = {**OPEN, "train.epochs": 2}
    guessed = planned(text, settings=settings, probe=False)
    assert guessed.text and guessed.text.source == "estimated"
    monkeypatch.undo()
    counted = planned(text, settings=settings, probe=False)
    assert counted.text and counted.text.source == "counted"
    assert guessed.text.train_tokens == pytest.approx(counted.text.train_tokens, rel=0.1)
    assert guessed.text.val_tokens == pytest.approx(counted.text.val_tokens, rel=0.2)
    assert guessed.text.preparing_seconds > 0 == counted.text.preparing_seconds


def test_problems_of_the_text_are_in_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(some_text(6000) + "\x1b[1mbold\n", encoding="utf-8")
    plan = planned(path, settings=tiny(), probe=False)
    assert any("control characters" in line for line in plan.lines())
    values: Any = plan.as_json()
    assert values["check"]["oddities"][0]["kind"] == "control"
    silent = planned(path, settings=tiny(), probe=False, check_text=False)
    assert not any("control characters" in line for line in silent.lines())


@pytest.mark.parametrize(
    ("tokens", "parameters", "train", "words", "epochs_words"),
    [
        (20, 1, 20, "near the best use", "no text is repeated"),
        (21, 1, 20.5, "near the best use", "hardly any text is repeated"),
        (4, 1, 1, "far too few", "nearly as good as new"),
        (8, 1, 1, "fewer than is best", "each one teaches less"),
        (100, 1, 5, "more than is best", "hardly anything is learned"),
    ],
)
def test_what_amounts_mean(
    tokens: int, parameters: int, train: Any, words: str, epochs_words: str
) -> None:
    amount = Amount(tokens, parameters, train)
    assert words in amount.judgement()
    assert epochs_words in (amount.epochs_judgement() or "")
    assert Amount(1, 1, None).epochs_judgement() is None


def test_warnings(tmp_path: Path) -> None:
    settings = tiny(train__updates=400, train__tokens_per_update=8192, schedule__warmup_updates=200)
    said = "\n".join(planned(text_file(tmp_path), settings=settings, probe=False).lines())
    for words in ("warmup is 50.00% of the run", "an update takes 8,192 tokens", "passes over"):
        assert words in said


def test_a_disk_that_is_too_small_is_said(
    hairpin: Hairpin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a plan, and by training before it begins, with the same figures."""
    full = SimpleNamespace(disk_usage=lambda folder: SimpleNamespace(free=10))
    monkeypatch.setattr("hairpin.planning.plan.costs.shutil", full)
    said = "\n".join(planned(text_file(tmp_path), settings=tiny(), probe=False).lines())
    # 7,680 weights of 4 bytes and their two moments: three checkpoints, a fifth more for the one
    # that is being written, and the best weights.
    needs = "the disk is too small: up to 418 kB are needed and 10 bytes are free"
    assert needs in said
    monkeypatch.setattr("hairpin.training.checks.shutil", full)
    flags = [*TINY_FLAGS, "--set", "execution.threads=all", "--out", "run"]
    line = hairpin("train", "text.txt", *flags).err.splitlines()[-1]
    assert needs in line and line.endswith("or name another disk with --out")
    assert not Path("run").exists()


@pytest.mark.parametrize(("free", "fits"), [(141_312, True), (141_311, False)])
def test_what_a_run_has_on_the_disk_is_not_needed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    """7,680 weights make a checkpoint of 92,160 bytes. Two are there, and the best weights are a
    second name of one's. What may come beside them is a third, for which there has to be 1.2 times
    its size, and the best weights of another update: 110,592 + 30,720 bytes.
    """
    config = with_values(
        fill_size(
            build_config(flags=tiny(checkpoint__keep=2)),
            seconds_left=None,
            flops_per_second=lambda: 1e9,
            train_bytes=lambda: 10_000,
        ),
        {"tokenizer.vocabulary": 257},
    )
    config = fill_length(config, 5000, None)
    run = RunDirectory(tmp_path)
    for step in (4, 8):
        folder = run.checkpoints / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes(30_720))
        (folder / "optimizer.safetensors").write_bytes(bytes(61_440))
    run.best.mkdir()
    os.link(folder / "model.safetensors", run.best / "model.safetensors")
    usage = SimpleNamespace(disk_usage=lambda folder: SimpleNamespace(free=free))
    monkeypatch.setattr("hairpin.training.checks.shutil", usage)
    if fits:
        require_disk(run, config, is_new=False, restart=False)
        return
    with pytest.raises(RunError, match="up to 141 kB more are needed and 141 kB are free"):
        require_disk(run, config, is_new=False, restart=False)


def test_a_full_disk_does_not_stop_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()

    def fails(path: Path, content: Any) -> None:
        if path.is_relative_to(tmp_path / "runs"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hairpin.planning.measure.timing.write_hashed", fails)
    out = tmp_path / "runs" / "run"
    plan = package.plan(text_file(tmp_path), out=out, settings=tiny(), watcher=Quiet())
    assert "checkpoints" in "\n".join(plan.lines())
    assert not list((tmp_path / "runs").iterdir())


def test_a_cluster_on_paper() -> None:
    plan = on_paper(parameters="7B", tokens="140B", gpus="8,64", gpu="h100")
    text = "\n".join(plan.lines())
    assert "On paper" in text and "What this assumes" in text and "x: more than" in text
    assert [row.gpus for row in plan.rows] == [8, 64]
    values = plan.as_json()
    assert values["on_paper"] is True and values["rows"][0]["ddp_bytes"] > 80e9
    assert len(values["assumptions"]) >= 8
    assert json.loads(json.dumps(values)) == values
    named = on_paper(settings={"model.size": "gpt2-xl", "recipe": "gpt2"}, gpus="1")
    # 20 tokens for each of its 1.56 billion parameters.
    assert named.tokens == 20 * named.parameters
    assert not named.shape_is_picked
    settings = {"model.size": "nano", "train.updates": 50, "train.tokens_per_update": 2048}
    said = on_paper(settings=settings, gpus="1", context=64)
    assert (said.shape.context, said.tokens) == (64, 50 * 2048)


def test_all_that_is_wrong_is_said_at_once(hairpin: Hairpin) -> None:
    done = hairpin(
        "plan", "--tokens", "-5", "--gpu", "H9000", "--gpus", "8,none", "--parameters", "lots",
        "--set", "model.width=7", "--set", "model.heads=2", "--set", "optimizer.kind=sgd",
        "--context", "0",
    )  # fmt: skip
    assert (done.code, done.out) == (2, "")
    lines = done.err.splitlines()
    assert all(line.startswith("hairpin: ") for line in lines)
    for words in (
        "--tokens -5: write a count",
        "--gpu: there is no 'H9000' here; choose one of T4, RTX4090, A100, H100, H200",
        "--gpus none: write a count",
        "--parameters lots: write a count",
        "optimizer.kind",
        "--context 0",
    ):
        assert sum(words in line for line in lines) == 1, words


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"budget": "10m", "probe": False, "settings": {"model.size": "nano"}},
            "leave out",
        ),
        ({"probe": False, "tokens": "1M"}, "the size depends on"),
        ({"gpu": "H100", "settings": {"model.size": "nano"}}, "only with --gpus or --parameters"),
        ({"gpus": "8"}, "the network is unknown"),
        ({"parameters": "7B", "settings": {"model.size": "nano"}}, "chooses the shape"),
        ({"parameters": "7B", "corpus": "stdlib"}, "a plan on paper takes no text"),
        ({"parameters": "1M"}, "the nearest network that is 128 wide"),
        ({"parameters": "7B", "context": 1}, "at least 2"),
        ({"parameters": "7B", "settings": {"model.layers": 3}}, "chooses the shape"),
        (
            {"parameters": "7B", "settings": {"train.updates": 3}},
            "the tokens per update are unknown",
        ),
        ({"gpus": "8", "settings": {"model.size": "nano", "train.epochs": 2.0}}, "has no text"),
        ({"gpus": "8", "tokens": "1B", "overrides": ["train.tokens=3"]}, "disagree"),
        (
            {"gpus": "8", "context": 512, "overrides": ["model.context=64", "model.size=nano"]},
            "disagree",
        ),
        ({"context": 64, "settings": {"model.size": "nano"}}, "--set model.context"),
        ({"settings": {"start.path": "/x"}}, "from random weights"),
        (
            {"probe": False, "settings": {"model.size": "nano", "train.epochs": 2.0}},
            "no text given",
        ),
    ],
)
def test_what_cannot_be_planned_gets_a_line(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        package.plan(watcher=Quiet(), **asked)
    assert len(raised.value.problems) == 1


def test_too_little_text_is_refused_as_training_would(tmp_path: Path) -> None:
    text = text_file(tmp_path, 300)
    settings = tiny(model__context=512, train__tokens_per_update=512)
    lines = []
    for call in (
        lambda: package.plan(text, settings=settings, watcher=Quiet()),
        lambda: package.train(text, settings=settings, out=tmp_path / "r", watcher=Quiet()),
    ):
        with pytest.raises(UserError) as raised:
            call()
        lines.append(raised.value.problems)
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("text", "count"),
    [("7B", 7 * 10**9), ("1.5m", 1_500_000), ("1e3", 1000), ("12,000", 12_000), ("2T", 2 * 10**12)],
)
def test_counts(text: str, count: int) -> None:
    assert parse_count(text, "--tokens") == count


@pytest.mark.parametrize("text", ["", "-1", "0", "0.2", "seven", "1e99", "nan", "7 B B", "∞"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(ConfigError, match="--tokens"):
        parse_count(text, "--tokens")
    with pytest.raises(ConfigError, match="--gpus"):
        parse_counts(f"8,{text}" if text else "8,,9", "--gpus")

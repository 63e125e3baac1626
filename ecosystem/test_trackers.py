"""What TensorBoard, W&B and MLflow have of a run, read back by their own readers."""

import json
import math
import os
import signal
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hairpin
from hairpin.errors import Interrupted
from hairpin.run import Run
from helpers import Watching, last_checkpoint, of_kind, text_file, tiny
from test_incidents import Bad

pytestmark = [
    pytest.mark.usefixtures("no_plots"),
    pytest.mark.filterwarnings("default"),  # the libraries' own
]

TOOLS = ("tensorboard", "wandb", "mlflow")
UPDATE_NAMES = ("loss", "lr", "grad_norm", "tokens_per_second")
Series = dict[str, list[tuple[int, float]]]  # metric → (update, value), in order


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


def in_record(run: Run, *, speeds: bool = True) -> Series:
    """What the tools are to have, from metrics.jsonl alone."""
    series: Series = defaultdict(list)
    for event in of_kind(run.record(), "update"):
        for name in UPDATE_NAMES[: None if speeds else -1]:
            series[f"train/{name}"].append((event["update"], event[name]))
    for event in of_kind(run.record(), "evaluation"):
        series["val/loss"].append((event["update"], event["val_loss"]))
        series["val/bits_per_byte"].append((event["update"], event["val_bits_per_byte"]))
    return dict(series)


def in_tensorboard(run: Path) -> Series:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of an offline file: LevelDB's log format after seven bytes of W&B's own."""
    from wandb.proto import wandb_internal_pb2

    content, position, parts = file.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", content, position)
        if kind == 0:
            return
        parts += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def wandb_files(run: Path) -> list[Path]:
    """The files of a run that W&B was told the end of: a process of its own writes them, which may
    be a moment behind.
    """
    files = sorted((run / "wandb").glob("offline-run-*/*.wandb"))
    end_time = time.monotonic() + 60
    while "exit" not in [r.WhichOneof("record_type") for r in wandb_records(files[-1])]:
        assert time.monotonic() < end_time, f"{files[-1]} has no end"
        time.sleep(0.1)
    return files


def in_wandb(run: Path) -> Series:
    series: Series = defaultdict(list)
    for file in wandb_files(run):
        for record in wandb_records(file):
            if record.WhichOneof("record_type") != "history":
                continue
            row = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            for name, value in row.items():
                if "/" in name and isinstance(value, int | float):
                    series[name].append((row["update"], value))
    return dict(series)


def in_mlflow(run: Run) -> Series:
    client, found = mlflow_run(run)
    return {
        name: [
            (entry.step, entry.value)
            for entry in client.get_metric_history(found.info.run_id, name)
        ]
        for name in found.data.metrics
    }


def mlflow_run(run: Run) -> tuple[Any, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(run.path.parent / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("hairpin")
    assert experiment
    (found,) = client.search_runs([experiment.experiment_id])
    return client, found


def assert_all_have(run: Run, *, speeds: bool = True) -> None:
    expected = in_record(run, speeds=speeds)
    for found in (in_wandb(run.path), in_mlflow(run)):
        assert {name: sorted(found[name]) for name in expected} == expected
    single = in_tensorboard(run.path)  # keeps float32
    for name, entries in expected.items():
        assert [step for step, _ in single[name]] == [step for step, _ in entries], name
        values = [value for _, value in single[name]]
        assert values == [struct.unpack("f", struct.pack("f", value))[0] for _, value in entries]


def train(folder: Path, watcher: Any = None, **settings: Any) -> Run:
    return hairpin.train(
        text_file(folder),
        out=folder / "runs" / "run",
        settings=tiny(**settings),
        track=TOOLS,
        watcher=watcher or Watching(),
    )


def test_the_three_have_the_numbers_of_the_record(tmp_path: Path) -> None:
    watcher = Watching()
    run = train(tmp_path, watcher)
    assert not watcher.notices
    assert_all_have(run)

    best = run.summary().best
    assert best
    client, found = mlflow_run(run)
    assert found.info.run_name == "run" and found.info.status == "FINISHED"
    assert found.data.params["model.width"] == "16" and found.data.params["train.updates"] == "12"
    assert found.data.metrics["summary/best_val_loss"] == best.val_loss
    assert [e.value for e in client.get_metric_history(found.info.run_id, "tokens")] == [
        64 * (n + 1) for n in range(12)
    ]
    samples = [artifact.path for artifact in client.list_artifacts(found.info.run_id, "samples")]
    assert samples == [f"samples/{update:08d}.txt" for update in (0, 4, 8, 12)]


def test_wandb_has_config_summary_and_two_axes(tmp_path: Path) -> None:
    run = train(tmp_path)
    (file,) = wandb_files(run.path)
    records = list(wandb_records(file))
    (begun,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert (begun.project, begun.display_name) == ("hairpin", "run")
    config = {item.key: json.loads(item.value_json) for item in begun.config.update}
    assert config["model.width"] == 16
    summary: dict[str, Any] = {}
    for record in records:
        if record.WhichOneof("record_type") == "summary":
            for item in record.summary.update:
                summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    best = run.summary().best
    assert best and summary["summary/best_val_loss"] == best.val_loss
    rows = [r.history for r in records if r.WhichOneof("record_type") == "history"]
    axes = [{i.key or i.nested_key[0]: i.value_json for i in row.item} for row in rows]
    assert all("update" in row and "tokens" in row for row in axes)
    assert [int(row["tokens"]) for row in axes if "train/loss" in row] == [
        64 * (n + 1) for n in range(12)
    ]


def test_tensorboard_has_config_and_samples(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tmp_path)
    found = EventAccumulator(str(run.path / "tensorboard"))
    found.Reload()
    texts = [
        (event.step, event.tensor_proto.string_val[0].decode())
        for event in found.Tensors("sample/text_summary")
    ]
    sample = of_kind(run.record(), "sample")[-1]
    assert [step for step, _ in texts] == [0, 4, 8, 12]
    assert texts[-1][1].startswith("    " + sample["prompt"].splitlines()[0])
    assert "_hparams_/experiment" in found.summary_metadata


def test_resumed_after_a_stop(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, Watching(stop_after_update=5))
    watcher = Watching()
    run = hairpin.resume(tmp_path / "runs" / "run", watcher=watcher)
    assert_all_have(run)
    files = wandb_files(run.path)
    assert len({file.stem for file in files}) == 1, "one run in W&B"
    identity = files[0].stem.removeprefix("run-")
    (line,) = watcher.notices
    assert line.endswith(f"wandb sync {run.path / 'wandb'}/offline-run-*-{identity}")
    goes_on = [
        record.run.resume
        for file in files
        for record in wandb_records(file)
        if record.WhichOneof("record_type") == "run"
    ]
    assert goes_on == [False, True]  # what `wandb sync` appends by
    _, found = mlflow_run(run)
    assert found.info.status == "FINISHED"


def test_resumed_from_long_before_nothing_is_there_twice(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, Watching(stop_after_update=9))
    path = tmp_path / "runs" / "run"
    while last_checkpoint(path).name > "step-00000004":
        last_checkpoint(path).rename(path / f"away-{last_checkpoint(path).name}")
    run = hairpin.resume(path, watcher=Watching())
    assert list(path.glob("metrics.discarded-*"))
    # W&B and MLflow keep how fast the updates were the first time.
    assert_all_have(run, speeds=False)


def test_killed_in_the_middle_and_resumed(tmp_path: Path) -> None:
    program = (
        "import hairpin, sys; from pathlib import Path; from helpers import tiny, text_file\n"
        "hairpin.train(text_file(Path(sys.argv[1])), out=Path(sys.argv[1], 'runs/run'),"
        " settings=tiny(train__updates=4000, evaluate__every_updates=200, checkpoint__keep=3),"
        " track=('tensorboard', 'wandb', 'mlflow'), watcher=hairpin.Quiet())"
    )
    helpers = str(Path(__file__).parents[1] / "tests")
    paths = os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths}
    env.pop("WANDB_SERVICE", None)  # else W&B's process is that of these tests, and not killed
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=env)
    path = tmp_path / "runs" / "run"
    end_time = time.monotonic() + 120
    while time.monotonic() < end_time and child.poll() is None:
        if (path / "tracking.json").exists():
            kept = json.loads((path / "tracking.json").read_text(encoding="utf-8"))
            if len(kept) == 3 and min(tool["updates"] for tool in kept.values()) > 400:
                break
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    run = hairpin.load(path)
    done = len(of_kind(run.record(), "update"))
    watcher = Watching(stop_after_update=done + 100)
    with pytest.raises(Interrupted):
        hairpin.resume(path, watcher=watcher)
    assert not [line for line in watcher.notices if "goes on without it" in line]
    expected = in_record(run, speeds=False)
    single = in_tensorboard(path)
    for name, entries in expected.items():
        assert [step for step, _ in single[name]] == [step for step, _ in entries], name
    for found in (in_wandb(path), in_mlflow(run)):
        for name, entries in expected.items():
            steps = [step for step, _ in found[name]]
            assert len(set(steps)) == len(steps), "nothing twice"
            assert set(found[name]) <= set(entries)
            assert len(steps) >= 0.5 * len(entries)


def test_after_a_rewind_nothing_is_there_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bad([41], math.nan).plant(monkeypatch)
    run = train(tmp_path, guard__on_non_finite="rewind")
    assert len(of_kind(run.record(), "rewind")) == 1
    assert_all_have(run)


def test_a_loss_that_is_not_finite_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bad([21], math.nan).plant(monkeypatch)
    run = train(tmp_path, guard__on_non_finite="skip")
    for found in (in_tensorboard(run.path), in_mlflow(run)):
        assert math.isnan(dict(found["train/loss"])[5])
        assert dict(found["train/skipped"]) == {5: 1.0}
    assert not math.isfinite(dict(in_wandb(run.path)["train/loss"])[5])

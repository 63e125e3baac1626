"""Trackers beside the record: what they are told, and that none of them can harm a run."""

import csv
import json
import math
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

import hairpin
from hairpin.config.load import build_config, to_tree
from hairpin.errors import ConfigError, HairpinError, Interrupted, PluginError, UserError
from hairpin.experiments.worker import train_trial
from hairpin.plugins import files as plugin_files
from hairpin.plugins import registry as plugins
from hairpin.reports.trackers import thread, tools
from hairpin.reports.trackers.feed import Kept, Opening, point_of
from hairpin.reports.trackers.mlflow import tracking_uri
from hairpin.reports.trackers.thread import Follower, reason_of
from hairpin.reports.trackers.tracker import Point, Tracked, Tracker, Written
from hairpin.reports.trackers.wandb import WeightsAndBiases, wandb_mode
from hairpin.run import Run
from hairpin.runs import events
from hairpin.runs.lock import RunLock
from helpers import (
    Hairpin,
    Watching,
    assert_same_history,
    last_checkpoint,
    of_kind,
    text_file,
    tiny,
)
from processes import together
from test_incidents import NAN, REWIND, Bad

pytestmark = pytest.mark.usefixtures("no_plots")

SETTINGS = tiny()
Calls = Mapping[str, Callable[[], None]]


@dataclass
class Memory:
    """A tracker that keeps what it is told, and fails where it is asked to."""

    calls: Calls = field(default_factory=dict)
    can_rewind: bool = False
    opened: ClassVar[list[Tracked]] = []
    told: ClassVar[list[Point]] = []
    ends: ClassVar[list[tuple[str, Mapping[str, float]]]] = []

    def _called(self, name: str) -> None:
        if name in self.calls:
            self.calls[name]()

    def open(self, run: Tracked) -> tuple[str, Written]:
        self._called("open")
        self.opened.append(run)
        if not self.can_rewind:
            return run.identity or "this one", run.written or Written()
        written = run.written or Written()
        start = min(run.kept, written.updates, written.others)
        self._purge(start)
        return "this one", Written(start, start)

    def write(self, points: Sequence[Point]) -> None:
        self._called("write")
        self.told.extend(points)

    def rewind(self, update: int) -> None:
        self._called("rewind")
        assert self.can_rewind
        self._purge(update)

    def close(self, status: str, summary: Mapping[str, float]) -> None:
        self._called("close")
        self.ends.append((status, summary))

    def _purge(self, update: int) -> None:
        self.told[:] = [point for point in self.told if point.update < update]


@pytest.fixture(autouse=True)
def memory() -> Iterator[type[Memory]]:
    """A memory in which nothing is yet."""
    for kept in (Memory.opened, Memory.told, Memory.ends):
        kept.clear()
    yield Memory


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a tracker in the place of W&B."""

    def put(make: Callable[[], Any], name: str = "wandb") -> None:
        kind = replace(plugins.TRACKERS[name], make=make, package="json")
        monkeypatch.setitem(plugins.TRACKERS, name, kind)

    return put


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return text_file(tmp_path)


def train(text: Path, out: str, watcher: Any = None, **settings: Any) -> Run:
    return hairpin.train(
        text,
        out=text.parent / out,
        settings=SETTINGS | settings,
        track=["wandb"],
        watcher=watcher or Watching(),
    )


def assert_told_is_the_record(run: Run) -> None:
    """Every update and every evaluation once, in order, with the record's own numbers."""
    record = run.record()
    updates, tokens = of_kind(record, "update"), 0
    told = [point for point in Memory.told if point.kind == "update"]
    assert [point.update for point in told] == [event["update"] for event in updates]
    for point, event in zip(told, updates, strict=True):
        tokens += event["tokens"]
        for name in ("loss", "lr", "grad_norm", "clipped"):
            assert point.values[f"train/{name}"] == event[name]
        assert point.tokens == tokens
    evaluated = [
        (p.update, p.values["val/loss"], p.values["val/bits_per_byte"], p.tokens)
        for p in Memory.told
        if p.kind == "evaluation"
    ]
    assert evaluated == [
        (e["update"], e["val_loss"], e["val_bits_per_byte"], e["tokens"])
        for e in of_kind(record, "evaluation")
    ]
    samples = [(p.update, p.text) for p in Memory.told if p.kind == "sample"]
    assert samples == [(e["update"], e["prompt"] + e["text"]) for e in of_kind(record, "sample")]
    checkpoints = [p.update for p in Memory.told if p.kind == "checkpoint"]
    assert len(set(checkpoints)) == len(checkpoints)  # one that was set aside may be among them
    assert {e["update"] for e in of_kind(record, "checkpoint")} <= set(checkpoints)


def test_a_tracker_is_told_what_the_record_says(text: Path, use: Any) -> None:
    use(Memory)
    run = train(text, "run")
    assert_told_is_the_record(run)
    for event in of_kind(run.record(), "update"):
        (speed,) = [
            p.values["train/tokens_per_second"]
            for p in Memory.told
            if p.kind == "update" and p.update == event["update"]
        ]
        assert speed == event["tokens_per_second"]
    (opened,) = Memory.opened
    assert opened.name == "run" and opened.asked.project == "hairpin"
    assert opened.config["train.updates"] == 12 and opened.config["model.width"] == 16
    assert not any(key.startswith("track.") for key in opened.config)
    ((status, summary),) = Memory.ends
    best = run.summary().best
    assert best and status == "finished"
    assert summary["best_val_loss"] == best.val_loss and summary["updates"] == 12


def test_nothing_follows_where_nothing_is_asked_for(text: Path, use: Any) -> None:
    use(Memory)
    run = hairpin.train(text, out=text.parent / "run", settings=SETTINGS, watcher=Watching())
    assert not Memory.opened and not (run.path / "tracking.json").exists()
    assert "track" not in run.directory.config.read_text(encoding="utf-8")


# --- a tracker that fails ---


def hang() -> None:
    threading.Event().wait()


def fail() -> None:
    raise OSError("no route to the server\nsecond line")


def leave() -> None:
    raise SystemExit(3)


@pytest.mark.parametrize("action", [hang, fail, leave], ids=["hangs", "raises", "exits"])
@pytest.mark.parametrize("method", ["open", "write", "close", "rewind"])
def test_a_tracker_that_fails_changes_nothing_and_is_said_once(
    text: Path,
    use: Any,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    action: Callable[[], None],
) -> None:
    settings = {k: v for k, v in REWIND.items() if SETTINGS.get(k) != v}
    Bad([18], NAN).plant(monkeypatch)  # so that each method is called
    monkeypatch.setattr(thread, "MAX_END_SECONDS", 0.3)
    watcher, alone = Watching(), Watching()
    use(lambda: Memory({method: action}, can_rewind=True))
    run = train(text, "run", watcher, **settings)
    use(lambda: Memory(can_rewind=True))
    assert_same_history(train(text, "alone", alone, **settings), run)
    said = [line for line in watcher.notices if line.startswith("wandb: ")]
    assert len(said) == 1 and said[0].endswith("; the run continues without it")
    assert "second line" not in said[0]
    if action is fail:
        assert said[0].startswith("wandb: OSError: no route to the server; ")
    assert not [line for line in alone.notices if line.startswith("wandb")]
    assert of_kind(run.record(), "end")[-1]["status"] == "finished"


def test_a_call_that_does_not_return_is_noticed_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread, "MAX_CALL_SECONDS", 0.05)
    entered, said = threading.Event(), list[str]()

    def stay() -> None:
        entered.set()
        hang()

    follower = a_follower(tmp_path, lambda: Memory({"open": stay}), said.append)
    assert entered.wait(20)
    deadline = threading.Event()
    while not said:
        follower.tell(an_update(0))
        deadline.wait(0.02)
    follower.tell(an_update(1))
    follower.close()  # at once: nobody waits for it any more
    assert said == ["wandb: a call took more than 0.05 s; the run continues without it"]


def test_a_tracker_that_is_too_far_behind_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread, "MAX_WAITING", 10)
    entered, may_go, said = threading.Event(), threading.Event(), list[str]()

    def stay() -> None:
        entered.set()
        may_go.wait()

    follower = a_follower(tmp_path, lambda: Memory({"open": stay}), said.append)
    assert entered.wait(20)
    for number in range(30):
        follower.tell(an_update(number))
    assert said == ["wandb: it is 10 events behind; the run continues without it"]
    may_go.set()  # it wakes up, and is not called any more
    follower._thread.join(20)
    assert not follower._thread.is_alive() and not Memory.told


def a_follower(folder: Path, make: Callable[[], Any], notice: Callable[[str], None]) -> Follower:
    follower = Follower("wandb", make, Kept(folder), dict, notice)
    asked = build_config().track
    run = Tracked(folder, asked, "run", {}, kept=0, written=None, identity=None)
    follower.tell(Opening(run, [], may_rewind=False))
    return follower


def an_update(index: int) -> events.Update:
    return events.Update(index, 0.1, 1.0, 1.0, False, 64, 1000.0)


def test_an_import_that_fails_is_said_and_the_run_goes_on(text: Path, use: Any) -> None:
    def broken() -> Memory:
        raise ImportError("libfoo.so: cannot open shared object file")

    use(broken)
    watcher = Watching()
    run = train(text, "run", watcher)
    assert run.summary().status == "finished"
    assert watcher.notices.count(
        "wandb: ImportError: libfoo.so: cannot open shared object file; the run continues without "
        "it"
    ) == 1  # fmt: skip


def test_a_damaged_tracking_json_is_no_reason_to_stop(text: Path, use: Any) -> None:
    use(Memory)
    with pytest.raises(Interrupted):
        train(text, "run", Watching(stop_after_update=5))
    (text.parent / "run" / "tracking.json").write_text("{", encoding="utf-8")
    watcher = Watching()
    run = hairpin.resume(text.parent / "run", track=["wandb"], watcher=watcher)
    assert run.summary().status == "finished"
    (line,) = [line for line in watcher.notices if line.startswith("track: ")]
    assert "JSONDecodeError" in line


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_extra_is_a_line_before_anything_begins(
    hairpin: Hairpin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(tools, "find_spec", lambda module: None)
    line = hairpin("train", text_file(tmp_path), "--out", "run", "--track", name).refusal
    assert f"pip install 'hairpin[{name}]'" in line
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_there_is_not_is_refused(hairpin: Hairpin, tmp_path: Path) -> None:
    line = hairpin("train", text_file(tmp_path), "--out", "run", "--track", "neptune").refusal
    assert line.startswith("track.tools: there is no 'neptune'; choose one of") and "mlflow" in line
    line = hairpin("train", text_file(tmp_path), "--out", "run", "--track", "wandbb").refusal
    assert line.startswith("track.tools: there is no 'wandbb', but 'wandb'; ")
    assert not (tmp_path / "run").exists()


def test_a_config_cannot_put_anything_but_a_name_into_a_line() -> None:
    for name in ("W&B", "a\x1b[2Jb", "", "../x", "a\n", "x" * 41):
        with pytest.raises(ConfigError) as raised:
            build_config(flags={"track.tools": [name]})
        (line,) = raised.value.problems
        assert line.startswith(f"track.tools.0: there is no {name!r}; choose one of tensorboard")


def test_a_finished_run_takes_no_tracker_that_there_is_not(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    settings = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    assert hairpin("train", text_file(tmp_path), "--out", "run", *settings).code == 0
    before = (tmp_path / "run" / "config.toml").read_bytes()
    assert "'neptune'" in hairpin("resume", "run", "--track", "neptune").refusal
    assert (tmp_path / "run" / "config.toml").read_bytes() == before


# --- a run that goes on ---


@pytest.mark.parametrize("can_rewind", [False, True])
def test_a_resumed_run_goes_on_in_the_same_run_of_the_tool(
    text: Path, use: Any, can_rewind: bool
) -> None:
    use(lambda: Memory(can_rewind=can_rewind))
    with pytest.raises(Interrupted):
        train(text, "run", Watching(stop_after_update=5))
    run = hairpin.resume(text.parent / "run", track=["wandb"], watcher=Watching())
    assert_told_is_the_record(run)
    first, second = Memory.opened
    assert (first.identity, second.identity) == (None, "this one")
    assert [status for status, _ in Memory.ends] == ["interrupted", "finished"]


@pytest.mark.parametrize("can_rewind", [False, True])
def test_updates_that_a_resume_sets_aside_are_not_told_twice(
    text: Path, use: Any, can_rewind: bool
) -> None:
    use(lambda: Memory(can_rewind=can_rewind))
    with pytest.raises(Interrupted):
        train(text, "run", Watching(stop_after_update=9))
    path = text.parent / "run"
    while last_checkpoint(path).name > "step-00000004":  # as after a kill long before the next one
        last_checkpoint(path).rename(path / f"away-{last_checkpoint(path).name}")
    assert max(point.update for point in Memory.told) > 8
    run = hairpin.resume(path, track=["wandb"], watcher=Watching())
    assert list(path.glob("metrics.discarded-*"))
    assert_told_is_the_record(run)


@pytest.mark.parametrize("can_rewind", [False, True])
def test_updates_that_a_rewind_sets_aside_are_not_told_twice(
    text: Path, use: Any, monkeypatch: pytest.MonkeyPatch, can_rewind: bool
) -> None:
    monkeypatch.setattr("hairpin.reports.trackers.thread._BATCH_SECONDS", 0.0)  # told as it happens
    use(lambda: Memory(can_rewind=can_rewind))
    Bad([41], NAN).plant(monkeypatch)
    run = train(text, "run", **{k: v for k, v in REWIND.items() if SETTINGS.get(k) != v})
    assert len(of_kind(run.record(), "rewind")) == 1
    assert_told_is_the_record(run)
    assert [p.values for p in Memory.told if p.kind == "rewind"] == [{"incident/rewind": 1.0}]


def test_a_tracker_that_comes_later_is_told_what_was_before(text: Path, use: Any) -> None:
    use(Memory)
    with pytest.raises(Interrupted):
        hairpin.train(
            text, out=text.parent / "run", settings=SETTINGS, watcher=Watching(stop_after_update=5)
        )
    run = hairpin.resume(text.parent / "run", track=["wandb"], watcher=Watching())
    assert run.config.track.tools == ("wandb",)
    assert_told_is_the_record(run)


def test_a_longer_run_goes_on_in_the_tracker(text: Path, use: Any) -> None:
    use(Memory)
    train(text, "run")
    run = hairpin.resume(
        text.parent / "run", extend=6, policy="constant", track=["wandb"], watcher=Watching()
    )
    assert_told_is_the_record(run)
    assert len(of_kind(run.record(), "update")) == 18


def test_how_a_run_is_tracked_may_change_where_it_goes_on(text: Path, use: Any) -> None:
    use(Memory)
    use(Memory, "mlflow")
    with pytest.raises(Interrupted):
        train(text, "run", Watching(stop_after_update=6))
    with RunLock(text.parent / "run"):
        directory = hairpin.load(text.parent / "run").directory
        config = directory.config.read_text(encoding="utf-8")
        changed = config.replace('"wandb"', '"mlflow"').replace('"hairpin"', '"another"')
        directory.config.write_text(changed, encoding="utf-8")
    run = hairpin.resume(text.parent / "run", track=["mlflow"], watcher=Watching())
    assert run.summary().updates == 12
    assert [opened.asked.project for opened in Memory.opened] == ["hairpin", "another"]


# --- what was named here stays agreed here ---


def interrupted(text: Path) -> Path:
    with pytest.raises(Interrupted):
        train(text, "run", Watching(stop_after_update=6))
    return text.parent / "run"


def test_a_tool_that_was_named_for_a_run_follows_it_at_a_resume(text: Path, use: Any) -> None:
    use(Memory)
    watcher = Watching()
    hairpin.resume(interrupted(text), watcher=watcher)
    assert len(Memory.opened) == 2 and not [n for n in watcher.notices if "track:" in n]


def test_a_copy_of_the_run_and_other_settings_are_another_matter(text: Path, use: Any) -> None:
    use(Memory)
    run = interrupted(text)
    shutil.copytree(run, text.parent / "copy")
    hairpin.resume(text.parent / "copy", watcher=Watching())
    assert len(Memory.opened) == 1
    config = run / "config.toml"
    whole = config.read_text(encoding="utf-8")
    config.write_text(whole.replace('"hairpin"', '"another"'), encoding="utf-8")
    assert config.read_text(encoding="utf-8") != whole
    watcher = Watching()
    hairpin.resume(run, watcher=watcher)
    assert len(Memory.opened) == 1 and any("--track wandb" in n for n in watcher.notices)


# --- a config that came from elsewhere ---

EVIL = """
[track]
tools = ["mlflow", "wandb"]
mlflow_uri = "http://203.0.113.7"
"""


@pytest.fixture
def foreign(text: Path, use: Any) -> Path:
    """An interrupted run whose config names tools that talk to others."""
    for name in ("wandb", "mlflow"):
        use(Memory, name)
    with pytest.raises(Interrupted):
        settings, watcher = SETTINGS, Watching(stop_after_update=6)
        hairpin.train(text, out=text.parent / "run", settings=settings, watcher=watcher)
    with RunLock(text.parent / "run"):
        config = text.parent / "run" / "config.toml"
        config.write_text(config.read_text(encoding="utf-8") + EVIL, encoding="utf-8")
    return text.parent / "run"


def go_on(run: Path, watcher: Watching, **named: Any) -> None:
    hairpin.resume(run, watcher=watcher, **named)


def repeat(run: Path, watcher: Watching, **named: Any) -> None:
    config = run / "config.toml"
    hairpin.train(config=config, out=run.parent / "b", watcher=watcher, **named)


def go_on_or_begin(run: Path, watcher: Watching, **named: Any) -> None:
    config = run / "config.toml"
    hairpin.train(config=config, out=run, or_resume=True, watcher=watcher, **named)


def make_longer(run: Path, watcher: Watching, **named: Any) -> None:
    hairpin.resume(run, watcher=Watching())
    hairpin.resume(run, extend=4, policy="constant", watcher=watcher, **named)


@pytest.mark.parametrize("way", [go_on, repeat, go_on_or_begin, make_longer])
def test_a_config_makes_nothing_talk_to_others_unless_the_call_names_it(
    foreign: Path, way: Any
) -> None:
    watcher = Watching()
    way(foreign, watcher)
    assert not Memory.opened
    for tool in ("wandb", "mlflow"):
        (line,) = [line for line in watcher.notices if line.startswith(f"track: {tool} ")]
        assert f"--track {tool}" in line


@pytest.mark.parametrize("way", [go_on, repeat])
def test_what_the_call_names_follows_and_its_address_is_said(foreign: Path, way: Any) -> None:
    watcher = Watching()
    way(foreign, watcher, track=["mlflow"])
    assert len(Memory.opened) == 1
    assert any("mlflow writes to http://203.0.113.7" in line for line in watcher.notices)


@pytest.mark.parametrize(
    "named", [{"overrides": ["track.tools=['wandb']"]}, {"settings": {"track.tools": ["wandb"]}}]
)
def test_a_setting_of_the_call_names_a_tool_too(foreign: Path, named: Any) -> None:
    repeat(foreign, Watching(), **named)
    assert len(Memory.opened) == 1


def test_processes_of_an_experiment_follow_what_stays_here_alone(foreign: Path) -> None:
    config = to_tree(hairpin.load(foreign).config)
    train_trial(foreign.parent / "trial", config, lambda _: None)
    assert not Memory.opened


def test_a_tool_that_is_left_out_need_not_be_installed(
    foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = plugins.TrackerKind(Memory, "no_such_module")
    monkeypatch.setitem(plugins.TRACKERS, "wandb", missing)
    go_on(foreign, Watching())


# --- points ---


def test_a_number_that_is_not_finite_is_told_as_it_was() -> None:
    event = events.Update(3, 0.1, math.nan, 2.0, True, 64, 10.0).as_json()
    json.dumps(event, allow_nan=False)
    point = point_of(event, 256)
    assert point and math.isnan(point.values["train/loss"]) and point.values["train/lr"] == 0.1


def test_what_happened_on_the_way_has_a_name_too() -> None:
    ratios = events.Ratios(4, 0.1, {"mlp": 0.01}).as_json()
    assert point_of(ratios, 9) == Point("ratios", 4, 9, {"ratio/mlp": 0.01})
    accuracy = events.Evaluation(5, 9, 1.0, 2.0, train_accuracy=0.5, val_accuracy=0.25).as_json()
    point = point_of(accuracy, 9)
    assert point and point.values == {
        "train/evaluated_loss": 1.0,
        "val/loss": 2.0,
        "train/evaluated_accuracy": 0.5,
        "val/accuracy": 0.25,
    }
    assert point_of(events.Correction(5, 9, 8).as_json(), 9) is None


# --- where it is kept, and secrets ---


def test_no_password_gets_into_a_config() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD"):
        build_config(flags={"track.mlflow_uri": "https://me:hush@example.org/"})
    kept = build_config(flags={"track.mlflow_uri": "https://example.org/"})
    assert kept.track.mlflow_uri == "https://example.org/"


def test_no_key_gets_into_a_run_or_a_line(
    text: Path, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "5f0e" * 10
    monkeypatch.setenv("WANDB_API_KEY", secret)

    def refuse() -> None:
        raise UserError(f"the key {secret} is not known at https://me:hush@example.org/x")

    use(lambda: Memory({"write": refuse}))
    watcher = Watching()
    run = train(text, "run", watcher)
    (line,) = [line for line in watcher.notices if line.startswith("wandb")]
    assert "the key (WANDB_API_KEY) is not known at https://example.org/x" in line
    for path in run.path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert secret.encode() not in content and b"hush" not in content, path


def test_no_secret_of_the_environment_gets_into_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_API_TOKEN", "5f0e5f0e")
    monkeypatch.setenv("WEBHOOK_HOST", "example.org")
    words = "example.org does not know 5f0e5f0e"
    assert reason_of(OSError(words)) == "OSError: example.org does not know (WEBHOOK_API_TOKEN)"


def test_a_reason_is_one_short_line() -> None:
    assert reason_of(ValueError()) == "ValueError"
    assert reason_of(HairpinError("a\x1b[2Jb")) == "HairpinError: a\\x1b[2Jb"
    assert len(reason_of(ValueError("x" * 5000))) < 250


def test_wandb_stays_offline_unless_somebody_is_logged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    logins = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(logins))
    assert wandb_mode(None) == "offline"
    logins.write_text("machine elsewhere.org login x password y\n", encoding="utf-8")
    logins.chmod(0o600)
    assert wandb_mode(None) == "offline" and wandb_mode("online") == "online"
    logins.write_text("machine api.wandb.ai login user password key\n", encoding="utf-8")
    assert wandb_mode(None) == "online" and wandb_mode("offline") == "offline"
    logins.unlink()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert wandb_mode(None) == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_mode(None) == "offline"


def test_mlflow_keeps_runs_beside_the_run_unless_told_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None, tmp_path / "runs" / "a") == (tmp_path / "runs" / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert tracking_uri(None, tmp_path / "a") == "http://localhost:5000"
    assert tracking_uri("elsewhere", tmp_path / "a") == "elsewhere"


def test_a_folder_in_a_file_is_meant_from_the_files_own(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[track]\nmlflow_uri = "store"\n', encoding="utf-8")
    assert build_config(file=file).track.mlflow_uri == str(tmp_path / "store")


class FakeWandb(SimpleNamespace):
    """As much of the package as opening a run takes; `asked` is what `init` was given."""

    def __init__(self, version: str) -> None:
        super().__init__(__version__=version, Settings=lambda **given: given)
        self.asked: list[dict[str, Any]] = []

    def init(self, **asked: Any) -> Any:
        self.asked.append(asked)
        return SimpleNamespace(define_metric=lambda *given, **named: None)


@pytest.mark.parametrize(
    ("version", "append"),
    [
        ("0.31.0", ""),
        ("0.30.0rc1", ""),
        ("1.0", ""),
        ("0.29.1", "--append "),
        ("0.20", "--append "),
    ],
)
def test_wandb_says_how_a_run_that_went_on_offline_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, append: str
) -> None:
    package = FakeWandb(version)
    monkeypatch.setitem(sys.modules, "wandb", package)
    asked = build_config(flags={"track.wandb_mode": "offline"}).track
    said: list[str] = []
    path = tmp_path / "my run"
    first = Tracked(path, asked, "run", {}, 0, None, identity=None, notice=said.append)
    identity, _ = WeightsAndBiases().open(first)
    assert not said
    again = replace(first, identity=identity, kept=5)
    assert WeightsAndBiases().open(again)[0] == identity
    assert [(given["id"], given["resume"]) for given in package.asked] == [
        (identity, None),
        (identity, "allow"),  # what makes `wandb sync` append
    ]
    assert said == [
        ""
        "offline, and continued in a new folder; send all of the run's folders in one command: "
        f"wandb sync {append}'{path / 'wandb'}'/offline-run-*-{identity}"
    ]
    online = replace(again, asked=build_config(flags={"track.wandb_mode": "online"}).track)
    WeightsAndBiases().open(online)
    assert len(said) == 1


def test_what_a_tracker_says_is_told_from_the_runs_own_thread(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    entered = threading.Event()

    def speak() -> None:
        followers[0].say("send it with this")
        entered.set()

    followers: list[Follower] = []

    def notice(line: str) -> None:
        told.append((line, threading.get_ident()))

    follower = Follower("wandb", lambda: Memory({"open": speak}), Kept(tmp_path), dict, notice)
    followers.append(follower)
    run = Tracked(tmp_path, build_config().track, "run", {}, kept=0, written=None, identity=None)
    follower.tell(Opening(run, [], may_rewind=False))
    follower.tell(an_update(0))
    follower.tell(events.End(1, "finished", 1.0))
    assert entered.wait(20)
    follower.close()
    assert told == [("wandb: send it with this", threading.get_ident())]


@pytest.mark.parametrize("name", plugins.TRACKERS)
def test_a_built_in_tracker_is_made_without_its_package(name: str) -> None:
    tracker = tools.maker_of(name)()
    assert isinstance(tracker, Tracker) and type(tracker).__module__.startswith("hairpin.")


# --- trackers of plugins ---

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugins" / "csv_tracker.py"
TRACKER = """\
from pathlib import Path

from hairpin.plugins.registry import register_tracker
from hairpin.reports.trackers.tracker import Point, Tracked, Tracker, Written


class Mine(Tracker):
    def open(self, run):
        {open}
        return "mine", run.written or Written()

    def write(self, points):
        {write}


register_tracker("mine", Mine)
"""


@pytest.fixture
def forget() -> Iterator[Callable[[], None]]:
    """Forget all plugins, as another process would not know them; so does the test's end."""

    def all_of_them() -> None:
        for found in list(plugins.REGISTERED.values()):
            plugins.forget(found)
        plugin_files._LOADED.clear()

    yield all_of_them
    all_of_them()


def a_tracker(folder: Path, open: str = "pass", write: str = "pass") -> Path:
    path = folder / "mine.py"
    path.write_text(TRACKER.format(open=open, write=write), encoding="utf-8")
    return path


def rows_of(run: Run) -> list[list[str]]:
    with (run.path / "points.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def rows_in_record(run: Run) -> list[list[str]]:
    """Rows that the example should have written, from metrics.jsonl alone."""
    names = {
        "update": {"loss": "train/loss", "lr": "train/lr"},
        "evaluation": {"val_loss": "val/loss"},
    }
    tokens, rows = 0, []
    for event in run.record():
        tokens += event["tokens"] if event["event"] == "update" else 0
        rows += [
            [str(event["update"]), str(tokens), name, str(event[key])]
            for key, name in names.get(event["event"], {}).items()
        ]
    return rows


def test_the_example_has_every_number_once_where_a_run_is_resumed(
    text: Path, forget: Callable[[], None]
) -> None:
    watcher = Watching(stop_after_update=5)
    with pytest.raises(Interrupted):
        hairpin.train(
            text,
            out=text.parent / "run",
            settings=SETTINGS,
            plugin=EXAMPLE,
            track="csv",
            watcher=watcher,
        )
    forget()
    run = hairpin.resume(text.parent / "run", plugin=EXAMPLE, watcher=Watching())
    heads, *rows = rows_of(run)
    assert heads == ["update", "tokens", "name", "value"]
    compared = ("train/loss", "train/lr", "val/loss")
    assert [row for row in rows if row[2] in compared] == rows_in_record(run)
    assert run.config.track.tools == ("csv",)


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (EXAMPLE.parents[2] / "docs" / "trackers.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert shown in EXAMPLE.read_text(encoding="utf-8") and "register_tracker" in shown


def test_a_tracker_that_comes_with_a_resume_catches_up(
    hairpin: Hairpin, tmp_path: Path, forget: Callable[[], None]
) -> None:
    settings = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    text, out = text_file(tmp_path), ("--out", "run")
    done = hairpin("train", text, *out, *settings)
    assert done.code == 0, done.err
    done = hairpin(
        "resume", "run", "--extend", 4, "--policy", "constant", "--plugin", EXAMPLE, "--track=csv"
    )
    assert done.code == 0, done.err
    run = Run(load_folder(tmp_path / "run"))
    rows = [row for row in rows_of(run) if row[2] in ("train/loss", "train/lr", "val/loss")]
    assert rows == rows_in_record(run) and len(of_kind(run.record(), "update")) == 16


def load_folder(path: Path) -> Any:
    return hairpin.load(path).directory


def test_a_plugins_tracker_changes_nothing_in_a_run(text: Path, forget: Callable[[], None]) -> None:
    plain = hairpin.train(text, out=text.parent / "plain", settings=SETTINGS, watcher=Watching())
    for name, file in (("csv", EXAMPLE), ("mine", a_tracker(text.parent, write="1 / 0"))):
        watcher = Watching()
        run = hairpin.train(
            text,
            out=text.parent / name,
            settings=SETTINGS,
            plugin=file,
            track=name,
            watcher=watcher,
        )
        assert_same_history(plain, run)
        assert not run.config.plugins, "it is no part of what made the run"
        said = [line for line in watcher.notices if line.startswith(f"{name}: ")]
        place = f"{file}:13: ZeroDivisionError: division by zero; the run continues without it"
        assert said == ([f"mine: {place}"] if name == "mine" else [])


def test_a_plugins_tracker_has_a_thread_of_its_own(text: Path, forget: Callable[[], None]) -> None:
    noted = text.parent / "noted"
    name = "__import__('threading').current_thread().name"
    hairpin.train(
        text,
        out=text.parent / "run",
        settings=SETTINGS,
        plugin=a_tracker(text.parent, write=f"Path({str(noted)!r}).write_text({name})"),
        track="mine",
        watcher=Watching(),
    )
    assert noted.read_text(encoding="utf-8") == "track-mine"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('register_tracker("mine", lambda: None)', "AttributeError"),
        (
            "from hairpin.reports.trackers.tracker import Tracker\n\n\n"
            "class Half(Tracker):\n    pass\n\n\n"
            'register_tracker("mine", Half)',
            "TypeError",
        ),
        (
            "class Exits:\n    def __init__(self):\n        raise SystemExit(3)\n\n\n"
            'register_tracker("mine", Exits)',
            "SystemExit: 3",
        ),
    ],
)
def test_what_is_no_tracker_is_given_up(
    text: Path, forget: Callable[[], None], body: str, words: str
) -> None:
    plugin = text.parent / "mine.py"
    plugin.write_text(
        f"from hairpin.plugins.registry import register_tracker\n{body}\n", encoding="utf-8"
    )
    watcher = Watching()
    run = hairpin.train(
        text,
        out=text.parent / "run",
        settings=SETTINGS,
        plugin=plugin,
        track="mine",
        watcher=watcher,
    )
    assert run.summary().status == "finished"
    (line,) = [line for line in watcher.notices if line.startswith("mine: ")]
    assert words in line and line.endswith("; the run continues without it")


def test_a_run_goes_on_without_the_plugin_of_its_tracker_and_says_so_in_a_line(
    hairpin: Hairpin, tmp_path: Path, forget: Callable[[], None]
) -> None:
    settings = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    text = text_file(tmp_path)
    done = hairpin("train", text, "--out", "run", *settings, "--plugin", EXAMPLE, "--track", "csv")
    assert done.code == 0, done.err
    written = (tmp_path / "run" / "points.csv").read_bytes()
    forget()
    for command in (
        ("resume", "run", "--extend", "2", "--policy", "constant"),
        ("train", "--config", "run/config.toml", "--out", "again"),
    ):
        done = hairpin(*command)
        assert done.code == 0, done.err
        (line,) = [line for line in done.out.splitlines() if "csv does not follow this run" in line]
        assert "there is no 'csv'" in line and "--plugin" in line
    for reads in (("report", "run"), ("runs",), ("verify", "run")):
        done = hairpin(*reads)
        assert done.code == 0, done.err
    assert (tmp_path / "run" / "points.csv").read_bytes() == written
    assert not (tmp_path / "again" / "points.csv").exists()


def test_a_config_alone_enables_no_tracker_of_a_plugin(
    text: Path, forget: Callable[[], None]
) -> None:
    ran = text.parent / "ran"
    plugin = a_tracker(text.parent, open=f"Path({str(ran)!r}).touch()")
    config = text.parent / "theirs.toml"
    config.write_text('[track]\ntools = ["mine"]\n', encoding="utf-8")
    files: list[list[Path]] = [[], [plugin]]
    for named in files:
        watcher = Watching()
        hairpin.train(
            text,
            config=config,
            out=text.parent / f"run-{len(named)}",
            settings=SETTINGS,
            plugin=named,
            watcher=watcher,
        )
        assert not ran.exists()
        assert [line for line in watcher.notices if "mine does not follow this run" in line]
    hairpin.train(
        text,
        config=config,
        out=text.parent / "named",
        settings=SETTINGS,
        plugin=plugin,
        track="mine",
        watcher=Watching(),
    )
    assert ran.exists()


def test_the_name_of_a_built_in_tracker_is_taken(
    tmp_path: Path, forget: Callable[[], None]
) -> None:
    with pytest.raises(PluginError, match="the tracker 'wandb' is already registered"):
        plugins.register_tracker("wandb", Memory)
    plugins.register_tracker("mine", Memory)
    assert plugins.known("tracker") == (*plugins.TRACKERS, "mine")


@pytest.mark.slow
def test_of_several_processes_the_first_one_alone_feeds_a_plugins_tracker(tmp_path: Path) -> None:
    plugin = a_tracker(
        tmp_path,
        open='(run.path.parent / f\'opened-{__import__("os").environ["RANK"]}\').touch()',
    )
    settings = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    arguments = ["train", str(text_file(tmp_path)), "--out", str(tmp_path / "run"), *settings]
    ended = together(2, [*arguments, "--plugin", str(plugin), "--track", "mine"], tmp_path / "side")
    assert [each.code for each in ended] == [0, 0], ended
    assert [path.name for path in tmp_path.glob("opened-*")] == ["opened-0"]

"""A run is made longer: its learning rate, its config, its record, and the bits that come out."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin import api, schedules
from hairpin.config.checks import schedule_of
from hairpin.config.load import build_config, to_toml
from hairpin.errors import ConfigError, Interrupted, RunError
from hairpin.launch.extend import extended_config
from hairpin.reports.charts import schedule_chart
from hairpin.reports.figures import draw
from hairpin.reports.schedule_drawing import draw_extension
from hairpin.run import Run
from hairpin.runs.folder import RunDirectory
from hairpin.runs.lock import RunLock
from hairpin.runs.watcher import Quiet
from hairpin.schedules.curves import CURVES, Schedule
from hairpin.schedules.extensions import POLICIES, Extended, extended
from helpers import (
    Hairpin,
    Watching,
    last_checkpoint,
    of_kind,
    tensor_bytes,
    text_file,
    tiny,
    updates_without_times,
)

# --- the learning rate ---

LINE = schedules.linear(updates=5, warmup=0, peak_lr=8.0, min_lr=4.0)


def rates(schedule: Schedule) -> list[float]:
    return [schedule(update) for update in range(schedule.updates)]


def test_numbers_worked_out_by_hand() -> None:
    line = [8.0, 7.0, 6.0, 5.0, 4.0]
    assert rates(LINE) == line
    # From 4 in four steps to 0.
    assert rates(extended(LINE, [(5, "cooldown")], 9)) == [*line, 3.0, 2.0, 1.0, 0.0]
    assert rates(extended(LINE, [(5, "constant")], 8)) == [*line, 4.0, 4.0, 4.0]
    # Of 6 updates 1 warms up, so that two steps lead from 4 to 8; then four lead back to 4.
    assert rates(extended(LINE, [(5, "rewarm")], 11)) == [*line, 6.0, 8.0, 7.0, 6.0, 5.0, 4.0]
    # Of 40 updates 2 warm up.
    long = extended(LINE, [(5, "rewarm")], 45)
    assert [long(update) for update in (4, 5, 6, 7, 44)] == pytest.approx([4, 16 / 3, 20 / 3, 8, 4])
    # A curve that does not decay gives way to a cosine: three quarters and a quarter of the way.
    flat = Schedule("constant", updates=3, warmup=0, peak_lr=8.0, min_lr=4.0)
    assert rates(extended(flat, [(3, "rewarm")], 8)) == [8.0, 8.0, 8.0, 8.0, 8.0, 7.0, 5.0, 4.0]


def test_parts_follow_one_another() -> None:
    whole = extended(LINE, [(5, "rewarm"), (11, "constant"), (13, "cooldown")], 15)
    assert rates(whole)[5:] == [6.0, 8.0, 7.0, 6.0, 5.0, 4.0, 4.0, 4.0, 2.0, 0.0]
    assert (whole.kind, whole.updates, whole.warmup, whole.peak_lr) == ("linear", 15, 0, 8.0)
    assert [whole(update) for update in (15, 500)] == [0.0, 0.0]
    assert extended(LINE, [(5, "constant")], 6)(500) == 4.0
    assert extended(LINE, [], 5) is LINE


def test_what_hangs_on_the_length() -> None:
    assert LINE.length_independent_updates == 1
    assert extended(LINE, [(5, "cooldown")], 9).length_independent_updates == 5
    assert extended(LINE, [(5, "constant")], 9).length_independent_updates == 9


@st.composite
def extensions(draw: st.DrawFn) -> Extended:
    """A schedule of any kind with up to three parts."""
    updates = draw(st.integers(8, 200))
    kind = draw(st.sampled_from(sorted(CURVES)))
    base = Schedule(
        kind=kind,
        updates=updates,
        warmup=draw(st.integers(0, updates // 4)),
        peak_lr=draw(st.floats(1e-6, 10)),
        min_lr=0.0,
        decay=draw(st.integers(1, updates // 2)),
        cycles=draw(st.integers(1, 3)),
    )
    base = Schedule(**{**vars(base), "min_lr": base.peak_lr * draw(st.floats(1e-6, 1))})
    lengths = draw(st.lists(st.integers(9, 150), min_size=1, max_size=3))
    bounds = list(itertools.accumulate([updates, *lengths]))
    policies = [draw(st.sampled_from(sorted(POLICIES))) for _ in lengths]
    for number, policy in enumerate(policies[:-1]):
        if policy == "cooldown":  # only rewarming goes on from zero
            policies[number + 1] = "rewarm"
    whole = extended(base, list(zip(bounds, policies, strict=False)), bounds[-1])
    assert isinstance(whole, Extended)
    return whole


@given(extensions())
def test_any_extension_goes_on_without_a_jump_and_ends_where_it_says(whole: Extended) -> None:
    base, lr = whole.base, rates(whole)
    assert len(lr) == whole.updates
    assert lr[: base.updates] == rates(base)
    assert all(0 <= rate <= base.peak_lr for rate in lr)
    for part in whole.parts:
        n, before = part.updates, lr[part.at - 1]
        own = lr[part.at : part.at + n]
        tiny_difference = 1e-9 * base.peak_lr
        if part.policy == "constant":
            assert set(own) == {before}
        elif part.policy == "cooldown":
            falls = [a - b for a, b in itertools.pairwise([before, *own])]
            assert falls == pytest.approx([before / n] * n, abs=tiny_difference)
            assert own[-1] == 0.0
        else:
            warmup = max(1, round(n / 20))
            rises = [b - a for a, b in itertools.pairwise([before, *own[: warmup + 1]])]
            one = (base.peak_lr - before) / (warmup + 1)
            assert rises == pytest.approx([one] * (warmup + 1), abs=tiny_difference)
            assert own[warmup] == base.peak_lr
            assert own[-1] == base.min_lr
            assert own[0] > 0


@given(extensions(), st.integers(1, 1000))
def test_what_is_settled_stays_in_a_longer_run(whole: Extended, more: int) -> None:
    marks = [(part.at, part.policy) for part in whole.parts]
    longer = extended(whole.base, marks, whole.updates + more)
    assert (
        rates(longer)[: whole.length_independent_updates]
        == rates(whole)[: whole.length_independent_updates]
    )
    further = extended(whole.base, [*marks, (whole.updates, "rewarm")], whole.updates + 9 + more)
    assert rates(further)[: whole.updates] == rates(whole)


@pytest.mark.parametrize(
    ("marks", "updates", "words"),
    [
        ([(5, "rewarm")], 5, "the last before train.updates; these are 5, 5"),
        ([(5, "rewarm"), (5, "constant")], 9, "these are 5, 5, 9"),
        ([(5, "sideways")], 9, "there is no such policy; choose one of rewarm, constant, cooldown"),
        ([(5, "cooldown")], 6, "cooldown at update 5: needs 2 updates or more, not 1"),
        ([(5, "rewarm")], 7, "rewarm at update 5: linear needs 2 updates or more after warmup"),
        ([(5, "cooldown"), (7, "constant")], 9, "constant at update 7: the learning rate is 0"),
        ([(5, "cooldown"), (7, "cooldown")], 9, "cooldown at update 7: the learning rate is 0"),
    ],
)
def test_what_cannot_be_is_refused(marks: list[tuple[int, str]], updates: int, words: str) -> None:
    with pytest.raises(ConfigError, match=r"schedule\.extensions") as refusal:
        extended(LINE, marks, updates)
    assert words in str(refusal.value)


# --- the config ---


def config_file(folder: Path, extensions_: str, updates: int = 300) -> Path:
    path = folder / "longer.toml"
    path.write_text(
        f"train = {{updates = {updates}, tokens_per_update = 64}}\n"
        "[schedule]\nkind = 'wsd'\npeak_lr = 0.01\nmin_lr = 0.001\n"
        "warmup_fraction = 0.1\ndecay_fraction = 0.5\n" + extensions_,
        encoding="utf-8",
    )
    return path


def test_fractions_are_of_the_base_and_a_rewarm_has_the_same_share_of_decay(tmp_path: Path) -> None:
    file = config_file(tmp_path, "[[schedule.extensions]]\nat = 100\npolicy = 'rewarm'\n")
    config = build_config(file=file)
    whole = schedule_of(config)
    assert isinstance(whole, Extended)
    assert (whole.base.updates, whole.base.warmup, whole.base.decay) == (100, 10, 50)
    # 200 updates: 10 of warmup, and the last 100 fall.
    assert [whole(update) for update in (99, 110, 199, 299)] == [0.001, 0.01, 0.01, 0.001]
    assert whole(200) < 0.01
    again = tmp_path / "again.toml"
    again.write_text(to_toml(config), encoding="utf-8")
    assert build_config(file=again) == config


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("at = 1\npolicy = 'rewarm'", "schedule.extensions.0.at: "),
        ("at = 100\npolicy = 'warm'", "schedule.extensions.0.policy: "),
        ("at = 100", "schedule.extensions.0.policy: "),
        ("at = 100\npolicy = 'rewarm'\nupdates = 3", "unknown key"),
        ("at = 300\npolicy = 'rewarm'", "these are 300, 300"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(
    tmp_path: Path, table: str, words: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        build_config(file=config_file(tmp_path, f"[[schedule.extensions]]\n{table}\n"))
    assert words in str(refusal.value)


def test_schedule_draws_it(hairpin: Hairpin, tmp_path: Path) -> None:
    file = config_file(tmp_path, "[[schedule.extensions]]\nat = 100\npolicy = 'cooldown'\n")
    out = hairpin("schedule", "--config", file, "--png", "curve.png").out
    assert "wsd: 300 updates, 10 of warmup, cooldown from update 100" in out
    assert "  last             update 299   lr 0" in out
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_old_and_new_are_drawn() -> None:
    old = schedules.wsd(updates=100, warmup=10, decay=50, peak_lr=1.0)
    new = schedules.wsd(updates=200, warmup=10, decay=50, peak_lr=1.0)
    drawing = draw_extension(old, new)
    assert "200 updates" in drawing.splitlines()[0]
    assert "·" in drawing
    assert "·" not in draw_extension(old, old)
    assert "\x1b[36m" in draw_extension(old, new, color=True)
    whole = extended(old, [(100, "rewarm")], 200)
    assert "rewarm           update 100" in draw_extension(old, whole)
    assert draw(schedule_chart(whole, 2000)).axes


# --- runs ---


def trained(folder: Path, name: str = "run", **changes: Any) -> Run:
    return api.train(
        text_file(folder), out=folder / name, settings=tiny(**changes), watcher=Quiet()
    )


def stopped(folder: Path, after: int, name: str = "run", **changes: Any) -> Run:
    watcher = Watching(stop_after_update=after)
    with pytest.raises(Interrupted):
        api.train(text_file(folder), out=folder / name, settings=tiny(**changes), watcher=watcher)
    return api.load(folder / name)


def assert_repeats(run: Run, name: str = "repeat") -> None:
    """A run from the config that `run` has now comes out as `run` did, byte for byte."""
    settings = run.path / "config.toml"
    again = api.train(config=settings, out=run.path.with_name(name), watcher=Quiet())
    folders = last_checkpoint(run.path), last_checkpoint(again.path)
    assert folders[0].name == folders[1].name
    assert tensor_bytes(folders[0]) == tensor_bytes(folders[1])
    assert updates_without_times(run.record()) == updates_without_times(again.record())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_finished_run_goes_on_as_its_policy_says(
    hairpin: Hairpin, tmp_path: Path, policy: str
) -> None:
    run = trained(tmp_path)
    before = updates_without_times(run.record())
    done = hairpin("resume", run.path, "--extend", 8, "--policy", policy)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    drawn = f"Learning rate, cosine: 20 updates, 3 of warmup, {policy} from update 12"
    said = f"after 12 updates: extended from 12 to 20 updates, {policy}"
    assert lines.index(drawn) < lines.index("resumed after 12 updates") < lines.index(said)
    assert f"extended    from 12 to 20 updates, {policy}" in lines
    record = run.record()
    (event,) = of_kind(record, "extend")
    expected = {"update": 12, "planned_updates": 12, "updates": 20, "policy": policy}
    assert event == {"event": "extend", **expected}
    assert updates_without_times(record)[:12] == before
    base = schedules.cosine(updates=12, warmup=3, peak_lr=0.01, min_lr=0.001)
    used = [event["lr"] for event in of_kind(record, "update")]
    assert used == rates(extended(base, [(12, policy)], 20))
    summary = run.summary()
    assert (summary.status, summary.updates, summary.planned_updates) == ("finished", 20, 20)
    assert_repeats(run)
    # It is finished again.
    assert "is finished after 20 updates: nothing to do" in hairpin("resume", run.path).out


def test_an_extended_run_is_extended_again_and_stopped_and_resumed(tmp_path: Path) -> None:
    run = trained(tmp_path)
    api.resume(run.path, extend=8, policy="rewarm", watcher=Quiet())
    with pytest.raises(Interrupted):
        api.resume(run.path, extend=6, policy="cooldown", watcher=Watching(stop_after_update=21))
    assert (run.summary().status, run.summary().planned_updates) == ("interrupted", 26)
    api.resume(run.path, watcher=Quiet())
    assert run.summary().extensions == ((12, 20, "rewarm"), (20, 26, "cooldown"))
    assert len(of_kind(run.record(), "extend")) == 2
    assert_repeats(run)


def test_a_run_killed_as_soon_as_its_config_was_written_goes_on_longer(tmp_path: Path) -> None:
    run = trained(tmp_path)
    run.directory.write_config(extended_config(run, run.config, 4, "constant")[0])
    watcher = Watching()
    api.resume(run.path, watcher=watcher)
    assert watcher.notices == []
    assert (run.summary().updates, run.summary().extensions) == (16, ((12, 16, "constant"),))


def test_a_refused_extension_leaves_the_run_as_it_was(hairpin: Hairpin, tmp_path: Path) -> None:
    run = trained(tmp_path)
    (tmp_path / "text.txt").write_text("other words " * 500, encoding="utf-8")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.suffix}
    line = hairpin("resume", run.path, "--extend", "8", "--policy", "constant").err.splitlines()[-1]
    assert "the text has changed since this run's config was written" in line
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.suffix} == before
    assert (run.summary().status, run.config.train.updates) == ("finished", 12)


def test_a_finished_run_needs_a_policy_and_each_is_explained(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    run = trained(tmp_path)
    files = {path: path.read_bytes() for path in run.path.rglob("*") if path.suffix}
    line = hairpin("resume", run.path, "--extend", "8").refusal
    assert "finished, and its cosine schedule is complete" in line
    assert all(f"{name}: {words}" in line for name, words in POLICIES.items())
    assert "add --extend" in hairpin("resume", run.path, "--policy", "rewarm").refusal
    for wrong in ("0", "-3", "soon", "1e9", "9" * 20):
        assert f"--extend {wrong}" in hairpin("resume", run.path, f"--extend={wrong}").refusal
    short = hairpin("resume", run.path, "--extend", "1", "--policy", "rewarm").refusal
    assert "rewarm at update 12: cosine needs 2 updates or more" in short
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize("kind", ["constant", "inverse-sqrt"])
def test_a_rate_that_never_falls_to_an_end_just_goes_on(tmp_path: Path, kind: str) -> None:
    run = trained(tmp_path, schedule__kind=kind)
    watcher = Watching()
    api.resume(run.path, extend=5, watcher=watcher)
    assert run.config.schedule.extensions == ()
    assert run.summary().extensions == ((12, 17, None),)
    whole = trained(tmp_path, "whole", schedule__kind=kind, train__updates=17)
    assert tensor_bytes(last_checkpoint(run.path)) == tensor_bytes(last_checkpoint(whole.path))
    assert updates_without_times(run.record()) == updates_without_times(whole.record())


def test_an_unfinished_run_grows_while_nothing_hangs_on_its_length(tmp_path: Path) -> None:
    run = stopped(tmp_path, 3, schedule__kind="wsd", schedule__decay_fraction=0.5)
    with pytest.raises(RunError, match=r"4 of 12 updates are done.*finish it with `hairpin resume"):
        api.resume(run.path, extend=8, policy="rewarm", watcher=Quiet())
    api.resume(run.path, extend=8, watcher=Quiet())
    schedule = run.config.schedule
    assert (schedule.warmup_updates, schedule.decay_updates) == (3, 6)
    assert (schedule.decay_fraction, schedule.extensions) == (None, ())
    longer = {"schedule__kind": "wsd", "schedule__decay_updates": 6, "train__updates": 20}
    whole = trained(tmp_path, "whole", **longer)
    assert tensor_bytes(last_checkpoint(run.path)) == tensor_bytes(last_checkpoint(whole.path))
    assert updates_without_times(run.record()) == updates_without_times(whole.record())
    assert run.summary().extensions == ((12, 20, None),)


def test_an_unfinished_run_whose_rates_hang_on_its_length_is_finished_first(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    run = stopped(tmp_path, 6)
    line = hairpin("resume", run.path, "--extend", "8").refusal
    assert "of the 8 updates done, those from 4 on used learning rates for a length of 12" in line
    assert f"finish it with `hairpin resume {run.path}`, then --extend it with --policy" in line
    finished = hairpin("resume", run.path)
    assert "update 9/12  " in finished.out
    assert finished.code == 0
    assert hairpin("resume", run.path, "--extend", "8", "--policy", "cooldown").code == 0
    assert_repeats(run)


@pytest.mark.parametrize(
    ("seconds", "every", "updates", "spacing"),
    [
        # Of 39 s the start takes 5 and the end 4. In the other 30 every third update of 27 is
        # followed by an evaluation of 3 s; had it been every second, as before, 12 had fitted.
        ("39s", None, 15, 3),
        ("39s", 6, 18, 6),  # 3 evaluations, and 3 seconds left
        ("13s", None, 1, 2),
        ("12s", None, 1, 2),  # too little for one; a line says what it takes
        ("5s", None, 1, 2),
    ],
)
def test_a_time_holds_the_start_the_evaluations_and_the_end(
    tmp_path: Path, seconds: str, every: int | None, updates: int, spacing: int
) -> None:
    """Written by hand: 12 updates of a second, 3 evaluations of 3, a start of 5."""
    asked = {"evaluate": {"every_updates": every}} if every else {}
    events: list[dict[str, Any]] = [
        {"event": "start", "time": 100.0, "asked": asked},
        {"event": "plan", "seconds": 12.0, "ends": 117.0},
        *({"event": "evaluation", "update": update} for update in (0, 6, 12)),
        *(
            {"event": "update", "update": update, "tokens": 64, "tokens_per_second": 64.0}
            for update in range(12)
        ),
        {"event": "end", "update": 12, "status": "finished", "seconds": 5.0 + 12.0 + 9.0},
    ]
    directory = RunDirectory(tmp_path)
    directory.write_config(
        build_config(
            flags=tiny(schedule__kind="constant", evaluate__every_updates=every or 2)
            | {"checkpoint.every_updates": every or 2}
        )
    )
    lines = "".join(json.dumps(event) + "\n" for event in events)
    directory.metrics.write_text(lines, encoding="utf-8")
    run = Run(directory)
    config, note = extended_config(run, run.config, seconds, None)
    assert config.train.updates == 12 + updates
    assert config.evaluate.every_updates == config.checkpoint.every_updates == spacing
    assert (note is not None) == (seconds in ("12s", "5s"))
    if note is not None:
        assert note.startswith(f"--extend {seconds}: one more update takes 13s here")


def test_a_run_that_is_not_settled_cannot_be_made_longer(tmp_path: Path) -> None:
    run = trained(tmp_path)
    (run.path / "config.toml").write_text(
        f"data.texts = ['{tmp_path / 'text.txt'}']\n", encoding="utf-8"
    )
    with pytest.raises(RunError, match="not started yet; `hairpin resume"):
        extended_config(run, run.config, 4, "rewarm")


def test_a_second_process_cannot_make_a_run_longer_meanwhile(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    run = trained(tmp_path)
    before = run.directory.config.read_bytes()
    with RunLock(run.path):
        line = hairpin("resume", run.path, "--extend", "8", "--policy", "rewarm").refusal
    assert "in use by process" in line
    assert run.directory.config.read_bytes() == before


def test_a_repeat_with_another_length_cannot_contradict_the_extensions(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    run = trained(tmp_path)
    api.resume(run.path, extend=8, policy="rewarm", watcher=Quiet())
    repeat = ("train", "--config", run.directory.config, "--out", "other", "--updates")
    assert "these are 12, 10" in hairpin(*repeat, 10).refusal
    assert not (tmp_path / "other").exists()

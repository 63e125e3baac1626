"""What callers from Python give: runs for paths, one thing for a list, numbers of NumPy."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hairpin
from hairpin.api import schedule as package_schedule
from hairpin.config.durations import parse_duration
from hairpin.config.load import build_config, to_toml
from hairpin.errors import ConfigError, CorpusError, PluginError, RunError
from hairpin.system.arguments import listed, plain_number
from helpers import text_file, tiny

SILENT = hairpin.Quiet()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> hairpin.Run:
    folder = tmp_path_factory.mktemp("given")
    settings = tiny(train__updates=np.int64(6), schedule__peak_lr=np.float32(0.5))
    text = text_file(folder)
    return hairpin.train(text, out=folder / "run", settings=settings, watcher=SILENT)


def test_a_run_is_a_path(run: hairpin.Run) -> None:
    assert Path(run) == run.path
    assert (Path(run) / "config.toml").is_file()


FROM_A_RUN = {"train.updates": 1, "schedule.kind": "constant", "schedule.warmup_updates": 0}
# Wherever the functions of `hairpin` take the folder of a run.
TAKERS: dict[str, Callable[[hairpin.Run, Path], Any]] = {
    "load": lambda run, out: hairpin.load(run),
    "resume": lambda run, out: hairpin.resume(run, watcher=SILENT),
    "report": lambda run, out: hairpin.report(run, out=out.with_suffix(".html")),
    "export": hairpin.export,
    "compare": lambda run, out: hairpin.compare(run, run.path),
    "compare groups": lambda run, out: hairpin.compare(runs=[run, [run]], out=out),
    "start": lambda run, out: hairpin.train(
        text_file(out.parent), start=run, settings=FROM_A_RUN, out=out, watcher=SILENT
    ),
}


@pytest.mark.parametrize("name", TAKERS)
def test_a_run_is_taken_where_its_folder_is(name: str, run: hairpin.Run, tmp_path: Path) -> None:
    assert TAKERS[name](run, tmp_path / "out")


@given(st.integers(0, 10**9))
def test_numbers_of_numpy_are_settings(number: int) -> None:
    for kind in (np.int64, np.uint32, np.array, torch.tensor):
        given_one = build_config(flags={"data.texts": ["/x"], "train.seed": kind(number)})
        plain = build_config(flags={"data.texts": ["/x"], "train.seed": number})
        assert to_toml(given_one) == to_toml(plain)
        assert type(given_one.train.seed) is int


@given(st.floats(2**-20, 1, width=32))
def test_fractions_of_numpy_are_settings(number: float) -> None:
    for kind in (np.float64, np.float32):
        config = build_config(flags={"data.texts": ["/x"], "schedule.peak_lr": kind(number)})
        assert config.schedule.peak_lr == number and type(config.schedule.peak_lr) is float


def test_what_is_no_single_number_stays_what_it_is() -> None:
    rows = np.zeros(3)
    assert plain_number(rows) is rows and plain_number("3") == "3" and plain_number(True) is True
    with pytest.raises(ConfigError, match=r"train\.seed"):
        build_config(flags={"data.texts": ["/x"], "train.seed": rows})
    with pytest.raises(ConfigError, match=r"train\.seed"):
        build_config(flags={"data.texts": ["/x"], "train.seed": np.float64(0.5)})


@pytest.mark.parametrize(
    "budget", [90, 90.0, np.int32(90), np.float64(90), timedelta(seconds=90), "90s", "1m30s"]
)
def test_a_length_of_time_is_seconds_or_words(budget: Any) -> None:
    assert parse_duration(budget) == 90


@pytest.mark.parametrize("budget", [0, -1, 1e300, float("nan"), True, [5], "", timedelta(0)])
def test_what_is_no_length_of_time_is_refused(budget: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--budget"):
        hairpin.train(text_file(tmp_path), budget=budget, out=tmp_path / "r", watcher=SILENT)
    assert not (tmp_path / "r").exists()


def test_one_thing_is_a_list_of_one() -> None:
    assert listed("tensorboard") == ("tensorboard",)
    assert listed(Path("a.py")) == (Path("a.py"),)
    assert listed(["a", "b"]) == ("a", "b") == listed(x for x in "ab")
    assert listed(None) == () == listed(())


def test_one_string_is_not_taken_for_its_letters(tmp_path: Path) -> None:
    text = text_file(tmp_path)
    for plugin in ("nowhere.py", Path("nowhere.py"), ["nowhere.py"]):
        with pytest.raises(PluginError, match=r"nowhere\.py: the plugin cannot be read"):
            hairpin.train(text, plugin=plugin, out=tmp_path / "r", watcher=SILENT)
    with pytest.raises(ConfigError, match=r"train\.sed"):
        hairpin.train(text, overrides="train.sed=5", out=tmp_path / "r", watcher=SILENT)
    with pytest.raises(ConfigError, match=r"--vary nonsense: write it as"):
        hairpin.compare(text, vary="nonsense", out=tmp_path / "e")
    with pytest.raises(ConfigError, match="--factors nonsense: choose from"):
        hairpin.ablate(text, factors="nonsense", out=tmp_path / "e")


def test_settings_that_are_no_dict_are_said(tmp_path: Path) -> None:
    text, wrong = text_file(tmp_path), "train.updates=3"
    anything: Any = wrong
    several: Any = [wrong]
    for act in (
        lambda: hairpin.train(text, settings=anything, watcher=SILENT),
        lambda: hairpin.train(text, settings=several, watcher=SILENT),
        lambda: hairpin.plan(text, settings=anything, watcher=SILENT),
        lambda: hairpin.finetune("classify", text, settings=anything, watcher=SILENT),
        lambda: hairpin.compare(text, vary="train.seed=1,2", settings=anything),
        lambda: package_schedule(settings=anything),
    ):
        with pytest.raises(ConfigError, match=r"settings: a \w+ is not a dict; give one"):
            act()
    with pytest.raises(ConfigError, match="sources: a str is not a dict; give one"):
        hairpin.train(sources=anything, watcher=SILENT)
    with pytest.raises(ConfigError, match="go into `settings`"):
        hairpin.train(text, overrides={"train.updates": 3}, watcher=SILENT)


def test_runs_are_reported_from_a_list(run: hairpin.Run, tmp_path: Path) -> None:
    runs: Any = [run, run.path]
    assert hairpin.report(runs, out=tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "wrong", [{"tokens": -1}, {"tokens": 1.5}, {"seed": 2**70}, {"seed": -1}, {"seed": True}]
)
def test_what_is_no_number_of_tokens_and_no_seed_is_said(
    run: hairpin.Run, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}: .* is not a whole number"):
        run.trained().write("the cat", **wrong)


@pytest.mark.parametrize("prompt", [b"the cat", None, 5])
def test_what_is_no_prompt_is_said(run: hairpin.Run, prompt: Any) -> None:
    with pytest.raises(CorpusError, match="not a text"):
        run.trained().write(prompt)


def test_numbers_of_numpy_are_tokens_and_seeds(run: hairpin.Run) -> None:
    tokens: Any = np.int64(5)
    written = ["".join(run.trained().write("the cat", tokens=t, seed=t)) for t in (5, tokens)]
    assert written[0] == written[1]


def test_a_policy_that_there_is_not_is_said_by_its_option(run: hairpin.Run) -> None:
    with pytest.raises(RunError, match="--policy const: choose one of rewarm, constant, cooldown"):
        hairpin.resume(run, extend=2, policy="const", watcher=SILENT)

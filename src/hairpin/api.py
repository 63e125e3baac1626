"""The functions of `import hairpin`, for training and runs.

PyTorch is imported only by functions that need it.
"""

import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from hairpin.config.checks import example_schedule, schedule_of
from hairpin.data.tables.spool import Records, paths_of_records
from hairpin.distributed.launch import is_restarted
from hairpin.errors import RunError
from hairpin.launch.begin import begun_by_this_launcher, require_same
from hairpin.launch.extend import config_to_resume
from hairpin.launch.other_processes import leader_decides
from hairpin.launch.request import (
    Request,
    Text,
    check_request,
    default_budget_seconds,
    requested_settings,
    require_text,
    with_training_defaults,
)
from hairpin.launch.train import resume_run, train_new
from hairpin.planning.plan.cluster import ClusterPlan
from hairpin.planning.plan.plan import Plan
from hairpin.plugins.files import load_plugins
from hairpin.reports.page.write import write_report
from hairpin.reports.schedule_drawing import draw_extension
from hairpin.run import Run
from hairpin.runs.folder import RUNS, RunDirectory, list_runs, open_run
from hairpin.runs.new_folder import new_or_empty_folder
from hairpin.runs.watcher import Watcher, guarded
from hairpin.schedules.curves import Schedule
from hairpin.system.access import is_there
from hairpin.system.arguments import AnyPath, Time, listed


def load(path: AnyPath | None = None) -> Run:
    """Return an existing run; None: the newest in `runs/`.

    Raises:
        RunError: there is none.
    """
    return Run(open_run(None if path is None else Path(path)))


@leader_decides
def train(
    *texts: Text,
    corpus: str | None = None,
    column: str | None = None,
    sources: Mapping[str, Any] | None = None,
    config: AnyPath | None = None,
    start: AnyPath | None = None,
    out: AnyPath | None = None,
    budget: Time | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: str | Iterable[str] = (),
    or_resume: bool = False,
    track: str | Iterable[str] = (),
    plugin: AnyPath | Iterable[AnyPath] = (),
    watcher: Watcher | None = None,
    started: float | None = None,
) -> Run:
    """Train a GPT on text: files, folders, tables, datasets.

    Args:
        texts: files, folders and patterns; or any iterable of texts or of dicts, such as a stream
            of Hugging Face's `datasets`, which is written to the cache first. None: the corpus that
            the config or `corpus` names, else the Python standard library's own source.
        corpus: "stdlib", "python-docs" or "verdict".
        column: of tables and dicts, the one that holds the text; None: `text`, or the only one.
        sources: instead of `texts`, name → such a text, or a dict of the keys of
            `[[data.sources]]`: {"wiki": {"texts": "wiki.jsonl", "weight": 0.7}, …}.
        config: a TOML file of settings.
        start: a run or a folder with a model in safetensors to start from; None: random weights.
        out: the run's folder; None: `runs/<text>-<n>`.
        budget: wall time such as "10m", or a number of seconds; fills only what the settings leave
            open. None: 3 minutes if neither a size nor a length is given.
        settings: dotted key → value, such as {"train.updates": 1000}.
        overrides: "key=value" strings; those that contradict `settings` are refused.
        or_resume: if `out` already is a run of the same config, resume it; this is the default
            when torchrun restarts a process. Of several processes the first one decides what is
            trained, and the others follow it.
        track: trackers: "tensorboard", "wandb", "mlflow" or a plugin's; a config file can enable
            only the first.
        plugin: Python files to run, whose names the settings may use (`hairpin.plugins`).
        watcher: display; None: the terminal. `hairpin.Quiet()` shows nothing.
        started: start of the budget on `time.monotonic`; None: now.

    Raises:
        UserError: the request is invalid; a line for each reason.
        NonFiniteError, Interrupted: the run stopped; it can be resumed.
    """
    started = time.monotonic() if started is None else started  # reading a stream takes time too
    watcher = _watcher(watcher)
    if or_resume and out is None:
        raise RunError("--or-resume: name the run's folder with --out")
    request = Request(
        texts, corpus, column, sources, config, start,
        out=out or begun_by_this_launcher(RUNS), budget=budget, settings=settings,
        overrides=overrides, track=track, plugin=plugin,
    )  # fmt: skip
    checked = with_training_defaults(check_request(request))
    may_be_there = or_resume or is_restarted()
    there = RunDirectory(request.folder) if request.folder and may_be_there else None
    if there and is_there(there.config):
        require_same(there, checked.config, checked.budget_seconds)
        return resume_run(Run(there), checked.budget_seconds, watcher, track=checked.trackers)
    return train_new(checked, watcher, started)


@leader_decides
def finetune(
    kind: str,
    data: Records = None,
    *,
    start: AnyPath | None = None,
    config: AnyPath | None = None,
    out: AnyPath | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: str | Iterable[str] = (),
    track: str | Iterable[str] = (),
    plugin: AnyPath | Iterable[AnyPath] = (),
    watcher: Watcher | None = None,
) -> Run:
    """Train a trained model on records: the labels of texts, or the responses to instructions.

    Args:
        kind: "classify" or "instruct".
        data: a CSV, TSV, JSON, JSONL, Parquet or Arrow file, a list of dicts, a data frame or a
            dataset; None: the config's.
        start: a run, or a folder with a model in safetensors; None: the config names it.
        config, out, settings, overrides, track, plugin, watcher: as in `train`.

    Raises:
        UserError: the request is invalid; a line for each reason.
        NonFiniteError, Interrupted: the run stopped; it can be resumed.
    """
    request = Request(
        paths_of_records(data), config=config, start=start, finetune=kind, out=out,
        settings=settings, overrides=overrides, track=track, plugin=plugin,
    )  # fmt: skip
    return train_new(check_request(request), _watcher(watcher))


@leader_decides
def resume(
    path: AnyPath | None = None,
    *,
    extend: str | int | None = None,
    policy: str | None = None,
    restart: bool = False,
    track: str | Iterable[str] = (),
    plugin: AnyPath | Iterable[AnyPath] = (),
    accept_plugin: bool = False,
    watcher: Watcher | None = None,
) -> Run:
    """Resume a run where it stopped; a finished one is left as it is, or extended.

    Args:
        path: the run's folder; None: the newest in `runs/`.
        extend: a number of further updates, or a duration such as "10m".
        policy: how a finished run's learning rate continues: "rewarm", "constant", "cooldown".
        restart: begin again at update 0; the checkpoints and the record's lines are set aside.
        track: the trackers from here on, which also receive the earlier events; none named:
             TensorBoard alone, if its config names it.
        plugin: those that the run was made with; they run only if named here.
        accept_plugin: True to resume even if one of them has changed.
        watcher: as in `train`.

    Raises:
        RunError: there is no run, its checkpoints do not fit it, or it cannot be extended so.
    """
    files = load_plugins(plugin)
    run, watcher, tools = load(path), guarded(_watcher(watcher)), listed(track)
    config, note = config_to_resume(run, files if accept_plugin else (), tools, extend, policy)
    if extend is not None:
        watcher.notice(draw_extension(schedule_of(run.config), schedule_of(config)))
    if note:
        watcher.notice(note)
    seconds = default_budget_seconds(config)
    return resume_run(run, seconds, watcher, config=config, track=tools, restart=restart)


def runs(folder: AnyPath | None = None) -> list[Run]:
    """Return the runs in a folder (None: `runs/`), oldest first."""
    return [Run(directory) for directory in list_runs(Path(folder or RUNS))]


def report(*paths: AnyPath, out: AnyPath | None = None, full: bool = False) -> Path:
    """Write a page about runs: one HTML file that needs only a browser; returns its path.

    Args:
        paths: the runs' folders, each once; none: the newest in `runs/`.
        out: the file; None: `report.html` in the run's folder, of several runs in this one.
        full: whether the page of one run has whole paths and the command line.

    Raises:
        UserError: there is no run, one is damaged, or the file cannot be written.
    """
    named = [Path(path) for each in paths for path in listed(each)]
    found = [load(path) for path in dict.fromkeys(named)] or [load()]
    return write_report([run.directory for run in found], _path(out), full=full)


def schedule(
    *,
    config: AnyPath | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: str | Iterable[str] = (),
    plugin: AnyPath | Iterable[AnyPath] = (),
) -> Schedule:
    """Return the learning-rate schedule of a config, without any training.

    Raises:
        ConfigError: the settings make no schedule, or do not set the run's length.
    """
    request = Request(config=config, settings=settings, overrides=overrides, plugin=plugin)
    load_plugins(request.plugin)
    return example_schedule(requested_settings(request).config())


def plan(
    *texts: Text,
    corpus: str | None = None,
    config: AnyPath | None = None,
    out: AnyPath | None = None,
    budget: Time | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: str | Iterable[str] = (),
    tokens: str | int | None = None,
    parameters: str | int | None = None,
    gpus: str | None = None,
    gpu: str | None = None,
    context: int | None = None,
    micro_batch: int | None = None,
    plugin: AnyPath | Iterable[AnyPath] = (),
    probe: bool = True,
    check_text: bool = True,
    watcher: Watcher | None = None,
) -> Plan | ClusterPlan:
    """Return the cost of a run before any training: an object with the numbers, `lines()` and
    `as_json()`.

    Args:
        texts, corpus, config, out, budget, settings, overrides: as in `train`.
        tokens: length of the run, such as "1B".
        parameters: such as "7B": a network of that size is picked, ignoring this machine.
        gpus: such as "8,16,32,64": training on that many cards, on paper.
        gpu: the card: T4, RTX4090, A100, H100 or H200.
        context, micro_batch: with `parameters` or `gpus`.
        plugin: as in `train`.
        probe: whether this machine is measured; without that torch is not imported.
        check_text: whether the text is checked for copies, leaks and odd bytes.
        watcher: display of slow steps; None: the terminal's standard error.

    Raises:
        UserError: the request is invalid; a line for each reason.
    """
    from hairpin.planning.plan.request import PlanOptions, make_plan

    request = Request(
        texts, corpus, config=config, out=out, budget=budget, settings=settings,
        overrides=overrides, plugin=plugin,
    )  # fmt: skip
    load_plugins(request.plugin)
    options = PlanOptions(tokens, parameters, gpus, gpu, context, micro_batch)
    with closing(guarded(_watcher(watcher, on_stderr=True))) as shown:
        return make_plan(request, options, shown, probe=probe, check_text=check_text)


def prepare(
    *texts: Text,
    out: AnyPath,
    corpus: str | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: str | Iterable[str] = (),
    watcher: Watcher | None = None,
) -> str:
    """Write tokenizer and token shards of a text to the folder `out`, for each source of a mixture;
    return a line that sums them up.

    Raises:
        UserError: the text cannot be read, or the folder is in use.
    """
    from hairpin.data.blend import prepare_text, summary_line

    request = Request(texts, corpus, out=out, settings=settings, overrides=overrides)
    asked = check_request(request).config
    require_text(asked)
    place = new_or_empty_folder(Path(out), remedy="name another with --out")
    with place as folder, closing(guarded(_watcher(watcher))) as shown:
        prepared = prepare_text(asked.data, asked.tokenizer, on_progress=shown.stage)
        for source in prepared.sources:
            shutil.copytree(source.prepared.folder, folder / source.name)
        if not prepared.sources:
            shutil.copytree(prepared.folder, folder, dirs_exist_ok=True)
    return f"{out}: {summary_line(prepared)}"


def _watcher(watcher: Watcher | None, *, on_stderr: bool = False) -> Watcher:
    if watcher is not None:
        return watcher
    from hairpin.reports.terminal.notebook import Notebook, in_notebook
    from hairpin.reports.terminal.run_display import Terminal

    return Notebook() if in_notebook() else Terminal(on_stderr=on_stderr)


def _path(name: AnyPath | None) -> Path | None:
    return None if name is None else Path(name)

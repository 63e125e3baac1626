"""Comparison of arms and ablation of factors, from a request to result pages."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hairpin.config.durations import parse_duration
from hairpin.config.load import short_tree
from hairpin.config.settings import Config
from hairpin.errors import ConfigError, RunError
from hairpin.experiments.arms import (
    LENGTHS,
    RequestedArm,
    arms_of_factors,
    arms_of_files,
    arms_of_variations,
    overridden,
)
from hairpin.experiments.runner import (
    FEWEST_SEEDS,
    MOST_SEEDS,
    SEEDS,
    Preparing,
    Progress,
    Resources,
    available_workers,
    open_experiment,
    run_experiment,
    runs_of,
    seconds_per_run,
)
from hairpin.launch.request import Request, length_of, name_of, require_text
from hairpin.reports.comparison import Comparison
from hairpin.reports.conclusions import as_json, conclude, markdown_of
from hairpin.reports.formats import short_names
from hairpin.runs.entries import refuse_links
from hairpin.runs.experiment_folder import (
    MIN_DIFFERENCE,
    SCALES,
    Arm,
    Experiment,
    ExperimentDirectory,
)
from hairpin.runs.folder import new_run_path
from hairpin.system.arguments import Time
from hairpin.system.files import make_folders, unmake, write_atomically

EXPERIMENTS = Path("experiments")
DEFAULT_BUDGET = "20m"
EQUAL = ("tokens", "updates", "time")
_MAX_ARMS = 64


@dataclass(frozen=True)
class Options:
    """Options of an experiment, beyond its `Request`: there the budget is the total wall time
    (None: 20 minutes if the configs do not set a length, else unlimited), and `out` the
    experiment's folder (None: a new one in `experiments/`).

    Args:
        seeds: for the verdict; None: 5, or as many as the budget allows.
        same_lr: each arm keeps the learning rate of its config.
        equal: quantity held equal across arms: "tokens", "updates" or "time"; None: tokens, unless
            arms differ in length on purpose.
        smallest_difference: bits per byte below which a difference does not matter.
        workers: concurrent runs; None: one for each core that there is memory for.
    """

    seeds: int | None = None
    same_lr: bool = False
    equal: str | None = None
    smallest_difference: float = MIN_DIFFERENCE
    workers: int | None = None

    def problems(self) -> list[str]:
        """Return a line for each invalid option."""
        found = []
        if self.seeds is not None and not 1 <= self.seeds <= 1000:
            found.append(f"--seeds {self.seeds}: 1 to 1000")
        if self.equal not in (None, *EQUAL):
            found.append(f"--equal {self.equal}: one of {', '.join(EQUAL)}")
        if not 0 <= self.smallest_difference < 100:
            found.append(f"--smallest-difference {self.smallest_difference}: 0 or more")
        if self.workers is not None and self.workers < 1:
            found.append(f"--workers {self.workers}: 1 or more")
        return found

    def asked(self, budget: Time | None) -> dict[str, Any]:
        """Return the options that a later call must repeat to resume the experiment.

        Args:
            budget: total wall time.
        """
        return {
            "seeds": self.seeds,
            "budget": budget,
            "same_lr": self.same_lr,
            "equal": self.equal or "tokens",
            "smallest_difference": self.smallest_difference,
        }


def compare_configs(
    files: Sequence[Path],
    variations: Sequence[str],
    request: Request,
    options: Options,
    progress: Progress,
) -> tuple[Comparison, Path]:
    """Train and compare arms: config files, or the values of varied keys.

    Raises:
        UserError: the request is invalid; a line for each reason.
        HairpinError: a run could not be trained; the same call resumes.
    """
    if files and variations:
        raise ConfigError("--vary needs one text or config; give only config files, or --vary")
    if len(files) == 1:
        raise ConfigError(f"{files[0]}: only one arm; name another, or vary a key with --vary")
    arms = arms_of_files(files, request) if files else arms_of_variations(variations, request)
    if not 2 <= len(arms) <= _MAX_ARMS:
        raise ConfigError(
            f"{len(arms)} arms: compare 2 to {_MAX_ARMS}, such as `hairpin compare a.toml b.toml` "
            "or `hairpin compare TEXT --vary recipe=modern,gpt2`"
        )
    return _run_arms("compare", arms, (), request, options, progress)


def ablate_factors(
    factors: Sequence[str],
    variations: Sequence[str],
    request: Request,
    options: Options,
    progress: Progress,
) -> tuple[Comparison, Path]:
    """Train every on/off combination of the factors and report their effects.

    Raises:
        UserError, HairpinError: as in `compare_configs`.
    """
    arms, names = arms_of_factors(factors, variations, request)
    return _run_arms("ablate", arms, names, request, options, progress)


def compare_finished(
    groups: Sequence[tuple[str, Sequence[Path]]], request: Request, options: Options
) -> tuple[Comparison, Path | None]:
    """Compare finished runs, or files of another trainer's losses; nothing is trained.

    Args:
        groups: name and runs of each arm; the first is the baseline.
        request: only `out` is used.
        options: only `smallest_difference` is used.

    Raises:
        RunError: one is missing or damaged.
    """
    missing = [f"{path}: no such run or file" for _, p in groups for path in p if not path.exists()]
    if missing:
        raise RunError(missing)
    names = [name for name, _ in groups]
    if len(set(names)) < len(names):  # results are keyed by name
        names = short_names([paths[0].absolute().parts for _, paths in groups])
    arms = tuple(
        Arm(name, {}, sources=tuple(str(path.absolute()) for path in paths))
        for name, (_, paths) in zip(names, groups, strict=True)
    )
    asked = options.asked(request.budget) | {"sources": [list(arm.sources) for arm in arms]}
    smallest = options.smallest_difference
    experiment = Experiment("compare", "finished runs", arms, (), (1.0,), "", smallest, "", asked)
    comparison = conclude(experiment, ExperimentDirectory(Path()))  # before anything is written
    out = request.folder
    if out is None:
        return comparison, None
    open_experiment(out, experiment)
    return report(_new_directory(out, experiment)), out


def _new_directory(path: Path, experiment: Experiment) -> ExperimentDirectory:
    """Make a folder for an experiment and write its definition.

    Raises:
        RunError: it cannot be made; then nothing is left.
    """
    directory = ExperimentDirectory(path)
    made: tuple[Path, ...] = ()
    try:
        made = make_folders(path)
        directory.write(experiment)
    except (OSError, ValueError) as error:  # a ValueError: there is a NUL in the name
        unmake(made)
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"{path}: cannot be written ({reason}); name another with --out") from None
    return directory


def report(directory: ExperimentDirectory) -> Comparison:
    """Return the results so far of an experiment, rewriting its pages if anything changed.

    Raises:
        RunError: there is no experiment, one of its runs is damaged, or something is a link.
    """
    refuse_links(directory.path)
    comparison = conclude(directory.read(), directory)
    results = json.dumps(as_json(comparison), indent=1).encode()
    if not directory.is_up_to_date(results):
        from hairpin.reports.comparison_plots import write_comparison_plots
        from hairpin.reports.page.experiment_page import comparison_page

        pictures = write_comparison_plots(comparison, directory.plots)
        names = [f"plots/{picture.name}" for picture in pictures]
        write_atomically(directory.path / "report.md", markdown_of(comparison, names).encode())
        write_atomically(directory.report, comparison_page(comparison, pictures).encode())
        write_atomically(directory.results, results)  # last: it marks the others as complete
    return comparison


def _run_arms(
    kind: Literal["compare", "ablate"],
    arms: Sequence[RequestedArm],
    factors: tuple[str, ...],
    request: Request,
    options: Options,
    progress: Progress,
) -> tuple[Comparison, Path]:
    notes = overridden(request)
    _require_fair(arms, options)
    configs = [arm.config for arm in arms]
    require_text(configs[0])
    out = request.folder or new_run_path(f"{kind}-{name_of(configs[0])}", EXPERIMENTS)
    asked = options.asked(request.budget) | {
        "kind": kind,
        "arms": [[arm.name, _plain(arm.changes), short_tree(arm.config)] for arm in arms],
    }
    draft = Experiment(kind, "", (), (), asked=asked)
    directory = ExperimentDirectory(out)
    experiment = open_experiment(out, draft)
    for line in notes:
        progress.notice(line)
    resources = _resources(request, options, configs, len(arms))
    scales = (1.0,) if options.same_lr else SCALES
    seconds: float | None = None
    seeds_are_open = False  # the number is fixed once, before results are known
    if experiment is None:
        experiment, seconds = _prepare(
            kind, arms, factors, scales, options, resources, asked, progress
        )
        _new_directory(out, experiment)
        progress.notice(f"{out}: {experiment.model}")
        seeds_are_open = options.seeds is None and resources.budget_seconds is not None
    else:
        progress.notice(f"{out}: resuming the experiment")
    experiment = run_experiment(
        experiment, directory, resources, progress, seconds=seconds, seeds_are_open=seeds_are_open
    )
    return report(directory), out


def _require_fair(arms: Sequence[RequestedArm], options: Options) -> None:
    """Check the options, and that arms differ only in what is compared.

    Raises:
        ConfigError: an option is invalid, or contradicts what is varied.
    """
    if problems := options.problems():
        raise ConfigError(problems)
    lengths = [key for key in LENGTHS if any(key in arm.changes for arm in arms)]
    if lengths and options.equal:
        raise ConfigError(
            f"--vary {lengths[0]} and --equal {options.equal}: arms cannot both differ in length "
            "and be made equal; keep one"
        )
    tuned = [arm.name for arm in arms if "schedule.peak_lr" in arm.changes]
    if tuned and not options.same_lr:
        raise ConfigError(
            f"{tuned[0]}: arms that differ in the learning rate cannot be tuned; add --same-lr, "
            "or search for a rate with `hairpin find-lr`"
        )


def _prepare(
    kind: Literal["compare", "ablate"],
    arms: Sequence[RequestedArm],
    factors: tuple[str, ...],
    scales: tuple[float, ...],
    options: Options,
    resources: Resources,
    asked: Mapping[str, Any],
    progress: Progress,
) -> tuple[Experiment, float]:
    """Return the experiment with its arms filled in, and about how long a run takes."""
    from hairpin.experiments.prepare_arms import prepare_arms

    seeds = options.seeds or SEEDS
    budget = (
        seconds_per_run(resources, len(arms), len(scales), seeds)
        if resources.budget_seconds
        else None
    )
    comparable = prepare_arms(arms, budget, options.equal, resources.threads, Preparing(progress))
    trained = sum(arm.same_as is None for arm in comparable.arms)
    if options.seeds is None and length_of(arms[0].config) and resources.budget_seconds:
        room = resources.seconds_left * resources.workers / comparable.seconds_per_run
        room -= runs_of(trained, len(scales), 0)
        seeds = max(FEWEST_SEEDS, min(MOST_SEEDS, int(room / trained)))
    experiment = Experiment(
        kind=kind,
        text=comparable.text,
        arms=comparable.arms,
        seeds=tuple(range(seeds)),
        scales=scales,
        equal=comparable.equal,
        smallest_difference=options.smallest_difference,
        model=comparable.model,
        asked=asked,
        factors=factors,
    )
    return experiment, comparable.seconds_per_run


def _resources(
    request: Request, options: Options, configs: Sequence[Config], arms: int
) -> Resources:
    """Return the number of concurrent runs and the time available."""
    budget = request.budget or (None if length_of(configs[0]) else DEFAULT_BUDGET)
    seconds = parse_duration(budget) if budget else None
    device = configs[0].execution.device
    workers, threads = available_workers(2 * arms, device, options.workers)
    return Resources(workers, threads, seconds, time.monotonic())


def _plain(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in changes.items()
    }

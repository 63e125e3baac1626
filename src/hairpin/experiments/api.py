"""compare, ablate and find_lr as functions; torch is imported only where something is trained."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hairpin.config.load import read_toml
from hairpin.errors import ConfigError, RunError
from hairpin.experiments.compare import (
    Options,
    ablate_factors,
    compare_configs,
    compare_finished,
    report,
)
from hairpin.experiments.find_lr import SuggestedRate, search
from hairpin.experiments.runner import NoProgress, Progress
from hairpin.launch.request import Request, requested_settings
from hairpin.reports.comparison import Comparison
from hairpin.runs.experiment_folder import MIN_DIFFERENCE, ExperimentDirectory
from hairpin.system.arguments import AnyPath, Time, listed


def compare(
    *arms: AnyPath,
    vary: str | Iterable[str] = (),
    runs: Iterable[AnyPath | Iterable[AnyPath]] = (),
    corpus: str | None = None,
    config: AnyPath | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: str | Iterable[str] = (),
    seeds: int | None = None,
    budget: Time | None = None,
    same_lr: bool = False,
    equal: str | None = None,
    smallest_difference: float = MIN_DIFFERENCE,
    workers: int | None = None,
    out: AnyPath | None = None,
    only_report: bool = False,
    progress: Progress | None = None,
) -> tuple[Comparison, Path | None]:
    """Compare arms on a text, and separate their differences from those between seeds.

    Args:
        arms: config files (.toml) or finished runs; or the text that `vary` is about.
        vary: "key=a,b": an arm for each value.
        runs: groups of finished runs, or of CSV and JSONL files with another trainer's losses.
        corpus, config, settings, overrides: as in `hairpin.train`, for all arms.
        seeds: runs of each arm in the verdict.
        budget: wall time for the whole experiment.
        same_lr: whether each arm keeps the learning rate of its config.
        equal: quantity held equal: "tokens", "updates" or "time"; None: tokens, unless the
            arms differ in length on purpose.
        smallest_difference: bits per byte below which a difference does not matter.
        workers: concurrent runs; None: one for each core that there is memory for.
        out: the experiment's folder; None: a new one in `experiments/`.
        only_report: train nothing; report the results so far in `out`.
        progress: display.

    Returns:
        The comparison, and the experiment's folder; None if only finished runs were compared.

    Raises:
        UserError: the request is invalid; a line for each reason.
        HairpinError: a run could not be trained; the same call resumes.
    """
    options = Options(_count(seeds), same_lr, equal, smallest_difference, _count(workers))
    request = Request(
        corpus=corpus, config=config, out=out, budget=budget, settings=settings,
        overrides=overrides,
    )  # fmt: skip
    if only_report:
        return _only_report(request.folder)
    paths = [Path(arm) for arm in arms]
    if groups := [[Path(path) for path in listed(group)] for group in listed(runs)]:
        if arms or vary:
            raise ConfigError("--runs and --against compare finished runs: no TEXT, no --vary")
        _refuse_settings(request, seeds)
        return compare_finished([(_group_name(group), group) for group in groups], request, options)
    if len(paths) > 1 and not vary and all((path / "metrics.jsonl").exists() for path in paths):
        return compare_finished([(path.name, [path]) for path in paths], request, options)
    files = [path for path in paths if path.suffix == ".toml"]
    texts = [path for path in paths if path.suffix != ".toml"]
    if not vary and not files:
        raise ConfigError(
            "nothing to compare: give two config files, `--vary KEY=A,B`, or --runs and --against"
        )
    if vary and len(files) == 1 and config is None:
        config, files = files[0], []
    request = replace(request, texts=texts, config=_readable(config))
    return compare_configs(files, listed(vary), request, options, progress or NoProgress())


def ablate(
    *texts: AnyPath,
    factors: str | Iterable[str] = ("warmup", "decay", "clip"),
    vary: str | Iterable[str] = (),
    corpus: str | None = None,
    config: AnyPath | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: str | Iterable[str] = (),
    seeds: int | None = None,
    budget: Time | None = None,
    same_lr: bool = False,
    smallest_difference: float = MIN_DIFFERENCE,
    workers: int | None = None,
    out: AnyPath | None = None,
    only_report: bool = False,
    progress: Progress | None = None,
) -> tuple[Comparison, Path | None]:
    """Measure which parts of a recipe help on this text.

    Args:
        texts: files and folders, or a config file (.toml).
        factors: some of "warmup", "decay" and "clip": turned on and off in every combination.
        vary: "key=off,on" for any other key.
        corpus, config, settings, overrides: as in `compare`.
        seeds, budget, same_lr, smallest_difference: as in `compare`.
        workers, out, only_report, progress: as in `compare`.

    Raises:
        UserError, HairpinError: as in `compare`.
    """
    options = Options(_count(seeds), same_lr, None, smallest_difference, _count(workers))
    paths = [Path(text) for text in texts]
    if len(paths) == 1 and paths[0].suffix == ".toml" and config is None:
        config, paths = paths[0], []
    request = Request(
        paths, corpus, config=config, out=out, budget=budget, settings=settings,
        overrides=overrides,
    )  # fmt: skip
    if only_report:
        return _only_report(request.folder)
    _readable(config)
    return ablate_factors(
        list(listed(factors)), listed(vary), request, options, progress or NoProgress()
    )


def find_lr(
    *texts: AnyPath,
    corpus: str | None = None,
    config: AnyPath | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: str | Iterable[str] = (),
    budget: Time | None = None,
    workers: int | None = None,
    out: AnyPath | None = None,
    progress: Progress | None = None,
) -> SuggestedRate:
    """Find a peak learning rate by short runs of the whole schedule.

    Args:
        texts, corpus, config, settings, overrides: as in `hairpin.train`.
        budget: wall time for the search.
        workers: concurrent runs; None: one for each core that there is memory for.
        out: the page to write; None: `find-lr-<text>.html`.
        progress: display.

    Raises:
        UserError, HairpinError: as in `compare`.
    """
    request = Request(
        [Path(text) for text in texts], corpus, config=_readable(config), out=out, budget=budget,
        settings=settings, overrides=overrides,
    )  # fmt: skip
    return search(request, _count(workers), progress or NoProgress())


def _readable(config: AnyPath | None) -> AnyPath | None:
    """Return the config file, after reading it: its mistakes are reported before anything else."""
    if config is not None:
        read_toml(Path(config))
    return config


def _count(given: int | None) -> int | None:
    """Return the number as a Python int, which JSON can hold."""
    return None if given is None else int(given)


def _refuse_settings(request: Request, seeds: int | None) -> None:
    """Refuse training settings if nothing is trained."""
    others = {"--config": request.config, "--seeds": seeds, "--budget": request.budget}
    said = [*requested_settings(replace(request, config=None)).typed.values()]
    said += [f"{name} {value}" for name, value in others.items() if value is not None]
    if said:
        raise ConfigError(
            f"{', '.join(said)}: --runs and --against compare finished runs and train nothing; "
            "leave it out"
        )


def _only_report(folder: Path | None) -> tuple[Comparison, Path]:
    if folder is None:
        raise RunError("--only-report: name the experiment's folder with --out")
    return report(ExperimentDirectory(folder)), folder


def _group_name(paths: Sequence[Path]) -> str:
    """Return the common part of the names of finished runs, or the first one's name."""
    names = [path.name for path in paths]
    shared = 0
    while all(shared < len(name) and name[shared] == names[0][shared] for name in names):
        shared += 1
    return names[0][:shared].rstrip("-_0123456789.") or names[0]

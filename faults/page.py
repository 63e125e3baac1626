"""The page of results, and the lines about failures."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import torch

from faults.runner import Result
from hairpin.system.version import __version__


def results_page(
    results: Sequence[Result], share: float, caught: Mapping[str, str | None] | None = None
) -> str:
    """The results as Markdown.

    Args:
        results: of rows that were run.
        share: of each row's cases.
        caught: planted bug → how it was caught; None: it was not.
    """
    lines = [
        "# Results of the fault rig",
        "",
        f"`make faults` wrote this page. hairpin {__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {_machine()}.",
        "",
        "| fault | cases | passed | differences | seed | seconds | passes when |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
        *map(_line, results),
        "",
        _bound(results) if results else "No row was run.",
    ]
    if share != 1.0:
        lines += ["", f"Only {share:.0%} of the cases were run."]
    if caught:
        lines += ["", *_planted(caught)]
    failures = list(failure_lines(results))
    if failures:
        lines += ["", "## Failures", "", *(f"- {line}" for line in failures)]
    return "\n".join(lines) + "\n"


def failure_lines(results: Sequence[Result]) -> Iterator[str]:
    """A line for each problem, with what makes the case again."""
    for result in results:
        for number, problems in result.problems.items():
            for problem in problems:
                yield f"{result.row.name}, seed {result.seed}, case {number}: {problem}"


def write_page(
    path: Path, results: Sequence[Result], share: float, caught: Mapping[str, str | None]
) -> None:
    """Write the page to a file."""
    path.write_text(results_page(results, share, caught), encoding="utf-8")


def _planted(caught: Mapping[str, str | None]) -> Iterator[str]:
    """A rig that finds nothing proves nothing: what it finds where there is something."""
    found = sum(how is not None for how in caught.values())
    yield "## Planted bugs"
    yield ""
    yield f"{found} of {len(caught)} bugs that were planted in hairpin on purpose were caught."
    yield ""
    yield "| planted | caught by |"
    yield "| --- | --- |"
    for bug, how in caught.items():
        yield f"| {bug} | {how.split(', case')[0] if how else '**nothing**'} |"


def _line(result: Result) -> str:
    differences = sum(len(problems) for problems in result.problems.values())
    numbers = f"{result.cases:,} | {result.passed:,} | {differences:,}"
    row = result.row
    return f"| {row.name} | {numbers} | {result.seed} | {result.seconds:,.0f} | {row.passes_when} |"


def _bound(results: Sequence[Result]) -> str:
    """What no failure in n cases says about all the cases there could be."""
    cases, failed = sum(r.cases for r in results), sum(len(r.problems) for r in results)
    if failed:
        return f"**{failed:,} of {cases:,} cases failed.**"
    bounds = [f"for all {cases:,} cases together, at {min(1.0, 3 / cases):.2%}"]
    bounds += [
        f"for the {r.cases:,} kills alone, at {min(1.0, 3 / r.cases):.1%}"
        for r in results
        if r.row.name == "kills"
    ]
    return (
        f"0 failures in n bounds the failure rate at 3/n with 95% confidence: {'; '.join(bounds)}."
    )


def _machine() -> str:
    gigabytes = psutil.virtual_memory().total / 1e9
    return (
        f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} cores, {gigabytes:.0f} GB"
    )
